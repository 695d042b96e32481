import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { NativeRegion } from '../../../native/region.ts';
import { TestGuest } from '../../../test/compliance/test-guest.ts';
import { ForgetfulDisk } from '../../../test/support/forgetful-disk.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { VirtualDevice } from '../../device/virtual-device.ts';
import { ManualClock } from '../../lib/clock.ts';
import { type DeviceIds, WriteLog } from './write-log.ts';

const SECTOR_BYTES = 512;
const BLOCK_BYTES = 4096;
const SECTORS = 128;

let folder: string;
let region: NativeRegion;
let runs = 0;

/** A VM's host with one attachment: its daemon can be started anew, with what was acknowledged in the log alone. */
class VmHost {
  readonly clock = new ManualClock();
  readonly disk: ForgetfulDisk;
  readonly path = join(folder, `log-${runs++}`);
  readonly sent: number[] = [];
  readonly boundBytes: number;
  log!: WriteLog;
  virtual!: VirtualDevice;
  guest!: TestGuest;
  /** As the record of the attachment has it. */
  before: DeviceIds | null = null;
  owner = 'first guest';

  constructor(disk: ForgetfulDisk, boundBytes: number) {
    this.disk = disk;
    this.boundBytes = boundBytes;
    this.start();
  }

  start(): void {
    const { clock, path, boundBytes, owner } = this;
    const onSent = (bytes: number) => void this.sent.push(bytes);
    this.log = new WriteLog({ path, boundBytes, owner, clock, onSent, onTrouble: () => {} }, this.before === null);
    const { disk } = this;
    this.virtual = new VirtualDevice({
      profile: disk.profile,
      depth: 16,
      openSession: async () => ({
        activate: async () => {
          const { bootId, instance } = disk;
          const grant = this.log.admit({ epoch: 1, bootId, instance, device: disk.open() }, this.before);
          if (!(grant.unflushed instanceof Error)) this.before = { bootId, instance };
          return grant;
        },
        quiesced: async () => {},
        close: () => {},
      }),
      clock,
      onState: () => {},
    });
    this.guest = new TestGuest(this.virtual.open(), region, 64);
  }

  /** The daemon is killed. What the guest had asked for and not got is asked again, as from the in-flight region. */
  async restart(isDone: (n: number) => boolean): Promise<void> {
    const { guest } = this;
    const again = [...guest.lent, ...guest.waiting.rows.subarray(0, guest.waiting.count)].map((row) => {
      const { kind, flags, argument, extent, outLength, inLength } = guest.requests;
      const request = {
        kind: kind[row],
        flags: flags[row],
        position: argument[row],
        extent: extent[row],
        outBytes: outLength[row],
        inBytes: inLength[row],
      };
      return { request, payload: guest.payload(row, outLength[row]) };
    });
    this.disk.killDaemon(isDone);
    await guest.close();
    await this.virtual.close();
    this.log.close();
    this.start();
    for (const { request, payload } of again) {
      const row = this.guest.add(request);
      if (payload.length > 0) this.guest.fill(row, payload);
    }
    this.guest.pushAll();
  }

  /** Goes on until all is answered. */
  async settle(): Promise<void> {
    this.disk.automatic = true;
    while (this.guest.lent.size > 0 || this.guest.waiting.count > 0 || this.virtual.state.name === 'connecting') {
      this.disk.device?.answer(16);
      await turn();
      this.clock.advance(500);
    }
  }

  write(sector: number, sectors: number, byte: number, flags = 0): number {
    const bytes = sectors * SECTOR_BYTES;
    const row = this.guest.add({ kind: DiskKind.write, position: sector * SECTOR_BYTES, outBytes: bytes, flags });
    this.guest.fill(row, new Uint8Array(bytes).fill(byte));
    return row;
  }

  async ask(kind: number, more: { position?: number; extent?: number } = {}): Promise<number> {
    this.guest.add({ kind, ...more });
    this.guest.pushAll();
    await this.settle();
    return this.guest.answers.at(-1)!.status;
  }

