import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { IoOp, native } from '../../../native/index.ts';
import { NativeRegion } from '../../../native/region.ts';
import { TestGuest } from '../../../test/compliance/test-guest.ts';
import { makeImage } from '../../../test/support/disk-image.ts';
import { FaultyCalls } from '../../../test/support/faulty-calls.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { BackendSource } from '../../device/source.ts';
import { ManualClock } from '../../lib/clock.ts';
import { type Log, silentLog } from '../../lib/log.ts';
import { type DiskSourceOptions, openDiskSource } from './disk.ts';

const MIB = 1024 * 1024;
const EIO = 5;
const ENOSPC = 28;
const EOPNOTSUPP = 95;

let image: Awaited<ReturnType<typeof makeImage>>;
let clock: ManualClock;
const open: BackendSource[] = [];

beforeEach(async () => {
  image = await makeImage(8 * MIB);
  clock = new ManualClock();
});
afterEach(async () => {
  for (const source of open.splice(0)) await source.close();
  await image.remove();
});

async function openSource(options: Partial<DiskSourceOptions> = {}): Promise<BackendSource> {
  const source = await openDiskSource({ path: image.path, clock, log: silentLog, ...options });
  open.push(source);
  return source;
}

async function withGuest(source: BackendSource, body: (guest: TestGuest) => Promise<void>): Promise<void> {
  const region = NativeRegion.allocate(8 * MIB);
  const guest = new TestGuest(source.open(), region, 64);
  try {
    await body(guest);
    assert.deepEqual(guest.breaches, []);
  } finally {
    await guest.close();
    region.release();
  }
}

async function ask(guest: TestGuest, request: Parameters<TestGuest['add']>[0]): Promise<number> {
  const row = guest.add(request);
  guest.pushAll();
  await guest.answered();
  return guest.answers.findLast((answer) => answer.row === row)!.status;
}

/** A log that keeps its error lines. */
function recordingLog(): Log & { lines: string[] } {
  const lines: string[] = [];
  return { ...silentLog, lines, error: (_fields, message) => lines.push(message) };
}

describe('opening', () => {
  const refused = (options: Partial<DiskSourceOptions>, code: string, message: RegExp) =>
    assert.rejects(openSource(options), (error: Error & { code: string }) => {
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      assert.equal(error.message.includes('\n'), false);
      return true;
    });

  test('says what is wrong with what cannot be a disk', async () => {
    const folder = dirname(image.path);
    const path = (name: string) => join(folder, name);
    mkdirSync(path('folder'));
    writeFileSync(path('empty'), '');
    writeFileSync(path('odd'), 'x'.repeat(1000));
    symlinkSync('loop', path('loop'));
    await refused({ path: path('missing') }, 'not_found', /no such file or device: check the path/);
    await refused({ path: path('folder') }, 'usage', /is a directory: name an image file/);
    await refused({ path: path('empty') }, 'usage', /no bytes: give it a size/);
    await refused({ path: path('odd') }, 'usage', /1000 bytes is not a multiple of 512: .*-s 1024/);
    await refused({ path: path('loop') }, 'usage', /ELOOP/);
    await refused({ path: '/dev/null' }, 'usage', /neither a file nor a block device/);
    await refused({ queues: 17 }, 'usage', /queues/);
    await refused({ serial: 'x'.repeat(21) }, 'usage', /serial/);
  });

  test('says that it may not', { skip: process.geteuid?.() !== 0 && 'needs root, to be somebody else' }, async () => {
    process.seteuid?.(65534);
    try {
      await refused({}, 'denied', /no permission to write it: .* or export it read-only/);
      await refused({ readOnly: true }, 'denied', /no permission to read it/);
    } finally {
      process.seteuid?.(0);
    }
  });

  test('shows a profile that fits the file', async () => {
    const { profile } = await openSource({ queues: 2 });
    assert.equal(profile.capacityBytes, 8 * MIB);
    assert.equal(profile.logicalBlockBytes, 512);
    assert.equal(profile.serial, 'image');
    assert.deepEqual(profile.features, ['flush', 'discard', 'write-zeroes', 'write-cache-control', 'multi-queue']);
  });

  test('a read-only disk offers no changes', async () => {
    const { profile } = await openSource({ readOnly: true, queues: 1 });
    assert.deepEqual([profile.readOnly, profile.features], [true, ['flush']]);
  });

  test('the instance is of the file, not of the opening, until a flush fails', async () => {
    const first = (await openSource({ readOnly: true })).instance;
    const second = (await openSource({ readOnly: true })).instance;
    const reopened = (await openSource({ readOnly: true, reopened: 1 })).instance;
    const other = await makeImage(MIB);
    const different = (await openSource({ path: other.path })).instance;
    await other.remove();
    assert.equal(first, second);
    assert.equal(new Set([first, reopened, different]).size, 3);
  });

  test('a failed opening leaves no descriptor behind', async () => {
    const before = openSync('/dev/null', 'r');
    closeSync(before);
    await refused({ queues: 17 }, 'usage', /queues/);
    const after = openSync('/dev/null', 'r');
    closeSync(after);
    assert.equal(after, before);
  });
});

