import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from '../../native/index.ts';
import { NativeRegion } from '../../native/region.ts';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { openNullSource } from '../backends/null/null.ts';
import { DiskKind, DiskStatus } from '../device/disk.ts';
import { DISK_TRANSFER_BYTES_MAX, type DiskProfile } from '../device/profile.ts';
import { bounce } from './bounce.ts';

const MIB = 1024 * 1024;
const profile = openNullSource({ capacityBytes: 64 * MIB }).profile as DiskProfile;

test('where the staging is used up the guest waits, and goes on when some is free', async () => {
  const region = NativeRegion.allocate(16 * MIB);
  const inner = new HeldDevice(profile, 16);
  inner.hold();
  const guest = new TestGuest(bounce(DISK_TRANSFER_BYTES_MAX)(inner), region, 16);
  const rows = Array.from({ length: 6 }, () => guest.add({ kind: DiskKind.read, inBytes: MIB + 512 }));
  assert.equal(guest.pushAll(), 3);
  inner.answer([rows[0]]);
  assert.deepEqual(inner.taken, rows.slice(1, 4));
  assert.ok(guest.readyCalls > 0);
  inner.release();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
  await guest.close();
  region.release();
});

test('the largest transfer fits, and a larger one is refused and not waited for', async () => {
  const region = NativeRegion.allocate(16 * MIB);
  const inner = new HeldDevice(profile, 16);
  const guest = new TestGuest(bounce(DISK_TRANSFER_BYTES_MAX)(inner), region, 16);
  const largest = guest.add({ kind: DiskKind.read, inBytes: DISK_TRANSFER_BYTES_MAX });
  const larger = guest.add({ kind: DiskKind.read, inBytes: DISK_TRANSFER_BYTES_MAX + 512 });
  guest.pushAll();
  await guest.answered();
  const statuses = new Map(guest.answers.map(({ row, status }) => [row, status]));
  assert.deepEqual([statuses.get(largest), statuses.get(larger)], [DiskStatus.ok, DiskStatus.ioError]);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
  region.release();
  assert.throws(() => bounce(DISK_TRANSFER_BYTES_MAX - 1), RangeError);
});

test('the staging goes when the inner device is closed, not before', async () => {
  const before = native.regionCount();
  const region = NativeRegion.allocate(MIB);
  const inner = new HeldDevice(profile, 16, { lateMemory: true });
  inner.hold();
  const guest = new TestGuest(bounce()(inner), region, 16);
  guest.add({ kind: DiskKind.read, inBytes: 4096 });
  guest.pushAll();
  const closing = guest.close();
  await guest.silence();
  assert.equal(native.regionCount(), before + 2);
  inner.release();
  await closing;
  region.release();
  assert.equal(native.regionCount(), before);
});