  async read(): Promise<number[]> {
    const row = this.guest.add({ kind: DiskKind.read, position: 0, inBytes: SECTORS * SECTOR_BYTES });
    let bytes: Uint8Array = new Uint8Array(0);
    this.guest.onReply = (answered) => {
      if (answered === row) bytes = this.guest.payload(row, SECTORS * SECTOR_BYTES);
    };
    this.guest.pushAll();
    await this.settle();
    this.guest.onReply = () => {};
    return Array.from({ length: SECTORS }, (_, i) => {
      const sector = bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
      assert.ok(sector.every((byte) => byte === sector[0]));
      return sector[0];
    });
  }

  async end(): Promise<void> {
    assert.deepEqual(this.guest.breaches, []);
    await this.guest.close();
    await this.virtual.close();
    this.log.close();
    WriteLog.remove(this.path);
    assert.equal(existsSync(this.path), false);
  }
}

type Step =
  | { readonly do: 'write' | 'zero' | 'discard'; readonly sector: number; readonly sectors: number; readonly durable: boolean }
  | { readonly do: 'flush' | 'turn' }
  | { readonly do: 'answer'; readonly from: number; readonly count: number }
  | { readonly do: 'power' | 'kill' | 'restart' | 'restart-and-power'; readonly bits: number }
  | { readonly do: 'check' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('write' as const, 'write' as const, 'write' as const, 'zero' as const, 'discard' as const),
      sector: fc.nat(SECTORS - 1),
      sectors: fc.integer({ min: 1, max: 20 }),
      durable: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('flush' as const, 'turn' as const, 'turn' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('answer' as const), from: fc.nat(6), count: fc.integer({ min: 1, max: 4 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('power' as const, 'kill' as const, 'restart' as const, 'restart-and-power' as const),
      bits: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('check' as const) }) },
);

