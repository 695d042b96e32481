import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestGuest } from '../../../test/compliance/test-guest.ts';
import { ForgetfulDisk } from '../../../test/support/forgetful-disk.ts';
import { MemoryRegion } from '../../../test/support/memory-region.ts';
import { seededRandom } from '../../../test/support/random.ts';
import type { Device } from '../../device/device.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import type { DiskFeature } from '../../device/profile.ts';
import { ManualClock } from '../../lib/clock.ts';
import { DirtyMap, type Extent } from './dirty-map.ts';
import { Mirror } from './mirror.ts';
import type { MirrorDevice } from './mirror-device.ts';
import type { MirrorOptions } from './mirror-options.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const REGION = 64 * KIB;
const TURNS_MAX = 50_000;
const folder = mkdtempSync(join(tmpdir(), 'netbus-mirror-'));
after(() => rmSync(folder, { recursive: true }));
let maps = 0;

interface SetupOptions extends Partial<MirrorOptions> {
  readonly capacityBytes?: number;
  readonly extents?: readonly Extent[];
  /** The first pass is behind it. */
  readonly blocking?: boolean;
  readonly features?: DiskFeature[];
}

/** A guest on a disk full of ones, which is copied to one full of twos. */
class Setup {
  readonly clock = new ManualClock();
  readonly old: ForgetfulDisk;
  readonly target: ForgetfulDisk;
  readonly path = join(folder, `map-${++maps}`);
  readonly map: DirtyMap;
  readonly mirror: Mirror;
  device!: MirrorDevice;
  guest!: TestGuest;
  refusal: NetbusError | undefined;
  opened = 0;
  converged = 0;
  readonly failures: NetbusError[] = [];

  constructor({ capacityBytes = MIB, extents, blocking = false, features, ...options }: SetupOptions = {}) {
    this.old = new ForgetfulDisk(capacityBytes);
    this.target = new ForgetfulDisk(capacityBytes);
    if (features !== undefined) Object.assign(this.target, { profile: { ...this.target.profile, features } });
    this.old.memory.fill(1);
    this.target.memory.fill(2);
    this.map = DirtyMap.create({ path: this.path, owner: 'test', capacityBytes }, extents);
    this.map.blocking = blocking;
    this.mirror = new Mirror({
      map: this.map,
      clock: this.clock,
      allocate: (bytes) => Object.assign(new MemoryRegion(bytes), { release: () => {} }),
      openTarget: async () => {
        this.opened++;
        if (this.refusal !== undefined) throw this.refusal;
        return { device: this.target.open(), ids: this.target, close: () => {} };
      },
      onConverged: () => {
        this.converged++;
      },
      onFailed: (cause) => {
        this.failures.push(cause);
      },
      ...options,
    });
    this.session();
  }

  session(old: Device = this.old.open()): void {
    this.device = this.mirror.wrap(old);
    this.guest = new TestGuest(this.device, new MemoryRegion(8 * MIB), 64);
  }

  write(position: number, length: number, byte: number): number {
    const row = this.guest.add({ kind: DiskKind.write, position, outBytes: length });
    this.guest.fill(row, new Uint8Array(length).fill(byte));
    this.guest.pushAll();
    return row;
  }

  ask(kind: number, position: number, extent: number, flags = 0): void {
    this.guest.add({ kind, position, extent, flags });
    this.guest.pushAll();
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    for (let turns = 0; !condition(); turns++) {
      if (turns > TURNS_MAX) throw new Error(`it does not come to this: ${what}; ${JSON.stringify(this.mirror.progress)}`);
      await turn();
    }
  }

  async turns(count = 30): Promise<void> {
    for (let i = 0; i < count; i++) await turn();
  }

  /** Ends the session as the switch does, and looks whether the two are the same. */
  async switch(): Promise<void> {
    this.mirror.finish = true;
    assert.deepEqual(await this.guest.quiesce(new AbortController().signal), { outcome: 'clean' });
    assert.equal(this.mirror.inStep, true);
    assert.ok(this.target.memory.equals(this.old.memory));
    assert.ok(this.target.stable.equals(this.old.memory));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest.close();
    await this.mirror.close();
    this.map.close();
    assert.deepEqual(this.guest.breaches, []);
  }

