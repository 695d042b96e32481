import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NbdBench } from '../../../test/support/nbd-bench.ts';
import { seededRandom } from '../../../test/support/random.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { Command, CommandFlag, NbdError, TransmissionFlag } from '../../protocols/nbd/constants.ts';

const MIB = 1024 * 1024;
const { hasFlags, readOnly, sendFlush, sendFua, sendTrim, sendWriteZeroes } = TransmissionFlag;

function bench(title: string, body: (bench: NbdBench) => Promise<void>): void {
  test(title, { timeout: 60_000 }, async () => {
    const made = new NbdBench();
    await made.server.listen();
    try {
      await body(made);
    } finally {
      await made.close();
    }
  });
}

/** What the server was asked, in words. */
function asked({ server }: NbdBench): string[] {
  const name = (command: number) => Object.entries(Command).find(([, value]) => value === command)![0];
  const flag = (flags: number) => (flags & CommandFlag.fua ? ' fua' : '') + (flags & CommandFlag.noHole ? ' no-hole' : '');
  const seen = server.seen.splice(0);
  return seen.map(({ command, flags, position, length }) => `${name(command)}${flag(flags)} ${position}+${length}`);
}

bench('the guest sees what the server says', async (bench) => {
  bench.server.blocks = [4096, 65_536, 2 ** 25];
  const { profile } = await bench.open();
  assert.equal(profile.capacityBytes, 8 * MIB);
  assert.deepEqual(
    [profile.logicalBlockBytes, profile.physicalBlockBytes, profile.optimalIoBytes, profile.discardAlignmentBytes],
    [4096, 4096, 65_536, 65_536],
  );
  assert.equal(profile.readOnly, false);
  assert.ok(profile.features.includes('flush') && profile.features.includes('discard'));
  const { uri, locked, fua, flush } = bench.source.describe();
  assert.deepEqual({ uri, locked, fua, flush }, { uri: bench.server.uri, locked: false, fua: true, flush: true });
});

bench('what cannot be a disk is refused, with what to do', async (bench) => {
  const { server } = bench;
  const refused = async (code: string, message: RegExp) => await assert.rejects(bench.open(), { code, message });
  server.flags = hasFlags | readOnly;
  await refused('denied', /--read-only/);
  server.flags = hasFlags;
  await refused('usage', /neither flush nor FUA/);
  server.flags = hasFlags | sendFlush;
  server.storage = Buffer.alloc(1000);
  await refused('usage', /not a multiple of 512.*round-up=512/);
  server.storage = Buffer.alloc(0);
  await refused('usage', /no bytes/);
  server.storage = Buffer.alloc(4096);
  server.flags = hasFlags | readOnly;
  assert.equal((await bench.open({ readOnly: true })).profile.readOnly, true);
});

bench('each request is the command that it should be', async (bench) => {
  await bench.start();
  await bench.ask({ kind: DiskKind.read, position: 512, inBytes: 1024 });
  await bench.ask({ kind: DiskKind.write, position: 4096, outBytes: 512, flags: DiskFlag.durable });
  await bench.ask({ kind: DiskKind.write, position: 4096, outBytes: 512 });
  // An acknowledged write is unflushed: its error is the flush's to tell.
  await bench.ask({ kind: DiskKind.write, position: 8192, outBytes: 512, flags: DiskFlag.durable });
  await bench.ask({ kind: DiskKind.writeZeroes, position: 0, extent: 8192, flags: DiskFlag.unmap });
  await bench.ask({ kind: DiskKind.writeZeroes, position: 0, extent: 8192 });
  await bench.ask({ kind: DiskKind.discard, position: 512, extent: 4096 });
  await bench.ask({ kind: DiskKind.flush });
  assert.deepEqual(asked(bench), [
    'read 512+1024',
    'write fua 4096+512',
    'write 4096+512',
    'write 8192+512',
    'flush 0+0',
    'writeZeroes 0+8192',
    'writeZeroes no-hole 0+8192',
    'trim 512+4096',
    'flush 0+0',
  ]);
});

bench('a server without flush gets each write with FUA, and one without FUA a flush', async (bench) => {
  bench.server.flags = hasFlags | sendFua;
  await bench.start();
  await bench.ask({ kind: DiskKind.write, position: 0, outBytes: 512 });
  await bench.ask({ kind: DiskKind.writeZeroes, position: 0, extent: 512 });
  assert.equal(await bench.ask({ kind: DiskKind.flush }), DiskStatus.ok);
  assert.equal(await bench.ask({ kind: DiskKind.discard, position: 0, extent: 512 }), DiskStatus.ok);
  assert.deepEqual(asked(bench), ['write fua 0+512', 'write fua 0+512']);
});

bench('a server without FUA flushes after a durable write', async (bench) => {
  bench.server.flags = hasFlags | sendFlush;
  await bench.start();
  await bench.ask({ kind: DiskKind.write, position: 0, outBytes: 512, flags: DiskFlag.durable });
  assert.deepEqual(asked(bench), ['write 0+512', 'flush 0+0']);
});

bench('nothing is larger than the server takes, or not aligned to its blocks', async (bench) => {
  bench.server.blocks = [4096, 4096, 10_000];
  await bench.start();
  const data = seededRandom(1).bytes(20_480);
  assert.equal(await bench.ask({ kind: DiskKind.write, position: 4096 }, data), DiskStatus.ok);
  assert.deepEqual(asked(bench), ['write 4096+8192', 'write 12288+8192', 'write 20480+4096']);
  const row = bench.guest.add({ kind: DiskKind.read, position: 4096, inBytes: data.length });
  bench.guest.pushAll();
  await bench.guest.answered();
  assert.ok(bench.read.get(row)!.equals(data));
  assert.equal(await bench.ask({ kind: DiskKind.read, position: 512, inBytes: 4096 }), DiskStatus.ioError);
  assert.equal(await bench.ask({ kind: DiskKind.write, position: 0, outBytes: 512 }), DiskStatus.ioError);
  asked(bench);
  assert.equal(await bench.ask({ kind: DiskKind.discard, position: 512, extent: 12_288 }), DiskStatus.ok);
  assert.deepEqual(asked(bench), ['trim 4096+8192']);
});