describe('the lock', () => {
  test('excludes a second writer and readers, and says who has it', async () => {
    await openSource();
    await assert.rejects(openSource(), { code: 'in_use', message: /netbusd itself, which has it open for another export/ });
    await assert.rejects(openSource({ readOnly: true }), { code: 'in_use' });
  });

  test('lets readers share, and keeps writers away', async () => {
    await openSource({ readOnly: true });
    await openSource({ readOnly: true });
    await assert.rejects(openSource(), { code: 'in_use' });
  });

  test('a reader is refused where QEMU says that it writes', async () => {
    const fd = openSync(image.path, 'r+');
    assert.equal(native.lockFile(fd, 'shared', 101, 1), true);
    await assert.rejects(openSource({ readOnly: true }), { code: 'in_use' });
    closeSync(fd);
    await openSource({ readOnly: true });
  });

  test('is waited for', async () => {
    const holder = await openSource();
    const waiting = new AbortController();
    const reasons: string[] = [];
    const told = new Promise<void>((resolve) => {
      const waitForLock = {
        signal: waiting.signal,
        onWaiting: (reason: string) => {
          reasons.push(reason);
          resolve();
        },
      };
      void openSource({ waitForLock }).then((source) => source.open().close());
    });
    await told;
    assert.match(reasons[0], /in use/);
    await holder.close();
    open.shift();
    while (open.length === 0) {
      clock.advance(1000);
      await new Promise(setImmediate);
    }
  });

  test('waiting ends with its signal', async () => {
    await openSource();
    const waiting = new AbortController();
    const onWaiting = () => setImmediate(() => waiting.abort());
    await assert.rejects(openSource({ waitForLock: { signal: waiting.signal, onWaiting } }), { code: 'in_use' });
  });

  test('is met by QEMU: it may read what we read, and write nothing', { timeout: 180_000 }, async (t) => {
    const writes = ['-f', 'raw', '-c', 'write 0 512', image.path];
    const reads = ['-r', '-f', 'raw', '-c', 'read 0 512', image.path];
    const run = async (args: string[]) => {
      const child = spawn('qemu-io', args, { stdio: 'ignore' });
      const [code] = await Promise.race([once(child, 'exit'), once(child, 'error').then(() => [undefined])]);
      return code as number | undefined;
    };
    if ((await run(reads)) === undefined) return t.skip('qemu-io is missing: apt-get install qemu-utils');
    const reader = await openSource({ readOnly: true });
    assert.equal(await run(reads), 0);
    assert.equal(await run(writes), 1);
    await reader.close();
    open.length = 0;
    await openSource();
    assert.equal(await run(reads), 1);
  });
});

describe('flush', () => {
  test('that failed keeps failing, for all devices of the opening', async () => {
    const calls = new FaultyCalls();
    const log = recordingLog();
    let told = 0;
    const source = await openSource({ calls, log, onFlushFailed: () => told++ });
    calls.fault = (op) => (op === IoOp.flush ? -EIO : undefined);
    await withGuest(source, async (guest) => {
      assert.equal(await ask(guest, { kind: DiskKind.flush }), DiskStatus.ioError);
      calls.fault = () => undefined;
      assert.equal(await ask(guest, { kind: DiskKind.flush }), DiskStatus.ioError);
      const durable = { kind: DiskKind.writeZeroes, extent: 4096, flags: DiskFlag.durable };
      assert.equal(await ask(guest, durable), DiskStatus.ioError);
      assert.equal(await ask(guest, { kind: DiskKind.write, outBytes: 4096 }), DiskStatus.ok);
    });
    await withGuest(source, async (guest) => assert.equal(await ask(guest, { kind: DiskKind.flush }), DiskStatus.ioError));
    assert.equal(told, 1);
    assert.equal(source.describe().flushFailed, true);
    assert.match(log.lines.join('\n'), /a flush failed, so acknowledged writes may be lost/);
  });

  test('goes one at a time, and the next one serves all that came meanwhile', async () => {
    const calls = new FaultyCalls();
    await withGuest(await openSource({ calls }), async (guest) => {
      for (let i = 0; i < 10; i++) {
        guest.add({ kind: DiskKind.flush });
        guest.pushAll();
      }
      await guest.answered();
      assert.equal(guest.answers.length, 10);
    });
    assert.deepEqual(calls.submitted, [IoOp.flush, IoOp.flush]);
  });

  test('a durable write that fails is an error of its own where nothing else is unflushed', async () => {
    const calls = new FaultyCalls();
    const source = await openSource({ calls });
    const durable = { kind: DiskKind.write, outBytes: 4096, flags: DiskFlag.durable };
    await withGuest(source, async (guest) => {
      calls.fault = (op) => (op === IoOp.writeDurable ? -ENOSPC : undefined);
      assert.equal(await ask(guest, durable), DiskStatus.ioError);
      calls.fault = () => undefined;
      assert.equal(await ask(guest, durable), DiskStatus.ok);
      assert.equal(await ask(guest, { kind: DiskKind.flush }), DiskStatus.ok);
      // With an unflushed write about, the common flush makes it durable.
      assert.equal(await ask(guest, { kind: DiskKind.write, outBytes: 4096 }), DiskStatus.ok);
      calls.submitted.length = 0;
      assert.equal(await ask(guest, durable), DiskStatus.ok);
    });
    assert.deepEqual(calls.submitted, [IoOp.write, IoOp.flush]);
  });
});

