/** A guest that moves: its device's host loses power before anything was flushed at the new place. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { NativeRegion } from '../../../native/region.ts';
import { TestGuest } from '../../../test/compliance/test-guest.ts';
import { ForgetfulDisk } from '../../../test/support/forgetful-disk.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import { VirtualDevice } from '../../device/virtual-device.ts';
import { ManualClock } from '../../lib/clock.ts';
import { checkKeptPage, KEPT_BLOCKS_PAGE_MAX, type KeptPage, readKeptPage } from './kept-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';
import { type DeviceIds, WriteLog } from './write-log.ts';

const SECTORS = 2048;
const CAPACITY_BYTES = SECTORS * DISK_SECTOR_BYTES;

interface Change {
  readonly kind: number;
  readonly sector: number;
  readonly sectors: number;
  readonly byte: number;
  readonly durable: boolean;
}

const change: fc.Arbitrary<Change> = fc.record({
  kind: fc.constantFrom(DiskKind.write, DiskKind.write, DiskKind.writeZeroes),
  sector: fc.oneof(fc.nat(60), fc.nat(SECTORS - 1)),
  sectors: fc.integer({ min: 1, max: 24 }),
  byte: fc.integer({ min: 1, max: 255 }),
  durable: fc.boolean(),
});

let folder: string;
let region: NativeRegion;
let runs = 0;

/** A host of the guest. `comes`: what the guest did not flush elsewhere, and the log that has it. */
class Place {
  readonly clock = new ManualClock();
  readonly log: WriteLog;
  readonly virtual: VirtualDevice;
  guest: TestGuest;
  completed = 0;

  constructor(disk: ForgetfulDisk, boundBytes: number, comes?: { ids: DeviceIds; kept: WriteLog; wasServed?: boolean }) {
    const { clock } = this;
    const path = join(folder, `log-${runs++}`);
    const onComplete = () => void this.completed++;
    const quiet = { onSent: () => {}, onTrouble: () => {}, onComplete };
    const wasServed = comes?.wasServed ?? false;
    this.log = new WriteLog({ path, boundBytes, owner: 'a guest', wasServed, clock, ...quiet }, comes === undefined);
    this.virtual = new VirtualDevice({
      profile: disk.profile,
      depth: 16,
      openSession: async () => ({
        activate: async () => {
          const { bootId, instance } = disk;
          const grant = { epoch: 1, bootId, instance, device: disk.open() };
          if (comes !== undefined && !this.log.complete) {
            this.log.comes(comes.ids, true);
            const read = async (after: number) => readKeptPage(comes.kept.blocks!, after);
            const staging = NativeRegion.allocate(KEPT_BLOCKS_PAGE_MAX * LOG_BLOCK_BYTES);
            if (this.log.lacks(grant)) return this.log.admit(grant, null, { read, staging, capacityBytes: CAPACITY_BYTES });
            staging.release();
          }
          return this.log.admit(grant, null);
        },
        quiesced: async () => {},
        close: () => {},
      }),
      clock,
      onState: () => {},
    });
    this.guest = new TestGuest(this.virtual.open(), region, 64);
  }

  async make({ kind, sector, sectors, byte, durable }: Change, expected: Uint8Array): Promise<number> {
    const extent = Math.min(sectors, SECTORS - sector) * DISK_SECTOR_BYTES;
    const position = sector * DISK_SECTOR_BYTES;
    const flags = durable ? DiskFlag.durable : 0;
    const isWrite = kind === DiskKind.write;
    const row = this.guest.add({ kind, position, flags, ...(isWrite ? { outBytes: extent } : { extent }) });
    if (isWrite) this.guest.fill(row, new Uint8Array(extent).fill(byte));
    this.guest.pushAll();
    await this.settle();
    expected.fill(isWrite ? byte : 0, position, position + extent);
    return this.guest.answers.at(-1)!.status;
  }

  async settle(): Promise<void> {
    while (this.guest.lent.size > 0 || this.guest.waiting.count > 0 || this.virtual.state.name === 'connecting') {
      await turn();
      this.clock.advance(500);
    }
  }

  async end(): Promise<void> {
    assert.deepEqual(this.guest.breaches, []);
    await this.guest.close();
    await this.virtual.close();
    this.log.close();
  }
}

