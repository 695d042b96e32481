import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRecord } from '../../test/support/lease-record.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { openNullSource } from '../backends/null/null.ts';
import { handedOver } from './copy-succession.ts';
import { DiskKind } from './disk.ts';
import { NetbusError } from './errors.ts';
import type { HandOver } from './hand-over.ts';
import { Lease } from './lease.ts';
import type { Grant, Session } from './source.ts';
import { prepared, type Succession, settled, takenOver } from './succession.ts';

const MIB = 1024 * 1024;
const nothing = () => {};

/** A lease over devices that hold what they take and whose close waits for it, and a diary of what happened. */
function setUp(options: { state?: Partial<Succession>; store?: (state: Succession) => Promise<void> } = {}) {
  const diary: string[] = [];
  const record = new MemoryRecord(options.state ?? { lease: { epoch: 7, holder: null } }, async (state) => {
    await options.store?.(state);
    diary.push(`store ${state.lease.epoch} ${state.lease.holder}`);
  });
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
    record,
  });
  return { lease, record, diary, devices };
}

test('a grant is a new epoch, stored before the device is opened', async () => {
  const { lease, diary } = setUp();
  const grant = await lease.session('m2', nothing).activate();
  assert.deepEqual([grant.epoch, grant.bootId, grant.instance], [8, 'boot', 'null']);
  assert.deepEqual(diary, ['store 8 m2', 'open']);
  assert.equal(lease.active, true);
});

test('what cannot be stored is not granted', async () => {
  const { lease, record, diary } = setUp({ store: () => Promise.reject(new Error('disk full')) });
  await assert.rejects(lease.session('m2', nothing).activate(), /disk full/);
  assert.deepEqual([diary, lease.active, record.value.lease], [[], false, { epoch: 7, holder: null }]);
});

test('another host is refused until the holder has given the lease back', async () => {
  const { lease, record, diary } = setUp({ state: { lease: { epoch: 7, holder: null }, standby: { host: 'm3' } } });
  const first = lease.session('m2', nothing);
  await first.activate();
  const second = lease.session('m3', nothing);
  await assert.rejects(second.activate(), { code: 'in_use', message: /m2 holds the lease/ });
  await first.quiesced({ queues: [] });
  assert.equal((await second.activate()).epoch, 9);
  assert.deepEqual(record.value, { host: 'm3', lease: { epoch: 9, holder: 'm3' }, previous: { host: 'm2' } });
  assert.deepEqual(diary, ['store 8 m2', 'open', 'store 8 null', 'store 9 m3', 'open']);
});

test('the holder that is stored is the holder, also after a restart', async () => {
  const { lease } = setUp({ state: { lease: { epoch: 4, holder: 'm2' } } });
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
  const { lease, record } = setUp();
  const old = lease.session('m2', nothing);
  await old.activate();
  await lease.session('m2', nothing).activate();
  await assert.rejects(old.quiesced({ queues: [] }), { code: 'ended', message: /a newer session of host m2/ });
  await assert.rejects(old.activate(), { code: 'ended' });
  old.close();
  assert.deepEqual([record.value.lease, lease.active], [{ epoch: 9, holder: 'm2' }, true]);
});

test('a session that closes keeps the lease for its host and closes the device', async () => {
  const { lease, record, devices } = setUp();
  const session = lease.session('m2', nothing);
  await session.activate();
  session.close();
  await turn();
  assert.deepEqual([devices[0].closed, lease.active, record.value.lease.holder], [true, false, 'm2']);
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

const left: HandOver = { queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [] }] };

/** A read of the device is under way, and stays so until it is released. */
async function busy({ lease, devices }: ReturnType<typeof setUp>, onEnded: (cause: NetbusError) => void = nothing) {
  const session = lease.session('m2', onEnded);
  const { device, epoch } = await session.activate();
  const guest = new TestGuest(device, new MemoryRegion(MIB), 16);
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  return { session, guest, epoch, release: () => devices.at(-1)!.release() };
}

test('a later session that was granted nothing says what an earlier one left: its I/O ends first, then it is stored with the lease', async () => {
  const made = setUp();
  const { record, lease, diary } = made;
  const ended: NetbusError[] = [];
  const earlier = await busy(made, (cause) => ended.push(cause));
  const later = lease.session('m2', nothing);
  const quiescing = later.quiesced(left);
  await turn();
  assert.deepEqual([record.value.lease.holder, ended.length], ['m2', 0]);
  earlier.release();
  await quiescing;
  assert.deepEqual(record.value, { host: 'm2', lease: { epoch: 8, holder: null }, handOver: left, leftBy: 'm2' });
  assert.deepEqual(diary.slice(2), ['store 8 null'], 'one write');
  assert.deepEqual([ended.map(({ code }) => code), lease.active], [['ended'], false]);
  assert.equal(earlier.guest.pushAll(), 0);
});