describe('write log', () => {
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-log-'));
    region = NativeRegion.allocate(16 * 1024 * 1024);
  });
  after(() => {
    region.release();
    rmSync(folder, { recursive: true });
  });

  let disk: ForgetfulDisk;
  beforeEach(() => {
    disk = new ForgetfulDisk(SECTORS * SECTOR_BYTES);
  });

  test('whatever is lost and killed, in whatever order: every acknowledged write is there, and no old one comes back', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.constantFrom(6, 12, 64), async (steps, blocks) => {
        const own = new ForgetfulDisk(SECTORS * SECTOR_BYTES);
        const host = new VmHost(own, blocks * BLOCK_BYTES);
        own.automatic = false;
        // Of requests that overlap the later one is done later, so this is the content when all is answered; undefined: a discard.
        const expected: (number | undefined)[] = new Array(SECTORS).fill(0);
        let byte = 0;
        for (const action of steps) {
          const { guest } = host;
          if (guest.rowsFree < 8 || guest.lent.size + guest.waiting.count > 30) await host.settle();
          own.automatic = false;
          switch (action.do) {
            case 'write':
            case 'zero':
            case 'discard': {
              const sectors = Math.min(action.sectors, SECTORS - action.sector);
              const flags = action.durable && action.do !== 'discard' ? DiskFlag.durable : 0;
              byte = (byte % 250) + 1;
              if (action.do === 'write') host.write(action.sector, sectors, byte, flags);
              else {
                const kind = action.do === 'zero' ? DiskKind.writeZeroes : DiskKind.discard;
                guest.add({ kind, flags, position: action.sector * SECTOR_BYTES, extent: sectors * SECTOR_BYTES });
              }
              const value = action.do === 'write' ? byte : action.do === 'zero' ? 0 : undefined;
              expected.fill(value, action.sector, action.sector + sectors);
              guest.pushAll();
              break;
            }
            case 'flush':
              guest.add({ kind: DiskKind.flush });
              guest.pushAll();
              break;
            case 'turn':
              await turn();
              host.clock.advance(100);
              break;
            case 'answer':
              own.device?.answer(action.count, action.from);
              break;
            case 'power':
              own.losePower((n) => ((action.bits >> (n % 31)) & 1) === 1);
              break;
            case 'kill':
              own.killDaemon((n) => ((action.bits >> (n % 31)) & 1) === 1);
              break;
            case 'restart':
            case 'restart-and-power':
              await host.restart((n) => ((action.bits >> (n % 31)) & 1) === 1);
              if (action.do === 'restart-and-power') own.losePower(() => false);
              break;
            case 'check': {
              await host.settle();
              const found = await host.read();
              expected.forEach((value, sector) => {
                if (value !== undefined) assert.equal(found[sector], value, `sector ${sector}`);
              });
              break;
            }
          }
        }
        await host.settle();
        const found = await host.read();
        expected.forEach((value, sector) => {
          if (value !== undefined) assert.equal(found[sector], value, `sector ${sector} at the end`);
        });
        assert.ok(host.guest.answers.every(({ status }) => status === DiskStatus.ok));
        await host.end();
      }),
      { numRuns: 150, ...(process.env.NETBUS_SEED && { seed: Number(process.env.NETBUS_SEED) }) },
    );
  });

  test('what was lost is sent in few requests, then flushed, and only then comes what had no answer', async () => {
    const host = new VmHost(disk, 64 * BLOCK_BYTES);
    host.write(0, 8, 1);
    host.write(8, 8, 2);
    host.write(25, 3, 3);
    host.guest.pushAll();
    await host.settle();
    disk.automatic = false;
    host.write(0, 4, 9);
    host.guest.pushAll();
    await turn();
    disk.seen.length = 0;
    disk.losePower(() => false);
    await host.settle();
    await host.settle();
    assert.deepEqual(
      disk.seen.map(({ kind, position, extent }) => [kind, position / SECTOR_BYTES, extent / SECTOR_BYTES]),
      [
        [DiskKind.write, 0, 16],
        [DiskKind.write, 25, 3],
        [DiskKind.flush, 0, 0],
        [DiskKind.write, 0, 4],
      ],
    );
    assert.deepEqual(host.sent, [3 * BLOCK_BYTES]);
    assert.equal((await host.read())[3], 9);
    await host.end();
  });

  test('the daemon of the device’s host alone is killed: nothing is sent but what had no answer', async () => {
    const host = new VmHost(disk, 64 * BLOCK_BYTES);
    host.write(0, 8, 1);
    host.guest.pushAll();
    await host.settle();
    disk.seen.length = 0;
    disk.killDaemon(() => true);
    host.write(16, 1, 2);
    host.guest.pushAll();
    await host.settle();
    assert.deepEqual(
      disk.seen.filter(({ kind }) => kind === DiskKind.write).map(({ position }) => position),
      [16 * SECTOR_BYTES],
    );
    assert.deepEqual(host.sent, []);
    await host.end();
  });

  test('above half of its bound it is flushed in the background; at the bound the guest waits for that, and gets no error', async () => {
    const host = new VmHost(disk, 8 * BLOCK_BYTES);
    await host.read();
    disk.automatic = false;
    for (let i = 0; i < 12; i++) host.write(8 * i, 8, i + 1);
    host.guest.pushAll();
    const flushSent = () => disk.seen.at(-1)?.kind === DiskKind.flush;
    disk.device!.answer(4);
    await turn();
    assert.equal(flushSent(), false);
    disk.device!.answer(1);
    await turn();
    assert.equal(flushSent(), true);
    disk.device!.answer(3);
    await turn();
    assert.deepEqual([host.guest.answers.length, host.guest.waiting.count, disk.device!.held.length], [9, 4, 1]);
    assert.equal(host.log.status().state, 'full');
    // It covers what was acknowledged when it was sent: five blocks.
    disk.device!.answer(1);
    await turn();
    assert.deepEqual([host.guest.waiting.count, host.log.status().usedBytes], [0, 3 * BLOCK_BYTES]);
    await host.settle();
    assert.ok(host.guest.answers.every(({ status }) => status === DiskStatus.ok));
    await host.end();
  });

  test('where flushes fail the log keeps what it has and the guest waits at the bound; the export is opened anew, and all is there', async () => {
    const host = new VmHost(disk, 8 * BLOCK_BYTES);
    await host.read();
    disk.flushFails = true;
    for (let i = 0; i < 12; i++) host.write(8 * i, 8, i + 1);
    host.guest.pushAll();
    for (let i = 0; i < 40; i++) {
      await turn();
      host.clock.advance(100);
    }
    assert.equal(host.guest.answers.length, 9);
    assert.equal(host.guest.lent.size + host.guest.waiting.count, 4);
    const { state, reason, usedBytes } = host.log.status();
    assert.deepEqual([state, usedBytes], ['full', 8 * BLOCK_BYTES]);
    assert.match(reason ?? '', /netbus export NAME --reopen/);
    disk.flushFails = false;
    disk.instance = 'two';
    // The kernel may have dropped any page of it.
    disk.memory = Buffer.from(disk.stable);
    disk.killDaemon(() => false);
    await host.settle();
    assert.deepEqual(
      (await host.read()).slice(0, 96),
      Array.from({ length: 96 }, (_, i) => Math.floor(i / 8) + 1),
    );
    assert.equal(host.log.status().reason, undefined);
    await host.end();
  });

  test('a log that cannot be sent stays as it is, and is tried again', async () => {
    const host = new VmHost(disk, 64 * BLOCK_BYTES);
    host.write(0, 8, 5);
    host.guest.pushAll();
    await host.settle();
    disk.writesFail = true;
    disk.losePower(() => false);
    for (let i = 0; i < 20; i++) {
      await turn();
      host.clock.advance(500);
    }
    const { state } = host.virtual;
    assert.ok(state.name === 'connecting' && /could not be sent again/.test(state.cause?.message ?? ''));
    disk.writesFail = false;
    await host.settle();
    assert.equal((await host.read())[0], 5);
    await host.end();
  });

  for (const damage of ['removed', 'cut short', 'made by another attachment'] as const) {
    test(`a log that was ${damage} while the daemon was away, and a device’s host that was started anew: errors, never silence`, async () => {
      const host = new VmHost(disk, 64 * BLOCK_BYTES);
      host.write(0, 8, 5);
      host.guest.pushAll();
      await host.settle();
      disk.losePower(() => false);
      host.log.close();
      if (damage === 'removed') rmSync(host.path);
      else if (damage === 'cut short') truncateSync(host.path, 10_000);
      else {
        const { path, clock, boundBytes } = host;
        rmSync(path);
        new WriteLog({ path, boundBytes, owner: 'other', clock, onSent: () => {}, onTrouble: () => {} }, true).close();
      }
      await host.restart(() => false);
      for (let i = 0; i < 10; i++) await turn();
      assert.equal(host.virtual.state.name, 'failed');
      assert.equal(await host.ask(DiskKind.flush), DiskStatus.ioError);
      // A daemon that is started once more does not forget that.
      await host.restart(() => false);
      assert.equal(await host.ask(DiskKind.flush), DiskStatus.ioError);
      // For a new start of the VM it was one power cut.
      host.before = null;
      host.owner = 'second guest';
      await host.restart(() => false);
      assert.equal(await host.ask(DiskKind.flush), DiskStatus.ok);
      await host.end();
    });
  }

  test('a log that was removed, and a device’s host that was not started anew: whole again with the first flush', async () => {
    const host = new VmHost(disk, 64 * BLOCK_BYTES);
    host.write(0, 8, 5);
    host.guest.pushAll();
    await host.settle();
    host.log.close();
    rmSync(host.path);
    await host.restart(() => false);
    await host.settle();
    for (let i = 0; i < 5; i++) await turn();
    assert.equal(host.log.complete, true);
    disk.losePower(() => false);
    await host.settle();
    assert.equal((await host.read())[0], 5);
    await host.end();
  });

  test('without room for a file every write is durable, and a loss of power loses nothing', async () => {
    const host = new VmHost(disk, 64 * BLOCK_BYTES);
    host.log.close();
    const clock = host.clock;
    const reasons: (string | undefined)[] = [];
    host.log = new WriteLog(
      {
        path: '/nonexistent/log',
        boundBytes: 64 * BLOCK_BYTES,
        owner: 'x',
        clock,
        onSent: () => {},
        onTrouble: (reason) => reasons.push(reason),
      },
      true,
    );
    host.write(0, 8, 7);
    host.guest.pushAll();
    await host.settle();
    assert.match(reasons[0] ?? '', /every write waits for stable storage/);
    assert.equal(disk.seen.at(-1)!.flags & DiskFlag.durable, DiskFlag.durable);
    disk.losePower(() => false);
    await host.settle();
    assert.equal((await host.read())[0], 7);
    host.log = new WriteLog(
      { path: host.path, boundBytes: BLOCK_BYTES * 8, owner: 'x', clock, onSent: () => {}, onTrouble: () => {} },
      true,
    );
    await host.end();
  });
});