describe('the log that a guest left', () => {
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-kept-'));
    region = NativeRegion.allocate(4 * 1024 * 1024);
  });
  after(() => {
    region.release();
    rmSync(folder, { recursive: true });
  });

  test('is sent before what was written since, also over what was durable', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 30 }),
        fc.array(change, { maxLength: 15 }),
        fc.nat(),
        async (first, second, survivors) => {
          const disk = new ForgetfulDisk(CAPACITY_BYTES);
          const expected = new Uint8Array(CAPACITY_BYTES);
          const source = new Place(disk, 4 * 1024 * 1024);
          for (const one of first) assert.equal(await source.make(one, expected), DiskStatus.ok);
          const { bootId, instance } = disk;
          // Its background flush must not come to anything before the power goes.
          disk.flushFails = true;
          const target = new Place(disk, 4 * 1024 * 1024, { ids: { bootId, instance }, kept: source.log });
          for (const one of second) assert.equal(await target.make(one, expected), DiskStatus.ok);
          assert.equal(target.completed, 0);
          disk.flushFails = false;
          disk.losePower((sector) => ((survivors >> (sector % 30)) & 1) === 1);
          await target.make({ kind: DiskKind.write, sector: 0, sectors: 1, byte: 7, durable: false }, expected);
          assert.equal(Buffer.compare(expected, disk.memory), 0);
          assert.equal(target.virtual.state.name, 'active');
          assert.equal(target.completed, 1);
          await source.end();
          await target.end();
        },
      ),
      { numRuns: 20 },
    );
  });

  test('is not needed where nothing was forgotten, and a flush makes it good', async () => {
    const disk = new ForgetfulDisk(CAPACITY_BYTES);
    const expected = new Uint8Array(CAPACITY_BYTES);
    const source = new Place(disk, 1024 * 1024);
    await source.make({ kind: DiskKind.write, sector: 3, sectors: 9, byte: 5, durable: false }, expected);
    const { bootId, instance } = disk;
    const target = new Place(disk, 1024 * 1024, { ids: { bootId, instance }, kept: source.log });
    await target.make({ kind: DiskKind.write, sector: 5, sectors: 1, byte: 6, durable: true }, expected);
    while (target.completed === 0) await turn();
    disk.losePower(() => false);
    await target.make({ kind: DiskKind.write, sector: 100, sectors: 1, byte: 7, durable: false }, expected);
    assert.equal(Buffer.compare(expected, disk.memory), 0);
    await source.end();
    await target.end();
  });

  test('does not make up for one that was lost here, with what the guest had written here', async () => {
    const disk = new ForgetfulDisk(CAPACITY_BYTES);
    const expected = new Uint8Array(CAPACITY_BYTES);
    const source = new Place(disk, 1024 * 1024);
    await source.make({ kind: DiskKind.write, sector: 3, sectors: 9, byte: 5, durable: false }, expected);
    const { bootId, instance } = disk;
    disk.losePower(() => false);
    const target = new Place(disk, 1024 * 1024, { ids: { bootId, instance }, kept: source.log, wasServed: true });
    const status = await target.make({ kind: DiskKind.write, sector: 0, sectors: 1, byte: 7, durable: false }, expected);
    assert.equal(status, DiskStatus.ioError);
    await source.end();
    await target.end();
  });

  test('of any size is sent where the log is small, or where there is none', async () => {
    for (const boundBytes of [4 * LOG_BLOCK_BYTES, 0]) {
      const disk = new ForgetfulDisk(CAPACITY_BYTES);
      const expected = new Uint8Array(CAPACITY_BYTES);
      const source = new Place(disk, CAPACITY_BYTES * 2);
      // Two pages.
      for (let sector = 0; sector < 2040; sector += 24)
        await source.make({ kind: DiskKind.write, sector, sectors: 23, byte: 1 + (sector % 255), durable: false }, expected);
      const { bootId, instance } = disk;
      disk.flushFails = true;
      const target = new Place(disk, boundBytes, { ids: { bootId, instance }, kept: source.log });
      await turn();
      disk.flushFails = false;
      disk.losePower(() => false);
      await target.make({ kind: DiskKind.write, sector: 0, sectors: 1, byte: 7, durable: false }, expected);
      assert.equal(Buffer.compare(expected, disk.memory), 0);
      assert.equal(target.virtual.state.name, 'active');
      assert.equal(target.completed, 1);
      await source.end();
      await target.end();
    }
  });
});

test('a page that another host makes up is refused', () => {
  const page = (blocks: KeptPage['blocks'], bytes: number, more = false): KeptPage => {
    return { blocks, data: new Uint8Array(bytes), more };
  };
  const block = { block: 5, sectors: 1, zero: false };
  checkKeptPage(page([block], LOG_BLOCK_BYTES), 4, CAPACITY_BYTES);
  for (const wrong of [
    page([{ ...block, block: 4 }], LOG_BLOCK_BYTES),
    page([{ ...block, block: CAPACITY_BYTES / LOG_BLOCK_BYTES }], LOG_BLOCK_BYTES),
    page([{ ...block, sectors: 0 }], LOG_BLOCK_BYTES),
    page([{ ...block, sectors: 256 }], LOG_BLOCK_BYTES),
    page([block, block], 2 * LOG_BLOCK_BYTES),
    page([block], 0),
    page([{ ...block, zero: true }], LOG_BLOCK_BYTES),
    page([], 0, true),
  ])
    assert.throws(() => checkKeptPage(wrong, 4, CAPACITY_BYTES), NetbusError);
});
