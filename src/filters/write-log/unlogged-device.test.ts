/** A guest of the device's own host, before it leaves, and after it came. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NativeRegion } from '../../../native/region.ts';
import { TestGuest } from '../../../test/compliance/test-guest.ts';
import { ForgetfulDisk } from '../../../test/support/forgetful-disk.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { Grant } from '../../device/source.ts';
import { ManualClock } from '../../lib/clock.ts';
import type { KeptLog } from './kept-blocks.ts';
import { UnloggedWrites } from './unlogged-writes.ts';

const never = new AbortController().signal;

describe('the writes of a guest of the device’s own host', () => {
  let region: NativeRegion;
  let disk: ForgetfulDisk;
  let clock: ManualClock;
  let writes: UnloggedWrites;
  let guest: TestGuest;

  before(() => {
    region = NativeRegion.allocate(1024 * 1024);
  });
  after(() => region.release());
  beforeEach(() => {
    disk = new ForgetfulDisk(64 * 1024);
    clock = new ManualClock();
    writes = new UnloggedWrites(clock);
    guest = use();
  });

  function use(kept?: KeptLog): TestGuest {
    const { bootId, instance } = disk;
    const grant: Grant = writes.admit({ epoch: 1, bootId, instance, device: disk.open() }, kept);
    return new TestGuest(grant.device, region, 32);
  }

  const kinds = () => disk.seen.map(({ kind }) => kind);

  async function write(flags = 0): Promise<void> {
    guest.add({ kind: DiskKind.write, position: 0, flags, outBytes: 512 });
    guest.pushAll();
    await guest.answered();
  }

  /** The answer to what is on its way comes after `tookMs`. */
  async function answer(tookMs: number): Promise<void> {
    clock.advance(tookMs);
    disk.device!.answer(disk.device!.held.length);
    await turn();
  }

  test('are not flushed as long as it stays', async () => {
    await write();
    clock.advance(60_000);
    await guest.quiesce(never);
    assert.deepEqual(kinds(), [DiskKind.write]);
    assert.equal(writes.areFlushed, false);
    assert.deepEqual(guest.breaches, []);
  });

  test('are flushed again and again from when it may leave, one flush at a time, and not where there is nothing to flush', async () => {
    await write();
    disk.automatic = false;
    writes.mayLeave = true;
    clock.advance(0);
    assert.deepEqual(kinds(), [DiskKind.write, DiskKind.flush], 'what was before is flushed at once');
    clock.advance(60_000);
    assert.equal(disk.seen.length, 2);
    guest.add({ kind: DiskKind.write, position: 0, outBytes: 512 });
    guest.pushAll();
    await answer(0);
    assert.equal(writes.areFlushed, false, 'a write that was answered behind the flush that was on its way');
    clock.advance(4 * 60_000 - 1);
    assert.equal(disk.seen.length, 3, 'a slow device is left alone for longer');
    clock.advance(1);
    assert.equal(kinds()[3], DiskKind.flush);
    await answer(1);
    assert.equal(writes.areFlushed, true);
    clock.advance(60_000);
    disk.automatic = true;
    await write(DiskFlag.durable);
    clock.advance(60_000);
    assert.equal(kinds().filter((kind) => kind === DiskKind.flush).length, 2);
    await write();
    clock.advance(100);
    assert.equal(kinds().filter((kind) => kind === DiskKind.flush).length, 3);
    writes.mayLeave = false;
    await turn();
    await write();
    clock.advance(60_000);
    assert.equal(kinds().filter((kind) => kind === DiskKind.flush).length, 3);
    assert.deepEqual(guest.breaches, []);
  });

  test('have a last flush at the stop where flushes are quick', async () => {
    for (const [tookMs, flushes] of [
      [1, 2],
      [100, 1],
    ]) {
      disk = new ForgetfulDisk(64 * 1024);
      writes = new UnloggedWrites(clock);
      guest = use();
      disk.automatic = false;
      writes.mayLeave = true;
      clock.advance(0);
      await answer(tookMs);
      disk.automatic = true;
      await write();
      assert.equal((await guest.quiesce(never)).outcome, 'clean');
      assert.equal(kinds().filter((kind) => kind === DiskKind.flush).length, flushes);
      assert.equal(writes.areFlushed, flushes === 2);
      clock.advance(60_000);
      await turn();
      assert.equal(disk.seen.length, flushes + 1, 'nothing after the stop');
      assert.deepEqual(guest.breaches, []);
    }
  });

  test('a flush of its own that is not answered at the bound is nobody’s unfinished request', async () => {
    disk.automatic = false;
    writes.mayLeave = true;
    clock.advance(0);
    const bound = new AbortController();
    const quiesced = guest.quiesce(bound.signal);
    await turn();
    bound.abort();
    assert.deepEqual(await quiesced, { outcome: 'clean' });
    assert.equal(writes.areFlushed, false);
  });

  test('are left alone after a flush that failed: every one will', async () => {
    disk.flushFails = true;
    await write();
    writes.mayLeave = true;
    clock.advance(0);
    await turn();
    clock.advance(60_000);
    await guest.quiesce(never);
    assert.deepEqual(kinds(), [DiskKind.write, DiskKind.flush]);
    assert.equal(writes.areFlushed, false);
    assert.deepEqual(
      guest.answers.map(({ status }) => status),
      [DiskStatus.ok],
    );
  });

  test('come after what its last host kept, once that is flushed and noted', async () => {
    let noted: () => void = () => {};
    const isNoted = new Promise<void>((resolve) => (noted = resolve));
    const staging = NativeRegion.allocate(1024 * 1024);
    const page = { blocks: [{ block: 1, sectors: 3, zero: false }], data: new Uint8Array(4096).fill(7), more: false };
    guest = use({ read: async () => page, staging, capacityBytes: 64 * 1024, madeGood: () => isNoted });
    guest.add({ kind: DiskKind.write, position: 4096, outBytes: 512 });
    guest.pushAll();
    while (disk.seen.length < 2) await turn();
    for (let i = 0; i < 5; i++) await turn();
    assert.deepEqual(kinds(), [DiskKind.write, DiskKind.flush]);
    assert.deepEqual([...disk.stable.subarray(4096, 4096 + 1025)], [...new Array(1024).fill(7), 0]);
    noted();
    await guest.answered();
    assert.equal(disk.seen.length, 3);
    assert.deepEqual(guest.breaches, []);
    await guest.close();
  });
});