  /** What the new disk was asked for since the last look. */
  seen(): string[] {
    const names = Object.fromEntries(Object.entries(DiskKind).map(([name, kind]) => [kind, name]));
    return this.target.seen.splice(0).map(({ kind, position, extent }) => `${names[kind]} ${position / KIB}+${extent / KIB}`);
  }
}

describe('a mirror', () => {
  test('copies everything, tells when the switch may be made, and is in step behind it', async () => {
    await using setup = new Setup();
    await setup.until('converged', () => setup.converged === 1);
    assert.equal(setup.mirror.progress.phase, 'converged');
    assert.equal(setup.mirror.progress.doneBytes, MIB);
    assert.equal(setup.mirror.inStep, false);
    setup.write(0, 4 * KIB, 7);
    await setup.switch();
    assert.equal(setup.target.seen.at(-1)?.kind, DiskKind.flush);
  });

  test('can be flushed once more before the switch, which has nothing to flush then', async () => {
    await using setup = new Setup();
    await setup.until('converged', () => setup.converged === 1);
    setup.write(0, 4 * KIB, 7);
    await setup.guest.answered();
    assert.equal(setup.mirror.converged, true);
    assert.equal(setup.map.unflushed, 1);
    setup.mirror.flushAgain();
    assert.equal(setup.mirror.converged, false);
    await setup.until('converged again', () => setup.converged === 2);
    setup.seen();
    await setup.switch();
    assert.deepEqual(setup.seen(), []);
  });

  test('writes to both behind the first pass, and its answer is that both have it', async () => {
    await using setup = new Setup({ extents: [], blocking: true });
    await setup.until('open', () => setup.mirror.target.isOpen);
    setup.target.automatic = false;
    setup.write(0, 4 * KIB, 7);
    await setup.turns();
    assert.equal(setup.guest.answers.length, 0);
    assert.equal(setup.old.memory[0], 7);
    setup.target.device!.answer(1);
    await setup.guest.answered();
    assert.equal(setup.target.memory[0], 7);
    assert.equal(setup.map.dirty, 0);
  });

  test('converges under a guest that writes everywhere all the time', async () => {
    await using setup = new Setup({ capacityBytes: 4 * MIB });
    const random = seededRandom(6);
    const more = () => {
      const length = 512 * (1 + random.below(64));
      const position = 512 * random.below((4 * MIB - length) / 512);
      setup.write(position, length, 1 + random.below(255));
    };
    setup.guest.onReply = () => setImmediate(more);
    for (let i = 0; i < 12; i++) more();
    await setup.until('converged', () => setup.converged > 0);
    setup.guest.onReply = () => {};
    await setup.guest.answered();
    await setup.turns();
    await setup.guest.answered();
    await setup.switch();
  });

  test('converges under a guest that writes to the same few regions all the time', async () => {
    await using setup = new Setup({ blocking: true });
    const random = seededRandom(7);
    const more = () => setup.write(512 * random.below((4 * REGION) / 512), 512, 1 + random.below(255));
    setup.guest.onReply = () => setImmediate(more);
    for (let i = 0; i < 8; i++) more();
    // Another one is always on its way to each of them.
    setup.old.automatic = false;
    let turns = 0;
    await setup.until('converged', () => {
      if (turns++ % 3 === 0) setup.old.device?.answer(1);
      return setup.converged > 0;
    });
    setup.guest.onReply = () => {};
    setup.old.automatic = true;
    setup.old.device?.answer(100);
    await setup.turns();
    await setup.guest.answered();
    await setup.switch();
  });

  test('nothing that a guest waits for takes longer than the bound on a new disk that does not answer', async () => {
    await using setup = new Setup({ extents: [], blocking: true, guestWaitMs: 100 });
    await setup.until('open', () => setup.mirror.target.isOpen);
    setup.target.automatic = false;
    const { device } = setup.target;
    let isClosed = false;
    const close = device!.close.bind(device);
    device!.close = () => {
      isClosed = true;
      return close();
    };
    setup.write(0, 4 * KIB, 7);
    setup.write(REGION, 4 * KIB, 8);
    await setup.turns();
    setup.clock.advance(99);
    await setup.turns();
    assert.equal(setup.guest.answers.length, 0);
    setup.guest.onReply = () => assert.equal(isClosed, true, 'its memory is still lent to the new disk');
    setup.clock.advance(1);
    await setup.guest.answered();
    assert.equal(setup.map.dirty, 2);
    assert.match(setup.mirror.progress.targetReason ?? '', /kept the guest waiting for 100 ms/);
    // Until it is there again, nobody waits.
    setup.write(2 * REGION, 4 * KIB, 9);
    await setup.guest.answered();
    setup.target.automatic = true;
    setup.clock.advance(1_000);
    await setup.until('converged', () => setup.mirror.converged);
    assert.equal(setup.opened, 2);
    await setup.turns();
  });

  test('a new disk that hangs while it is copied to keeps nobody waiting in the first pass', async () => {
    await using setup = new Setup();
    setup.target.automatic = false;
    await setup.until('copies', () => (setup.target.device?.held.length ?? 0) > 0);
    for (let region = 0; region < 16; region++) setup.write(region * REGION, 4 * KIB, 7);
    await setup.guest.answered();
    setup.clock.advance(10_000);
    assert.match(setup.mirror.progress.targetReason ?? '', /did not answer for 10 s/);
    setup.target.automatic = true;
    setup.clock.advance(10_000);
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });

  test('a copy that hangs keeps a write to its region no longer than the bound', async () => {
    await using setup = new Setup({ blocking: true });
    setup.target.automatic = false;
    await setup.until('copies', () => (setup.target.device?.held.length ?? 0) > 0);
    setup.write(0, 4 * KIB, 7);
    await setup.turns();
    assert.equal(setup.guest.answers.length, 0);
    setup.clock.advance(100);
    await setup.guest.answered();
    setup.target.automatic = true;
    setup.clock.advance(1_000);
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });

  test('a copy whose read hangs at the old disk keeps a write no longer, and the new disk is not blamed', async () => {
    await using setup = new Setup({ blocking: true });
    setup.old.automatic = false;
    await setup.until('reads', () => (setup.old.device?.held.length ?? 0) > 0);
    setup.write(0, 4 * KIB, 7);
    await setup.turns();
    const reads = setup.old.device!.held.length;
    setup.clock.advance(100);
    await setup.turns();
    assert.equal(setup.old.device!.held.length, reads + 1);
    assert.equal(setup.opened, 1);
    assert.equal(setup.mirror.target.isOpen, true);
    setup.old.automatic = true;
    setup.old.device!.answer(100);
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });

  test('opens the new disk again, less and less often, and says why it is not there', async () => {
    const refusal = new NetbusError('unreachable', 'the host of the new disk is away');
    await using setup = new Setup({
      openTarget: async () => {
        setup.opened++;
        throw refusal;
      },
    });
    await setup.until('asked', () => setup.mirror.target.reason !== undefined);
    assert.equal(setup.mirror.progress.targetReason, refusal.message);
    for (let second = 0; second < 60; second++) {
      setup.clock.advance(1_000);
      await setup.turns(5);
    }
    assert.ok(setup.opened >= 8 && setup.opened <= 15, `opened ${setup.opened} times`);
  });
});