describe('what the storage cannot do', () => {
  test('a discard becomes nothing and succeeds', async () => {
    const calls = new FaultyCalls();
    const source = await openSource({ calls });
    calls.fault = (op) => (op === IoOp.punchHole ? -EOPNOTSUPP : undefined);
    await withGuest(source, async (guest) => {
      assert.equal(await ask(guest, { kind: DiskKind.discard, extent: MIB }), DiskStatus.ok);
      assert.equal(await ask(guest, { kind: DiskKind.discard, extent: MIB }), DiskStatus.ok);
    });
    assert.deepEqual(calls.submitted, [IoOp.punchHole]);
    assert.equal(source.describe().discard, false);
  });

  test('zeroes are written in bounded pieces', async () => {
    const calls = new FaultyCalls();
    const source = await openSource({ calls });
    calls.fault = (op) => (op === IoOp.punchHole || op === IoOp.zeroRange ? -EOPNOTSUPP : undefined);
    await withGuest(source, async (guest) => {
      const row = guest.add({ kind: DiskKind.write, position: 6 * MIB, outBytes: 4096 });
      guest.fill(row, new Uint8Array(4096).fill(0xab));
      guest.pushAll();
      await guest.answered();
      calls.submitted.length = 0;
      const flags = DiskFlag.unmap | DiskFlag.durable;
      assert.equal(await ask(guest, { kind: DiskKind.writeZeroes, position: 512, extent: 7 * MIB, flags }), DiskStatus.ok);
      guest.onReply = (read) =>
        assert.equal(
          guest.payload(read, 4096).every((byte) => byte === 0),
          true,
        );
      await ask(guest, { kind: DiskKind.read, position: 6 * MIB, inBytes: 4096 });
    });
    const { punchHole, zeroRange, write, flush, read } = IoOp;
    assert.deepEqual(calls.submitted, [punchHole, zeroRange, write, write, flush, read]);
  });

  test('an error is a reply, a count, and one line with what to do', async () => {
    const calls = new FaultyCalls();
    const log = recordingLog();
    const source = await openSource({ calls, log });
    calls.fault = (op) => (op === IoOp.write ? -ENOSPC : undefined);
    await withGuest(source, async (guest) => {
      for (let i = 0; i < 5; i++) {
        assert.equal(await ask(guest, { kind: DiskKind.write, position: 4096, outBytes: 512 }), DiskStatus.ioError);
      }
      calls.fault = () => undefined;
      assert.equal(await ask(guest, { kind: DiskKind.write, position: 4096, outBytes: 512 }), DiskStatus.ok);
    });
    assert.equal(source.describe().failures, 5);
    assert.equal(log.lines.length, 1);
    assert.match(log.lines[0], /write of 512 bytes at 4096 failed with ENOSPC: the filesystem is full; free space/);
  });
});

describe('size', () => {
  test('growth is told to the guest and the owner', async () => {
    const sizes: number[] = [];
    const source = await openSource({ onChange: ({ capacityBytes }) => sizes.push(capacityBytes) });
    await withGuest(source, async (guest) => {
      truncateSync(image.path, 9 * MIB + 100);
      assert.equal((await source.refresh()).capacityBytes, 9 * MIB);
      await guest.until(() => guest.events.length > 0);
      assert.deepEqual(guest.events, [{ kind: DiskKind.capacityChanged, argument: 9 * MIB }]);
      assert.equal(await ask(guest, { kind: DiskKind.read, position: 8 * MIB, inBytes: 4096 }), DiskStatus.ok);
    });
    assert.deepEqual(sizes, [9 * MIB]);
  });

  test('an image that shrank answers errors beyond its end, and is not made longer by a write', async () => {
    const log = recordingLog();
    const source = await openSource({ log });
    await withGuest(source, async (guest) => {
      truncateSync(image.path, 4 * MIB);
      assert.equal(await ask(guest, { kind: DiskKind.read, position: 5 * MIB, inBytes: 4096 }), DiskStatus.ioError);
      await guest.until(() => guest.events.length > 0);
      assert.equal(source.profile.capacityBytes, 4 * MIB);
      assert.equal(await ask(guest, { kind: DiskKind.write, position: 5 * MIB, outBytes: 4096 }), DiskStatus.ioError);
      assert.equal(await ask(guest, { kind: DiskKind.read, position: 0, inBytes: 4096 }), DiskStatus.ok);
    });
    assert.match(log.lines.join('\n'), /end of file.*shorter/);
    assert.match(log.lines.join('\n'), /shrank from 8388608 to 4194304/);
  });
});