test('what another host brings of it ends its I/O first, and is stored with the lease', async () => {
  const made = setUp({ state: { lease: { epoch: 7, holder: null }, standby: { host: 'm3' } } });
  const { record, lease, diary } = made;
  const ended: NetbusError[] = [];
  const earlier = await busy(made, (cause) => ended.push(cause));
  const presenting = lease.present({ from: 'm2', to: 'm3', epoch: 8, left });
  await turn();
  assert.deepEqual([record.value.lease.holder, ended.length], ['m2', 0]);
  earlier.release();
  await presenting;
  const { host, handOver, lease: stored } = record.value;
  assert.deepEqual([host, handOver, stored], ['m2', left, { epoch: 8, holder: null }]);
  assert.deepEqual(diary.slice(2), ['store 8 null'], 'one write');
  assert.deepEqual([ended.map(({ code }) => code), lease.active], [['ended'], false]);
  assert.equal(earlier.guest.pushAll(), 0);
});

test('a session hears nothing of what it gives back itself', async () => {
  const { lease, record } = setUp();
  const ended: NetbusError[] = [];
  const session = lease.session('m2', (cause) => ended.push(cause));
  await session.activate();
  await session.quiesced(left);
  await session.quiesced(left);
  assert.deepEqual(record.value, { host: 'm2', lease: { epoch: 8, holder: null }, handOver: left, leftBy: 'm2' });
  const { handOver } = await session.activate();
  assert.deepEqual([handOver, 'handOver' in record.value, ended], [undefined, false, []]);
});

test('what an older session says late, whether it was granted or not, releases nothing of a newer one', async () => {
  const { lease, record } = setUp();
  const granted = lease.session('m2', nothing);
  await granted.activate();
  const standby = lease.session('m2', nothing);
  const newest = lease.session('m2', nothing);
  await newest.activate();
  for (const late of [granted, standby]) await assert.rejects(late.quiesced(left), { code: 'ended' });
  assert.deepEqual([record.value.lease, lease.active], [{ epoch: 9, holder: 'm2' }, true]);
  await newest.quiesced(left);
  await assert.rejects(standby.quiesced({ queues: [] }), { code: 'ended' });
  assert.deepEqual(record.value.handOver, left);
});

test('one that cannot be stored leaves the lease where it is, with nothing under way', async () => {
  let fails = false;
  const { lease, record } = setUp({ store: () => (fails ? Promise.reject(new Error('disk full')) : Promise.resolve()) });
  const session = lease.session('m2', nothing);
  await session.activate();
  fails = true;
  await assert.rejects(session.quiesced(left), /disk full/);
  assert.deepEqual([record.value.lease, lease.active], [{ epoch: 8, holder: 'm2' }, false]);
});

test('what would not fit a message between hosts is refused before anything ends', async () => {
  const { lease } = setUp();
  const session = lease.session('m2', nothing);
  await session.activate();
  const heads = Array.from({ length: 1024 }, (_, i) => i);
  const queues = Array.from({ length: 16 }, () => ({ fetched: 0, usedIndex: 0, heads, lastBatch: heads }));
  await assert.rejects(session.quiesced({ queues }), { code: 'limit', message: /of at most 61440/ });
  assert.equal(lease.active, true);
});

test('a guest that moves: the hand-over comes with the grant, until it is settled; the way back is open as long as it took nothing', async () => {
  const made = setUp();
  const { lease, record } = made;
  const source = lease.session('m2', nothing);
  await source.activate();
  await record.change((state) => prepared(state, { host: 'm3' }));
  await source.quiesced(left);
  const destination = lease.session('m3', nothing);
  const grant = await destination.activate();
  assert.deepEqual([grant.epoch, grant.handOver], [9, left]);
  await assert.rejects(source.activate(), { code: 'in_use', message: /the VM runs at host m3/ });
  await source.quiesced(left);
  assert.equal(record.value.lease.holder, 'm3');
  await destination.quiesced('unchanged');
  const back = await source.activate();
  assert.deepEqual([back.epoch, back.handOver], [10, undefined]);
  await source.quiesced(left);
  assert.deepEqual((await destination.activate()).handOver, left);
  destination.close();
  const again = await lease.session('m3', nothing).activate();
  assert.deepEqual([again.epoch, again.handOver], [12, left]);
  await record.change((state) => settled(state, 'm3', again.epoch));
  assert.equal((await lease.session('m3', nothing).activate()).handOver, undefined);
  await assert.rejects(source.activate(), { code: 'in_use' });
});