describe('what is asked of the new disk', () => {
  test('zeroes give their space back, and are no data', async () => {
    await using setup = new Setup({ capacityBytes: 256 * KIB });
    setup.old.memory.fill(0, 0, 128 * KIB);
    await setup.until('converged', () => setup.converged > 0);
    assert.deepEqual(setup.seen(), ['writeZeroes 0+128', 'write 128+128', 'flush 0+0']);
    await setup.switch();
  });

  test('one that is blank is not sent any, unless it was written to', async () => {
    await using setup = new Setup({ capacityBytes: 256 * KIB, blankTarget: true });
    setup.old.memory.fill(0, 0, 192 * KIB);
    setup.target.memory.fill(0);
    await setup.until('converged', () => setup.converged > 0);
    assert.deepEqual(setup.seen(), ['write 192+64', 'flush 0+0']);
    setup.write(0, 4 * KIB, 7);
    await setup.guest.answered();
    setup.mirror.pause();
    setup.ask(DiskKind.writeZeroes, 0, 64 * KIB);
    await setup.guest.answered();
    setup.mirror.resume();
    await setup.until('converged', () => setup.mirror.converged);
    assert.deepEqual(setup.seen(), ['write 0+4', 'writeZeroes 0+64', 'flush 0+0']);
    await setup.switch();
  });

  test('holes that are known are not read', async () => {
    await using setup = new Setup({ extents: [{ position: 128 * KIB, length: REGION }], blankTarget: true });
    setup.old.memory.fill(0);
    setup.old.memory.fill(5, 128 * KIB, 192 * KIB);
    setup.target.memory.fill(0);
    await setup.until('converged', () => setup.converged > 0);
    assert.equal(setup.old.seen.length, 1);
    await setup.switch();
  });

  for (const features of [['flush', 'discard', 'write-zeroes'], ['flush']] as DiskFeature[][]) {
    const what = features.includes('write-zeroes') ? 'asked for' : 'sent, where it cannot make them';
    test(`large zeroes and discards go piece by piece to both, and are ${what}`, async () => {
      await using setup = new Setup({ capacityBytes: 16 * MIB, extents: [], blocking: true, features });
      await setup.until('open', () => setup.mirror.target.isOpen);
      setup.ask(DiskKind.writeZeroes, MIB, 10 * MIB, DiskFlag.durable);
      setup.ask(DiskKind.discard, 12 * MIB, MIB);
      await setup.guest.answered();
      const kind = features.includes('write-zeroes') ? 'writeZeroes' : 'write';
      const expected = [`${kind} 1024+4096`, `${kind} 12288+1024`, `${kind} 5120+4096`, `${kind} 9216+2048`];
      assert.deepEqual(setup.seen(), expected);
      assert.deepEqual(
        setup.old.seen.map(({ kind, flags }) => [kind, flags]),
        [
          [DiskKind.writeZeroes, DiskFlag.durable],
          [DiskKind.writeZeroes, DiskFlag.unmap],
          [DiskKind.writeZeroes, DiskFlag.durable],
          [DiskKind.writeZeroes, DiskFlag.durable],
        ],
      );
      assert.equal(setup.map.dirty, 0);
      assert.ok(setup.target.memory.subarray(MIB, 11 * MIB).equals(Buffer.alloc(10 * MIB)));
    });
  }

  test('it is flushed once a second while it is written to', async () => {
    await using setup = new Setup({ extents: [], blocking: true });
    await setup.until('open', () => setup.mirror.target.isOpen);
    for (let second = 0; second < 3; second++) {
      setup.write(second * REGION, 4 * KIB, 7);
      await setup.guest.answered();
      await setup.turns();
      assert.equal(setup.map.unflushed, 1);
      setup.clock.advance(1_000);
      await setup.until('flushed', () => setup.map.unflushed === 0);
    }
    assert.equal(setup.target.flushes, 3);
  });

  test("a guest's flush is the old disk's affair", async () => {
    await using setup = new Setup({ extents: [], blocking: true });
    await setup.until('open', () => setup.mirror.target.isOpen);
    setup.ask(DiskKind.flush, 0, 0);
    await setup.guest.answered();
    assert.deepEqual(setup.seen(), []);
  });

  test('no more bytes per second are copied than it is told, and the bound can be changed', async () => {
    await using setup = new Setup({ capacityBytes: 8 * MIB, speed: MIB });
    const copied = () => setup.mirror.progress.doneBytes;
    for (let second = 0; second < 4; second++) {
      for (let i = 0; i < 10; i++) {
        setup.clock.advance(100);
        await setup.turns();
      }
    }
    assert.ok(copied() >= 3 * MIB && copied() <= 6 * MIB, `copied ${copied() / MIB} MiB in 4 s`);
    assert.ok(setup.mirror.progress.bytesPerSecond < 2 * MIB);
    setup.mirror.speed = undefined;
    await setup.until('converged', () => setup.converged > 0);
  });

  test('a region that is larger than a piece is copied piece by piece', async () => {
    const capacityBytes = 2 ** 47;
    // Its memory is the first of it, which is all that is looked at.
    const [old, target] = [new ForgetfulDisk(4 * MIB), new ForgetfulDisk(4 * MIB)];
    for (const disk of [old, target]) Object.assign(disk, { profile: { ...disk.profile, capacityBytes } });
    old.memory.fill(3);
    await using setup = new Setup({
      extents: [],
      openTarget: async () => ({ device: target.open(), ids: target, close: () => {} }),
    });
    await setup.until('open', () => setup.mirror.target.isOpen);
    const map = DirtyMap.create({ path: join(folder, 'large'), owner: 'test', capacityBytes }, [{ position: 0, length: 1 }]);
    assert.equal(map.regionBytes, 2 * MIB);
    let isThere = false;
    const mirror = new Mirror({
      map,
      clock: setup.clock,
      allocate: (bytes) => Object.assign(new MemoryRegion(bytes), { release: () => {} }),
      openTarget: async () => ({ device: target.open(), ids: target, close: () => {} }),
      onConverged: () => {
        isThere = true;
      },
      onFailed: () => {},
    });
    const guest = new TestGuest(mirror.wrap(old.open()), new MemoryRegion(MIB), 8);
    await setup.until('converged', () => isThere);
    assert.deepEqual(
      old.seen.map(({ position, extent }) => [position, extent]),
      [0, 1, 2, 3].map((piece) => [(piece * MIB) / 2, MIB / 2]),
    );
    assert.ok(target.memory.subarray(0, 2 * MIB).equals(old.memory.subarray(0, 2 * MIB)));
    await guest.close();
    await mirror.close();
    map.close();
  });
});

