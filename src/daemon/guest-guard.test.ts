import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { openNullSource } from '../backends/null/null.ts';
import type { OpenSession } from '../device/source.ts';
import { GuestGuard } from './guest-guard.ts';
import { StoredRecord } from './record.ts';
import { type VirtualDeviceRecord, virtualDeviceRecordSchema } from './records.ts';
import { RecordStore } from './store.ts';

const source = openNullSource({ capacityBytes: 1024 * 1024 });
const first: VirtualDeviceRecord = {
  version: 1,
  vm: 'web',
  name: 'data',
  host: 'm1',
  export: 'data',
  attachment: '00000000-0000-4000-8000-000000000000',
  profile: source.profile,
  depth: 16,
  guest: null,
  writeCache: null,
  createdAt: 'now',
};

describe('guest guard', () => {
  let folder: string;
  let instance: string;
  let calls: string[];
  const open: OpenSession = async () => ({
    activate: async () => {
      calls.push('activate');
      return { epoch: 1, bootId: 'boot', instance, device: source.open() };
    },
    quiesced: async (left) => void calls.push(`quiesced ${JSON.stringify(left)}`),
    close: () => void calls.push('close'),
  });
  /** A session that says beforehand of which device it is. */
  const openTold: OpenSession = async (onEnded) => ({ ...(await open(onEnded)), ids: { bootId: 'boot', instance } });

  /** As after a start of the daemon, with a VMM that is connected. */
  async function start(pid = process.pid): Promise<{ guard: GuestGuard; stored: StoredRecord<VirtualDeviceRecord> }> {
    const store = new RecordStore<VirtualDeviceRecord>(folder, virtualDeviceRecordSchema);
    const { records } = await store.load(0);
    const stored = new StoredRecord(store, 'web~data', records.get('web~data') ?? first);
    const guard = new GuestGuard(stored);
    guard.connected(pid);
    return { guard, stored };
  }

  async function activate(guard: GuestGuard): Promise<void> {
    const session = await guard.guard(open)(() => {});
    await (await session.activate()).device.close();
    await guard.accepted();
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-guard-'));
    instance = 'one';
    calls = [];
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test('what the writes of a guest go to is in the record before it has the device', async () => {
    const { guard, stored } = await start();
    const session = await guard.guard(open)(() => {});
    await (await session.activate()).device.close();
    assert.deepEqual(stored.value.guest?.device, { bootId: 'boot', instance: 'one' });
  });

  test('a VMM other than the one in the record is another guest, also for the first look of a daemon', async () => {
    await activate((await start()).guard);
    const { stored } = await start();
    assert.equal(new GuestGuard(stored).connected(process.pid), false);
    assert.equal(new GuestGuard(stored).connected(process.ppid), true);
  });

  test('where the session says that the device is another one, no lease is asked for', async () => {
    await activate((await start()).guard);
    instance = 'two';
    const { guard } = await start();
    calls = [];
    await assert.rejects(
      guard.guard(openTold)(() => {}),
      { code: 'device', message: /the guest waits until the VM is started/ },
    );
    assert.deepEqual(calls, ['close']);
    instance = 'one';
    await (await (await guard.guard(openTold)(() => {})).activate()).device.close();
  });

  test('a guest in use counts as unknown until it has left in good order', async () => {
    const { guard } = await start();
    assert.equal(guard.left, 'nothing');
    await activate(guard);
    assert.equal((await start()).guard.left, 'unknown');
    await guard.disconnected('after-used');
    assert.equal((await start()).guard.left, 'after-used');
    await guard.disconnected('nothing');
    assert.equal((await start()).guard.left, 'nothing');
  });

  test('a guest that lives on is not given another device without a word', async () => {
    await activate((await start()).guard);
    const { guard } = await start();
    await activate(guard);
    instance = 'two';
    // This daemon gave it the device before: its virtual device knows what was flushed, and decides.
    await activate(guard);
    instance = 'three';
    await assert.rejects(activate((await start()).guard), { code: 'device', message: /had not flushed may be lost/ });
  });

  test('another VMM is another guest', async () => {
    await activate((await start()).guard);
    instance = 'two';
    const { guard, stored } = await start(1);
    await activate(guard);
    assert.equal(stored.value.guest?.device?.instance, 'two');
    assert.equal(guard.connected(1), false);
    assert.equal(guard.connected(process.pid), true);
  });

  test('no session is opened before the record says so', async () => {
    const { guard } = await start();
    rmSync(folder, { recursive: true });
    let opened = false;
    const session = guard.guard((onEnded) => {
      opened = true;
      return open(onEnded);
    })(() => {});
    await assert.rejects(session, { code: 'device', message: /cannot be stored/ });
    assert.equal(opened, false);
  });

  test('whether the VMM of before is gone is known by its process', async () => {
    const { guard, stored } = await start();
    assert.equal(guard.isGone, false);
    await activate(guard);
    assert.equal((await start()).guard.isGone, false);
    await stored.change((value) => ({ ...value, guest: value.guest && { ...value.guest, process: '4194305-1' } }));
    assert.equal(new GuestGuard(stored).isGone, true);
    await stored.change((value) => ({ ...value, guest: value.guest && { ...value.guest, process: 'unknown' } }));
    assert.equal(new GuestGuard(stored).isGone, false);
  });

  test('what an earlier guest had is not what this one had', async () => {
    const { guard } = await start();
    await activate(guard);
    assert.deepEqual(guard.device, { bootId: 'boot', instance });
    // It leaves before it has got the device: what it hands over must not name what another guest wrote to.
    assert.equal(guard.connected(1), true);
    assert.equal(guard.device, null);
    await activate(guard);
    assert.deepEqual(guard.device, { bootId: 'boot', instance });
  });

  test('a new start of the VM: what an earlier guest left is void at the device’s host before it asks for the lease', async () => {
    const { guard } = await start();
    await activate(guard);
    assert.deepEqual(calls, ['activate']);
    calls = [];
    const again = await start(process.ppid);
    const session = await again.guard.guard(open)(() => {});
    await (await session.activate()).device.close();
    assert.deepEqual(calls, ['quiesced {"queues":[]}', 'activate']);
    // The daemon is killed before it has noted that the guest has its device.
    calls = [];
    await activate((await start(process.ppid)).guard);
    assert.deepEqual(calls, ['quiesced {"queues":[]}', 'activate']);
    calls = [];
    await activate((await start(process.ppid)).guard);
    assert.deepEqual(calls, ['activate']);
  });

  test('another VMM for a guest that is still expected is no new start', async () => {
    const { guard, stored } = await start();
    await stored.change((value) => ({ ...value, arriving: true }));
    await activate(guard);
    calls = [];
    await activate((await start(process.ppid)).guard);
    assert.deepEqual(calls, ['activate']);
  });
});
