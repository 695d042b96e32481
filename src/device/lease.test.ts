import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { openNullSource } from '../backends/null/null.ts';
import { DiskKind } from './disk.ts';
import { NetbusError } from './errors.ts';
import { Lease, type LeaseState } from './lease.ts';

const MIB = 1024 * 1024;
const nothing = () => {};

/** A lease over devices that hold what they take and whose close waits for it, and a diary of what happened. */
function setUp(options: { state?: LeaseState; store?: (state: LeaseState) => Promise<void> } = {}) {
  const diary: string[] = [];
  const devices: HeldDevice[] = [];
  const source = openNullSource({ capacityBytes: MIB });
  const lease = new Lease({
    source: {
      ...source,
      open: () => {
        diary.push('open');
        const device = new HeldDevice(source.profile as never, 16, { lateMemory: true });
        device.hold();
        devices.push(device);
        return device;
      },
    },
    bootId: 'boot',
    state: options.state ?? { epoch: 7, holder: null },
    store: async (state) => {
      await options.store?.(state);
      diary.push(`store ${state.epoch} ${state.holder}`);
    },
  });
  return { lease, diary, devices };
}

test('a grant is a new epoch, stored before the device is opened', async () => {
  const { lease, diary } = setUp();
  const grant = await lease.session('m2', nothing).activate();
  assert.deepEqual([grant.epoch, grant.bootId, grant.instance], [8, 'boot', 'null']);
  assert.deepEqual(diary, ['store 8 m2', 'open']);
  assert.equal(lease.active, true);
});

test('what cannot be stored is not granted', async () => {
  const { lease, diary } = setUp({ store: () => Promise.reject(new Error('disk full')) });
  await assert.rejects(lease.session('m2', nothing).activate(), /disk full/);
  assert.deepEqual([diary, lease.active, lease.state], [[], false, { epoch: 7, holder: null }]);
});

test('another host is refused until the holder has given the lease back', async () => {
  const { lease, diary } = setUp();
  const first = lease.session('m2', nothing);
  await first.activate();
  const second = lease.session('m3', nothing);
  await assert.rejects(second.activate(), { code: 'in_use', message: /m2 holds the lease/ });
  await first.quiesced({ queues: [] });
  assert.equal((await second.activate()).epoch, 9);
  assert.deepEqual(diary, ['store 8 m2', 'open', 'store 8 null', 'store 9 m3', 'open']);
});

test('the holder that is stored is the holder, also after a restart', async () => {
  const { lease } = setUp({ state: { epoch: 4, holder: 'm2' } });
  await assert.rejects(lease.session('m3', nothing).activate(), { code: 'in_use' });
  assert.equal((await lease.session('m2', nothing).activate()).epoch, 5);
});

test('a newer session of the same host ends the old one, once its I/O is over', async () => {
  const { lease, devices, diary } = setUp();
  const ended: NetbusError[] = [];
  const old = await lease.session('m2', (cause) => ended.push(cause)).activate();
  const guest = new TestGuest(old.device, new MemoryRegion(MIB), 16);
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  const activating = lease.session('m2', nothing).activate();
  await turn();
  assert.deepEqual([devices.length, ended.length], [1, 0]);
  devices[0].release();
  const grant = await activating;
  assert.equal(grant.epoch, 9);
  assert.deepEqual(
    ended.map(({ code }) => code),
    ['ended'],
  );
  assert.deepEqual(diary, ['store 8 m2', 'open', 'store 9 m2', 'open']);
  guest.add({ kind: DiskKind.flush });
  assert.equal(guest.pushAll(), 0);
});

test('a displaced session gives nothing back', async () => {
  const { lease } = setUp();
  const old = lease.session('m2', nothing);
  await old.activate();
  await lease.session('m2', nothing).activate();
  await old.quiesced({ queues: [] });
  old.close();
  assert.deepEqual([lease.state, lease.active], [{ epoch: 9, holder: 'm2' }, true]);
});

test('a session that closes keeps the lease for its host and closes the device', async () => {
  const { lease, devices } = setUp();
  const session = lease.session('m2', nothing);
  await session.activate();
  session.close();
  await turn();
  assert.deepEqual([devices[0].closed, lease.active, lease.state.holder], [true, false, 'm2']);
});

test('a session that is closed while it asks gets nothing', async () => {
  let stored = nothing;
  const { lease, devices } = setUp({
    store: () =>
      new Promise((resolve) => {
        stored = resolve;
      }),
  });
  const session = lease.session('m2', nothing);
  const activating = session.activate();
  await turn();
  session.close();
  stored();
  await assert.rejects(activating, { code: 'ended' });
  await turn();
  assert.deepEqual([devices[0].closed, lease.active], [true, false]);
});

test('revoke ends the session and tells it', async () => {
  const { lease, devices } = setUp();
  const ended: NetbusError[] = [];
  await lease.session('m2', (cause) => ended.push(cause)).activate();
  await lease.revoke(new NetbusError('ended', 'the export went'));
  assert.deepEqual([ended[0].message, devices[0].closed, lease.active], ['the export went', true, false]);
});