describe('failures of a copy', () => {
  test('a new disk that fails a write ends the job, and the guest goes on', async () => {
    await using setup = new Setup({ extents: [], blocking: true });
    await setup.until('open', () => setup.mirror.target.isOpen);
    setup.target.writesFail = true;
    setup.write(0, 4 * KIB, 7);
    await setup.guest.answered();
    assert.equal(setup.guest.answers[0].status, DiskStatus.ok);
    await setup.until('failed', () => setup.failures.length === 1);
    assert.match(setup.failures[0].message, /the new disk failed a write: is its storage full/);
    assert.equal(setup.mirror.progress.phase, 'failed');
    setup.write(REGION, 4 * KIB, 8);
    await setup.guest.answered();
    assert.equal(setup.opened, 1);
    assert.equal(setup.map.dirty, 2);
  });

  test('an old disk that fails the read of a copy ends the job, and the guest goes on', async () => {
    await using setup = new Setup();
    setup.old.readsFail = true;
    await setup.until('failed', () => setup.failures.length === 1);
    assert.match(setup.failures[0].message, /the old disk failed a read of 524288 bytes at 0/);
    setup.old.readsFail = false;
    setup.write(0, 4 * KIB, 7);
    await setup.guest.answered();
  });

  test("a write that the old disk failed is the guest's, and its region is copied again", async () => {
    await using setup = new Setup({ extents: [], blocking: true });
    await setup.until('open', () => setup.mirror.target.isOpen);
    setup.old.writesFail = true;
    setup.write(0, 4 * KIB, 7);
    await setup.guest.answered();
    assert.equal(setup.guest.answers[0].status, DiskStatus.ioError);
    setup.old.writesFail = false;
    setup.target.memory.set(setup.old.memory.subarray(64 * KIB), 64 * KIB);
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });

  test('a new disk that is too small, or read-only, is none', async () => {
    for (const profile of [{ capacityBytes: 512 * KIB }, { readOnly: true }]) {
      await using setup = new Setup({
        openTarget: async () => {
          const device = setup.target.open();
          Object.assign(device, { profile: { ...device.profile, ...profile } });
          return { device, ids: setup.target, close: () => {} };
        },
      });
      await setup.until('failed', () => setup.failures.length === 1);
      assert.match(setup.failures[0].message, /the new disk is (smaller than the old one|read-only)/);
    }
  });

  test('a map that lost its memory ends the job before the switch', async () => {
    await using setup = new Setup();
    truncateSync(setup.path, 4096);
    await setup.until('failed', () => setup.failures.length === 1);
    assert.match(setup.failures[0].message, /the map of the copy is damaged/);
    assert.equal(setup.converged, 0);
  });

  test('a flush that fails means that it may have lost everything that was not flushed', async () => {
    await using setup = new Setup();
    setup.target.flushFails = true;
    await setup.until('cut', () => setup.mirror.target.reason !== undefined);
    assert.equal(setup.map.dirty, 16);
    setup.target.flushFails = false;
    setup.target.instance = 'two';
    setup.clock.advance(1_000);
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });
});