test('a fence ends the session of the host, waits for its I/O, and lets nothing of it through again', async () => {
  const made = setUp();
  const { lease, record } = made;
  const ended: NetbusError[] = [];
  const { guest, session, release } = await busy(made, (cause) => ended.push(cause));
  const late = lease.session('m2', nothing);
  const fencing = lease.fence('m2', new NetbusError('fenced', 'host m2 was fenced'));
  await turn();
  assert.deepEqual([record.value.lease.holder, ended.length], ['m2', 0]);
  const asking = assert.rejects(late.activate(), { code: 'fenced' });
  release();
  await fencing;
  await asking;
  assert.deepEqual(
    ended.map(({ message }) => message),
    ['host m2 was fenced'],
  );
  for (const one of [session, late]) {
    await assert.rejects(one.activate(), { code: 'fenced' });
    await assert.rejects(one.quiesced(left), { code: 'fenced' });
  }
  await record.change((state) => takenOver(state, { host: 'm3' }));
  const { epoch } = await lease.session('m3', nothing).activate();
  assert.equal(epoch, 9);
  guest.add({ kind: DiskKind.flush });
  assert.equal(guest.pushAll(), 0);
});

test('what stops a device for a swap waits for its I/O before it is stored, and ends nothing where it is refused or done', async () => {
  const copy = { state: 'copied', generation: 2, to: { host: 'm3', export: 'fast' } } as const;
  const made = setUp({ state: { lease: { epoch: 7, holder: null }, copy } });
  const { lease, record, diary } = made;
  const ends: string[] = [];
  const { session, release } = await busy(made, ({ message }) => ends.push(message));
  const cause = new NetbusError('ended', 'swapped');
  await assert.rejects(
    lease.stopFor((state) => handedOver(state, 'm2', 3), cause),
    { code: 'ended' },
  );
  assert.deepEqual([ends, lease.active], [[], true]);
  const stopping = lease.stopFor((state) => handedOver(state, 'm2', 2), cause);
  await turn();
  assert.equal(record.value.copy, copy, 'its I/O is under way');
  release();
  await stopping;
  assert.deepEqual([ends, lease.active, record.value.copy?.state], [['swapped'], false, 'handing-over']);
  const stored = diary.length;
  await lease.stopFor((state) => handedOver(state, 'm2', 2), cause);
  assert.equal(diary.length, stored);
  await assert.rejects(session.activate(), { code: 'in_use' });
  await assert.rejects(session.activate({ decides: 2 }), { code: 'ended' });
});

test('a fence of another host ends nothing', async () => {
  const { lease, record } = setUp({ state: { standby: { host: 'm3' } } });
  await lease.session('m2', nothing).activate();
  await lease.fence('m3', new NetbusError('fenced', 'host m3 was fenced'));
  assert.deepEqual(record.value, { host: 'm2', lease: { epoch: 1, holder: 'm2' }, fenced: ['m3'] });
  assert.equal(lease.active, true);
});

test('sessions of several hosts in any order: at most one device lets requests pass, and each grant has its own epoch', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record({ what: fc.nat(5), host: fc.nat(2) }), { maxLength: 40 }), async (steps) => {
      const { lease, record, devices } = setUp();
      const sessions: Session[] = [];
      const grants: Grant[] = [];
      for (const { what, host: index } of steps) {
        const host = ['m2', 'm3', 'm4'][index];
        const session = sessions[(index * 7 + what) % Math.max(1, sessions.length)];
        const work = (): Promise<unknown> | undefined => {
          switch (what) {
            case 0:
              sessions.push(lease.session(host, nothing));
              return;
            case 1:
              return session?.activate().then((grant) => grants.push(grant));
            case 2:
              return session?.quiesced(index === 0 ? 'unchanged' : left);
            case 3:
              return record.change((state) => prepared(state, { host }));
            case 4:
              return index === 0 ? lease.fence(host, new NetbusError('fenced', 'fenced')) : undefined;
            default:
              return record.change((state) => takenOver(state, { host }));
          }
        };
        await work()?.catch((thrown: unknown) => assert.ok(thrown instanceof NetbusError, String(thrown)));
        const open = devices.filter(({ closed }) => !closed);
        assert.ok(open.length <= 1, 'one writer');
        if (open.length === 1) assert.equal(record.value.lease.epoch, grants.at(-1)!.epoch);
      }
      const epochs = grants.map(({ epoch }) => epoch);
      assert.deepEqual(
        epochs,
        [...new Set(epochs)].sort((a, b) => a - b),
      );
    }),
    { numRuns: 300 },
  );
});
