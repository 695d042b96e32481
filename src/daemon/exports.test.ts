import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CAPACITY_BYTES, TestHost } from '../../test/support/daemon/exports.ts';
import { NetbusError } from '../device/errors.ts';

const ended = () => {};

describe('exports', () => {
  let host: TestHost;
  beforeEach(async () => {
    host = await new TestHost().start();
  });
  afterEach(() => host.stop());

  test('an export is added once, listed, and removed', async () => {
    await host.add('data');
    await assert.rejects(host.add('data'), { code: 'in_use', message: /export data exists already/ });
    const [entry] = await host.exports.entries();
    assert.equal(entry.state, 'ready');
    assert.equal(entry.capacityBytes, CAPACITY_BYTES);
    assert.deepEqual(entry.allow, ['m1', 'm2']);
    await host.exports.remove('data');
    await assert.rejects(host.exports.remove('data'), { code: 'not_found' });
    assert.deepEqual(await host.exports.entries(), []);
    assert.equal(host.disks.opened, 0);
  });

  test('a disk that cannot be opened leaves nothing behind', async () => {
    host.disks.failure = new NetbusError('not_found', 'no such image');
    await assert.rejects(host.add('data'), { code: 'not_found' });
    host.disks.failure = undefined;
    host.disks.lock();
    await assert.rejects(host.add('data'), { code: 'in_use' });
    assert.deepEqual(readdirSync(join(host.folder, 'exports')), []);
    host.disks.unlock();
    await host.add('data');
  });

  test('attaching is for those who are allowed, and exclusive', async () => {
    await host.add('data');
    const request = { export: 'data', vm: 'web', name: 'disk' };
    await assert.rejects(host.exports.attach('m3', request), { code: 'denied', message: /does not allow host m3/ });
    await assert.rejects(host.exports.attach('m2', { ...request, export: 'none' }), { code: 'not_found' });
    const first = await host.exports.attach('m2', request);
    assert.equal(first.profile.serial, 'disk');
    assert.deepEqual(await host.exports.attach('m2', request), first, 'the same request gives the same record');
    await assert.rejects(host.exports.attach('m1', request), { code: 'in_use', message: /m2:web\/disk/ });
    await assert.rejects(host.exports.attach('m2', { ...request, vm: 'db' }), { code: 'in_use' });
    await assert.rejects(host.exports.remove('data'), { code: 'in_use', message: /m2:web\/disk/ });
    assert.deepEqual(
      (await host.exports.list('m1')).map(({ inUseBy }) => inUseBy),
      [['m2:web/disk']],
    );
    assert.deepEqual(await host.exports.list('m3'), []);
    await host.exports.detach('m2', first.attachment);
    await host.exports.detach('m2', first.attachment);
    await host.exports.attach('m1', request);
  });

  test('of two who attach at once, one gets it', async () => {
    await host.add('data');
    const results = await Promise.allSettled(
      ['a', 'b', 'c'].map((vm) => host.exports.attach('m2', { export: 'data', vm, name: 'disk' })),
    );
    assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected']);
  });

  test('a read-only export is shared', async () => {
    await host.add('iso', { readOnly: true });
    const a = await host.exports.attach('m2', { export: 'iso', vm: 'a', name: 'iso' });
    const b = await host.exports.attach('m1', { export: 'iso', vm: 'b', name: 'iso' });
    const grants = await Promise.all([
      host.exports.openSession('m2', a.attachment, ended).session.activate(),
      host.exports.openSession('m1', b.attachment, ended).session.activate(),
    ]);
    assert.deepEqual(
      grants.map(({ epoch }) => epoch),
      [1, 1],
    );
  });

  test('only the host of the record opens sessions of an attachment', async () => {
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    assert.throws(() => host.exports.openSession('m1', attachment, ended), { code: 'denied' });
    assert.throws(() => host.exports.openSession('m2', '00000000-0000-4000-8000-000000000000', ended), { code: 'not_found' });
    await assert.rejects(host.exports.grow('m1', attachment), { code: 'denied' });
    await assert.rejects(host.exports.setWriteCache('m1', attachment, true), { code: 'denied' });
    await assert.rejects(host.exports.detach('m1', attachment), { code: 'denied' });
  });

  test('detaching ends the session and refuses the next grant of it', async () => {
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    const causes: string[] = [];
    const { session } = host.exports.openSession('m2', attachment, (cause) => causes.push(cause.message));
    await session.activate();
    await host.exports.detach('m2', attachment);
    assert.deepEqual(causes, ['web/disk was detached']);
    await assert.rejects(session.activate(), { code: 'ended' });
  });

  test('everything survives a restart, epochs too', async () => {
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    await host.exports.openSession('m2', attachment, ended).session.activate();
    await host.exports.setWriteCache('m2', attachment, false);
    await host.exports.close();
    assert.equal(host.disks.opened, 0);
    await host.start();
    const again = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    assert.equal(again.attachment, attachment);
    const { epoch } = await host.exports.openSession('m2', attachment, ended).session.activate();
    assert.equal(epoch, 2);
    assert.equal((host.exports.describeAttachment('m2', attachment) as { writeCache: boolean }).writeCache, false);
  });

  test('a lock is waited for after a restart, and said so', async () => {
    await host.add('data');
    await host.exports.close();
    host.disks.lock();
    await host.start();
    const [entry] = await host.exports.entries();
    assert.equal(entry.state, 'waiting');
    assert.match(entry.reason!, /in use/);
    host.disks.unlock();
    await settled();
    assert.equal((await host.exports.entries())[0].state, 'ready');
  });

  test('an image that is missing after a restart is tried again', async () => {
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    await host.exports.close();
    host.disks.failure = new NetbusError('not_found', '/disks/data does not exist');
    await host.start();
    const [entry] = await host.exports.entries();
    assert.deepEqual([entry.state, entry.reason], ['failed', '/disks/data does not exist']);
    assert.throws(() => host.exports.openSession('m2', attachment, ended), { code: 'device', message: /does not exist/ });
    host.disks.failure = undefined;
    host.clock.advance(10_000);
    await settled();
    assert.equal((await host.exports.entries())[0].state, 'ready');
    host.exports.openSession('m2', attachment, ended);
  });

  test('after a failed flush the next opening is another instance', async () => {
    await host.add('data');
    assert.equal(host.disks.asked?.reopened, 0);
    host.disks.asked.flushFailed();
    await host.exports.close();
    await host.start();
    assert.equal(host.disks.asked.reopened, 1);
  });

  test('what happens to an export is in the events, once', async () => {
    const told = () => host.recorded.splice(0).map(({ type, subject, message }) => `${type} ${subject}: ${message}`);
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    const { session } = host.exports.openSession('m2', attachment, ended);
    await session.activate();
    assert.deepEqual(told(), [
      'export.ready data: /disks/data is open',
      'export.added data: /disks/data is exported, read and write, for m1, m2',
      'export.attached data: m2:web/disk has it attached',
      'export.granted data: m2:web/disk has the device (epoch 1)',
    ]);
    host.disks.asked!.failed({ operation: 'write', error: 'ENOSPC', message: 'write failed with ENOSPC', failures: 1 });
    host.disks.asked!.failed({ operation: 'read', error: 'EIO', message: 'read failed with EIO', failures: 2 });
    host.disks.asked!.flushFailed();
    host.exports.sessionLost(attachment, new NetbusError('unreachable', 'the connection was cut'));
    host.exports.sessionLost('unknown', new NetbusError('unreachable', 'the connection was cut'));
    assert.deepEqual(told(), [
      'export.disk-full data: /disks/data: write failed with ENOSPC',
      'export.device-error data: /disks/data: read failed with EIO',
      'export.flush-failed data: /disks/data: a flush failed, so acknowledged writes may be lost; every flush fails until it is opened anew (netbus export data --reopen)',
      'export.session-lost data: the session of m2:web/disk ended while it had the device: the connection was cut',
    ]);
    await session.quiesced({ queues: [] });
    host.disks.capacityBytes = 2 * CAPACITY_BYTES;
    await host.exports.grow('m2', attachment);
    await host.exports.detach('m2', attachment);
    await host.exports.close();
    host.disks.failure = new NetbusError('not_found', '/disks/data does not exist');
    await host.start();
    host.clock.advance(60_000);
    await settled();
    host.disks.failure = undefined;
    host.disks.lock();
    host.clock.advance(10_000);
    await settled();
    host.disks.unlock();
    await settled();
    await host.exports.remove('data');
    assert.deepEqual(told(), [
      'export.returned data: m2:web/disk gave the device back',
      'export.grown data: m2:web/disk sees 2 MiB of it now',
      'export.detached data: m2:web/disk has it no more',
      'export.failed data: it cannot be opened, and is tried again: /disks/data does not exist',
      'export.waiting data: it waits: /disks/data is in use',
      'export.ready data: /disks/data is open',
      'export.removed data: /disks/data is not exported any more',
    ]);
  });

  test('details are for those who ask, and where an image lies for its own host alone', async () => {
    await host.add('data');
    assert.equal((await host.exports.list('m2'))[0].details, undefined);
    const [far] = await host.exports.list('m2', { details: true });
    const [own] = await host.exports.list('m1', { details: true });
    assert.deepEqual([far.details!.path, own.details!.path], [undefined, '/disks/data']);
    assert.deepEqual([far.details!.allow, far.details!.allowCount, far.details!.users], [['m1', 'm2'], 2, []]);
  });

  test('a fence ends the sessions of a host, forgets what it had, and frees the lease for others', async () => {
    await host.add('data');
    await host.add('other');
    const gone = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    const stays = await host.exports.attach('m1', { export: 'other', vm: 'web', name: 'disk' });
    const ends: NetbusError[] = [];
    const { session } = host.exports.openSession('m2', gone.attachment, (cause) => ends.push(cause));
    await session.activate();
    const fenced = await host.exports.evict((record) => record.host === 'm2');
    assert.deepEqual(
      fenced.map(({ id }) => id),
      [gone.attachment],
    );
    assert.match(ends[0].message, /host m2 was evicted/);
    await assert.rejects(session.activate(), { code: 'fenced' });
    assert.throws(() => host.exports.openSession('m2', gone.attachment, ended), { code: 'not_found' });
    const next = await host.exports.attach('m1', { export: 'data', vm: 'db', name: 'disk' });
    const second = host.exports.openSession('m1', next.attachment, ended).session;
    assert.equal((await second.activate()).epoch, 1);
    host.exports.openSession('m1', stays.attachment, ended);
    await host.exports.close();
    await host.start();
    assert.throws(() => host.exports.openSession('m2', gone.attachment, ended), { code: 'not_found' });
    host.exports.openSession('m1', next.attachment, ended);
    assert.deepEqual(await host.exports.evict((record) => record.host === 'm2'), []);
  });

  test('a host that is no member gets nothing, whatever the export allows, and its membership is in the record', async () => {
    host.membershipOf = (name) => `membership of ${name}`;
    await host.start();
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    const seen: (string | undefined)[] = [];
    await host.exports.evict(({ membership }) => {
      seen.push(membership);
      return false;
    });
    assert.deepEqual(seen, ['membership of m2']);
    host.isMember = (name) => name !== 'm2';
    const denied = { code: 'denied', message: /host m2 is not a member/ };
    await assert.rejects(host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' }), denied);
    assert.throws(() => host.exports.openSession('m2', attachment, ended), denied);
  });

  test('growing takes the size upwards only', async () => {
    await host.add('data');
    const { attachment } = await host.exports.attach('m2', { export: 'data', vm: 'web', name: 'disk' });
    assert.equal((await host.exports.grow('m2', attachment)).grown, false);
    host.disks.capacityBytes = 2 * CAPACITY_BYTES;
    const { profile, grown } = await host.exports.grow('m2', attachment);
    assert.deepEqual([grown, profile.capacityBytes, profile.serial], [true, 2 * CAPACITY_BYTES, 'disk']);
    host.disks.capacityBytes = CAPACITY_BYTES;
    assert.equal((await host.exports.grow('m2', attachment)).profile.capacityBytes, 2 * CAPACITY_BYTES);
    // Whoever waits for the VM has promised it the size of now.
    await host.exports.places.prepare('m1', { attachment, vm: 'web', name: 'disk', from: 'm2' });
    await assert.rejects(host.exports.grow('m2', attachment), { code: 'in_use', message: /expected at host m1/ });
  });
});

/** Lets the promises that are ready run. */
async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}