describe('a session of a mirror', () => {
  test('that is renewed leaves what is dirty to the next one', async () => {
    await using setup = new Setup();
    setup.mirror.pause();
    assert.deepEqual(await setup.guest.quiesce(new AbortController().signal), { outcome: 'clean' });
    assert.equal(setup.map.dirty, 16);
    assert.equal(setup.mirror.inStep, false);
    await setup.guest.close();
    setup.session();
    setup.mirror.resume();
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
  });

  test('that is cut before everything is copied is not in step', async () => {
    await using setup = new Setup();
    setup.target.automatic = false;
    await setup.until('copies', () => (setup.target.device?.held.length ?? 0) > 0);
    setup.mirror.finish = true;
    const bound = new AbortController();
    const quiescing = setup.guest.quiesce(bound.signal);
    await setup.turns();
    bound.abort();
    assert.deepEqual(await quiescing, { outcome: 'clean' });
    assert.equal(setup.mirror.inStep, false);
  });

  test('that finishes without its new disk ends at once, and is not in step', async () => {
    await using setup = new Setup();
    await setup.until('converged', () => setup.mirror.converged);
    setup.target.killDaemon(() => false);
    setup.mirror.finish = true;
    assert.deepEqual(await setup.guest.quiesce(new AbortController().signal), { outcome: 'clean' });
    assert.equal(setup.mirror.inStep, false);
  });

  test('in step means as long as the new disk is there', async () => {
    await using setup = new Setup();
    await setup.until('converged', () => setup.mirror.converged);
    await setup.switch();
    setup.target.losePower(() => false);
    assert.equal(setup.mirror.inStep, false);
  });

  test('that still reads for a copy has the memory for that until its disk has answered, or is closed', async () => {
    for (const end of ['answered', 'closed'] as const) {
      let released = 0;
      const allocate = (bytes: number) => Object.assign(new MemoryRegion(bytes), { release: () => released++ });
      await using setup = new Setup({ allocate });
      setup.old.automatic = false;
      await setup.until('reads', () => (setup.old.device?.held.length ?? 0) > 0);
      await setup.mirror.close();
      assert.equal(released, 0, 'the old disk may still write to it');
      if (end === 'answered') setup.old.device!.answer(setup.old.device!.held.length);
      else await setup.guest.close();
      assert.equal(released, 1);
    }
  });

  test('goes on as the old disk when the job is cancelled, in each phase', async () => {
    for (const phase of ['at once', 'first pass', 'both', 'paused', 'converged']) {
      await using setup = new Setup({ blocking: phase === 'both' });
      if (phase === 'first pass' || phase === 'both') {
        setup.target.automatic = false;
        await setup.until('copies', () => (setup.target.device?.held.length ?? 0) > 0);
      }
      if (phase === 'paused') setup.mirror.pause();
      if (phase === 'converged') await setup.until('converged', () => setup.mirror.converged);
      if (phase === 'converged') setup.target.automatic = false;
      for (let region = 0; region < 4; region++) setup.write(region * REGION, 4 * KIB, 9);
      await setup.turns();
      await setup.mirror.close();
      setup.map.close();
      await setup.guest.answered();
      setup.write(0, 4 * KIB, 10);
      await setup.guest.answered();
      assert.equal(setup.old.memory[0], 10, phase);
      assert.equal(setup.mirror.inStep, false);
    }
  });
});