bench('what the server cannot is done in another way', async (bench) => {
  const { server } = bench;
  server.errorOf = ({ command }) =>
    command === Command.trim || command === Command.writeZeroes ? NbdError.notSupported : undefined;
  server.storage.fill(7);
  await bench.start();
  assert.equal(await bench.ask({ kind: DiskKind.discard, position: 0, extent: 4096 }), DiskStatus.ok);
  assert.equal(await bench.ask({ kind: DiskKind.writeZeroes, position: 512, extent: 2 * MIB }), DiskStatus.ok);
  assert.equal(await bench.ask({ kind: DiskKind.writeZeroes, position: 0, extent: 512 }), DiskStatus.ok);
  assert.deepEqual(asked(bench), [
    'trim 0+4096',
    `writeZeroes no-hole 512+${2 * MIB}`,
    `write 512+${MIB}`,
    `write ${MIB + 512}+${MIB}`,
    'write 0+512',
  ]);
  assert.ok(server.storage.subarray(0, 2 * MIB + 512).every((byte) => byte === 0));
  assert.equal(server.storage[2 * MIB + 512], 7);
});

bench('an error of the server is an I/O error, counted and told', async (bench) => {
  bench.server.errorOf = () => 28;
  await bench.start();
  assert.equal(await bench.ask({ kind: DiskKind.write, position: 0, outBytes: 512 }), DiskStatus.ioError);
  assert.equal(await bench.ask({ kind: DiskKind.read, position: 0, inBytes: 512 }), DiskStatus.ioError);
  const { failures, lastFailure } = bench.source.describe();
  assert.equal(failures, 2);
  assert.match(String(lastFailure), /read of 512 bytes at 0 failed with ENOSPC/);
});

bench('a flush that failed keeps failing until it is opened anew', async (bench) => {
  const { server } = bench;
  await bench.start();
  await bench.ask({ kind: DiskKind.write, position: 0, outBytes: 512 });
  server.errorOf = ({ command }) => (command === Command.flush ? NbdError.io : undefined);
  assert.equal(await bench.ask({ kind: DiskKind.flush }), DiskStatus.ioError);
  server.errorOf = () => undefined;
  assert.equal(await bench.ask({ kind: DiskKind.flush }), DiskStatus.ioError);
  assert.equal(bench.flushesFailed, 1);
  const before = bench.source.instance;
  await bench.guest.close();
  await bench.source.close();
  await bench.open();
  await bench.start();
  assert.notEqual(bench.source.instance, before);
  assert.equal(await bench.ask({ kind: DiskKind.flush }), DiskStatus.ok);
});

test('what is on the server is what was written, over many kinds of servers and requests', { timeout: 120_000 }, async () => {
  const kinds = [sendFlush | sendFua | sendTrim | sendWriteZeroes, sendFlush, sendFua | sendWriteZeroes];
  const shape = fc.record({
    seed: fc.nat(),
    structured: fc.boolean(),
    flags: fc.constantFrom(...kinds),
    chunkBytes: fc.constantFrom(Number.POSITIVE_INFINITY, 512, 5000),
    payloadBytesMax: fc.constantFrom(4096, 100_000, 2 ** 25),
  });
  await fc.assert(
    fc.asyncProperty(shape, async ({ seed, structured, flags, chunkBytes, payloadBytesMax }) => {
      const bench = new NbdBench();
      const { server } = bench;
      await server.listen();
      Object.assign(server, { structured, chunkBytes, flags: hasFlags | flags, blocks: [1, 4096, payloadBytesMax] });
      try {
        const guest = await bench.start();
        const model = Buffer.alloc(server.storage.length);
        const random = seededRandom(seed);
        for (let round = 0; round < 6; round++) {
          const reads = new Map<number, Buffer>();
          // One place each, so that the order in which the server does them means nothing.
          for (let place = 0; place < 8; place++) {
            const position = place * MIB + 512 * random.below(100);
            const bytes = 512 * (1 + random.below(random.below(2) === 0 ? 16 : 1000));
            switch (random.below(4)) {
              case 0: {
                const data = Buffer.alloc(bytes, random.bytes(97));
                guest.fill(guest.add({ kind: DiskKind.write, position, outBytes: bytes, flags: random.below(2) }), data);
                data.copy(model, position);
                break;
              }
              case 1:
                guest.add({ kind: DiskKind.writeZeroes, position, extent: bytes, flags: random.below(4) });
                model.fill(0, position, position + bytes);
                break;
              default: {
                const row = guest.add({ kind: DiskKind.read, position, inBytes: bytes });
                reads.set(row, Buffer.from(model.subarray(position, position + bytes)));
              }
            }
          }
          guest.add({ kind: DiskKind.flush });
          guest.pushAll();
          await guest.answered();
          assert.ok(guest.answers.every(({ status }) => status === DiskStatus.ok));
          for (const [row, expected] of reads) assert.ok(bench.read.get(row)!.equals(expected), `round ${round}`);
        }
        assert.ok(server.storage.equals(model));
      } finally {
        await bench.close();
      }
    }),
    { numRuns: 8 },
  );
});
