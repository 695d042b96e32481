import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { TestHost } from '../../test/support/daemon/exports.ts';
import { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import type { Session } from '../device/source.ts';
import type { StatedHandOver } from '../directory/signed-hand-over.ts';

const left: HandOver = { queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [] }] };
const UNKNOWN = '00000000-0000-4000-8000-000000000000';

describe('places', () => {
  let host: TestHost;
  beforeEach(async () => {
    host = await new TestHost().start();
    for (const name of ['data', 'other']) await host.add(name);
    await host.exports.add({
      name: 'all',
      disk: '/disks/all',
      readOnly: false,
      direct: false,
      allow: ['m1', 'm2', 'm3', 'm4'],
    });
    host.recorded.length = 0;
  });
  afterEach(() => host.stop());

  const attach = async (from: string, exported = 'all', more: object = {}): Promise<string> =>
    (await host.exports.attach(from, { export: exported, vm: 'web', name: 'disk', ...more })).attachment;
  const session = (from: string, id: string, ends: NetbusError[] = []): Session =>
    host.exports.openSession(from, id, (cause) => ends.push(cause)).session;
  const request = (attachment: string, from: string) => ({ attachment, vm: 'web', name: 'disk', from });
  const told = () => host.recorded.splice(0).map(({ type, message }) => `${type}: ${message}`);

  test('a host asks what another one has for a VM, and whether it may use that, too', async () => {
    const data = await attach('m2', 'data');
    const all = (await host.exports.attach('m2', { export: 'all', vm: 'web', name: 'root' })).attachment;
    await host.exports.attach('m2', { export: 'other', vm: 'db', name: 'disk' });
    const { places } = host.exports;
    assert.deepEqual(places.expected('m3', { vm: 'web', from: 'm2' }), [
      { attachment: data, export: 'data', name: 'disk', readOnly: false, allowed: false },
      { attachment: all, export: 'all', name: 'root', readOnly: false, allowed: true },
    ]);
    assert.deepEqual(places.expected('m3', { vm: 'web', from: 'm1' }), []);
  });

  test('a VM is prepared for, durably, and everything that its device is made of is answered', async () => {
    const id = await attach('m2', 'all', { holdMs: 5_000 });
    await host.exports.setWriteCache('m2', id, false);
    const { places } = host.exports;
    const answer = await places.prepare('m3', { ...request(id, 'm2'), check: true });
    assert.deepEqual(
      { ...answer, profile: answer.profile.capacityBytes },
      { attachment: id, profile: 1024 * 1024, depth: 256, export: 'all', name: 'disk', writeCache: false, holdMs: 5_000 },
    );
    assert.equal(host.exports.record(id)!.standby, undefined, 'a check stores nothing');
    assert.throws(() => session('m3', id), { code: 'denied' });
    host.membershipOf = (name) => `of ${name}`;
    await places.prepare('m3', request(id, 'm2'));
    await places.prepare('m3', request(id, 'm2'));
    assert.deepEqual(host.exports.record(id)!.standby, { host: 'm3', membership: 'of m3' });
    await host.exports.close();
    await host.start();
    assert.equal(host.exports.record(id)!.standby?.host, 'm3');
    session('m3', id).close();
    await host.exports.places.prepare('m4', request(id, 'm2'));
    assert.throws(() => session('m3', id), { code: 'denied' });
    await host.exports.places.unprepare('m3', id);
    assert.equal(host.exports.record(id)!.standby?.host, 'm4');
    await host.exports.places.unprepare('m4', id);
    await host.exports.places.unprepare('m4', UNKNOWN);
    assert.equal('standby' in host.exports.record(id)!, false);
    assert.deepEqual(
      told().filter((line) => line.includes('prepared')),
      ['export.prepared: m2:web/disk is expected at host m3', 'export.prepared: m2:web/disk is expected at host m4'],
    );
  });

  test('what cannot come here is refused before anything is stored', async () => {
    const { places } = host.exports;
    const id = await attach('m2');
    const data = await attach('m2', 'data');
    const refused = async (code: string, message: RegExp, asking: string, more: object) => {
      const before = host.exports.record(id);
      await assert.rejects(places.prepare(asking, { ...request(id, 'm2'), ...more }), { code, message });
      assert.equal(host.exports.record(id), before);
    };
    await refused('denied', /export data of host m1 does not allow host m3: export it with --allow m3/, 'm3', {
      attachment: data,
    });
    await refused('not_found', /host m1 has no attachment/, 'm3', { attachment: UNKNOWN });
    await refused('not_found', /is web\/disk, not db\/disk/, 'm3', { vm: 'db' });
    await refused('not_found', /VM web has disk at host m2, not at m4/, 'm3', { from: 'm4' });
    await refused('in_use', /at host m2 already/, 'm2', {});
    host.isMember = (name) => name !== 'm3';
    await refused('denied', /host m3 is not a member/, 'm3', {});
    host.isMember = () => true;
    await host.exports.close();
    host.disks.failure = new NetbusError('not_found', '/disks/all does not exist');
    await host.start();
    await assert.rejects(host.exports.places.prepare('m3', request(id, 'm2')), { code: 'device', message: /does not exist/ });
  });

  test('a VM moves and everybody can ask where it is, until nothing of it is needed where it was', async () => {
    const id = await attach('m2');
    const at = (asking: string) => host.exports.places.whereabouts(asking, id);
    const source = session('m2', id);
    await source.activate();
    await host.exports.places.prepare('m3', request(id, 'm2'));
    assert.deepEqual(at('m3'), { host: 'm2', epoch: 1, holder: 'm2', standby: 'm3', settled: false });
    await source.quiesced(left);
    const destination = session('m3', id);
    const { handOver, epoch } = await destination.activate();
    assert.deepEqual([handOver, epoch], [left, 2]);
    assert.deepEqual(at('m2'), { host: 'm3', epoch: 2, holder: 'm3', previous: 'm2', settled: false });
    assert.equal(at('m3').settled, false);
    await assert.rejects(source.activate(), { code: 'in_use', message: /the VM runs at host m3/ });
    await assert.rejects(host.exports.grow('m2', id), { code: 'denied', message: /at host m3, not at m2/ });
    await assert.rejects(host.exports.places.settled('m3', id, 1), { code: 'ended' });
    await host.exports.places.settled('m3', id, 2);
    assert.deepEqual(at('m2'), { host: 'm3', epoch: 2, holder: 'm3', settled: true });
    assert.deepEqual(at('m3'), at('m2'));
    assert.throws(() => host.exports.places.whereabouts('m2', UNKNOWN), { code: 'not_found' });
    assert.throws(() => session('m2', id), { code: 'denied' });
    assert.deepEqual(told().slice(1), [
      'export.granted: m2:web/disk has the device (epoch 1)',
      'export.prepared: m2:web/disk is expected at host m3',
      'export.handed-over: m2:web/disk gave the device back, with 2 requests unfinished, for host m3',
      'export.moved: m3:web/disk has the device (epoch 2): the VM came from host m2',
      'export.settled: m3:web/disk has left nothing behind at host m2',
    ]);
  });

  test('a write log is needed where it lies, also when the guest has gone on again', async () => {
    const id = await attach('m2');
    await session('m2', id).quiesced(left);
    await host.exports.places.prepare('m3', request(id, 'm2'));
    const destination = session('m3', id);
    await destination.activate();
    const unflushed = { bootId: 'b', instance: 'i', log: { host: 'm2', bytes: 1 } };
    await destination.quiesced({ ...left, unflushed });
    assert.equal(host.exports.places.whereabouts('m2', id).settled, false);
    assert.equal(host.exports.places.whereabouts('m4', id).settled, true);
  });

  test('a destination that took nothing: the lease is where it was, and both may go on', async () => {
    const id = await attach('m2');
    const source = session('m2', id);
    await source.activate();
    await host.exports.places.prepare('m3', request(id, 'm2'));
    await source.quiesced(left);
    const destination = session('m3', id);
    await destination.activate();
    told();
    await destination.quiesced('unchanged');
    assert.deepEqual(told(), ['export.returned: m3:web/disk gave the device back untouched: the VM is at host m2 again']);
    const { host: at, standby, handOver } = host.exports.record(id)!;
    assert.deepEqual([at, standby, handOver], ['m2', { host: 'm3' }, left]);
    await source.activate();
    await assert.rejects(destination.activate(), { code: 'in_use', message: /host m2 holds the lease/ });
  });

  test('a detach where it was, or was expected, gives that up alone', async () => {
    const id = await attach('m2');
    const source = session('m2', id);
    await source.activate();
    await host.exports.places.prepare('m3', request(id, 'm2'));
    await host.exports.detach('m3', id);
    assert.equal(host.exports.record(id)!.standby, undefined);
    await host.exports.places.prepare('m3', request(id, 'm2'));
    await source.quiesced(left);
    await session('m3', id).activate();
    await host.exports.detach('m2', id);
    assert.deepEqual([host.exports.record(id)!.host, host.exports.record(id)!.previous], ['m3', undefined]);
    await assert.rejects(host.exports.detach('m2', id), { code: 'denied' });
    await host.exports.detach('m3', id);
    assert.equal(host.exports.record(id), undefined);
  });

  test('a fence ends what a host has here; it is refused from then on, over restarts, and another host takes over', async () => {
    const id = await attach('m2', 'all', { holdMs: 1_000 });
    const elsewhere = await attach('m4', 'data').catch(() => attach('m2', 'data'));
    const ends: NetbusError[] = [];
    const old = session('m2', id, ends);
    await old.activate();
    await host.exports.setWriteCache('m2', id, false);
    const takeover = { export: 'all', vm: 'web', name: 'disk', takeover: true };
    await assert.rejects(host.exports.attach('m3', { ...takeover, takeover: false }), {
      code: 'in_use',
      message: /--takeover$/,
    });
    await assert.rejects(host.exports.attach('m3', takeover), { code: 'in_use', message: /netbus fence m2$/ });
    told();
    const fenced = await host.exports.places.fence('m3', 'm2');
    assert.deepEqual(
      fenced.map((record) => record.id),
      [id],
      'only where the one that asks may use the export',
    );
    assert.deepEqual(
      ends.map(({ code, message }) => `${code}: ${message}`),
      ['fenced: host m2 was fenced, on the word of host m3'],
    );
    assert.deepEqual(told(), ['export.fenced: m2:web/disk: host m2 was fenced, on the word of host m3']);
    await assert.rejects(old.activate(), { code: 'fenced' });
    await assert.rejects(old.quiesced(left), { code: 'fenced' });
    await host.exports.places.fence('m3', 'm2');
    assert.deepEqual(told(), []);
    await host.exports.close();
    await host.start();
    assert.throws(() => session('m2', id), { code: 'fenced', message: /taken from host m2/ });
    assert.throws(() => host.exports.places.whereabouts('m2', id), { code: 'fenced' });
    await assert.rejects(host.exports.setWriteCache('m2', id, true), { code: 'fenced' });
    session('m2', elsewhere).close();

    told();
    const again = await host.exports.attach('m3', { ...takeover, fenceAfterMs: 60_000 });
    assert.equal(again.attachment, id);
    const { host: at, fenced: gone, writeCache, holdMs, fenceAfterMs } = host.exports.record(id)!;
    assert.deepEqual([at, gone, writeCache, holdMs, fenceAfterMs], ['m3', ['m2'], null, undefined, 60_000]);
    assert.deepEqual(told(), ['export.taken-over: host m3 took web/disk over from host m2: the VM starts anew there']);
    assert.equal((await session('m3', id).activate()).epoch, 2);
    assert.throws(() => session('m2', id), { code: 'fenced' });
    await host.exports.detach('m2', id);
    assert.equal(host.exports.record(id)!.host, 'm3');
    assert.equal((await host.exports.attach('m3', takeover)).attachment, id);
  });

  test('this host may fence every other one, and nobody may fence this one', async () => {
    const id = await attach('m2', 'data');
    for (const caller of ['m1', 'm3']) {
      await assert.rejects(host.exports.places.fence(caller, 'm1'), { code: 'usage', message: /host m1 is alive/ });
    }
    assert.deepEqual(await host.exports.places.fence('m3', 'm2'), []);
    assert.equal((await host.exports.places.fence('m1', 'm2'))[0].id, id);
    assert.deepEqual(await host.exports.places.fence('m1', 'm4'), []);
  });

  test('a fence while the export is not ready holds when it is', async () => {
    const id = await attach('m2');
    await session('m2', id).activate();
    await host.exports.close();
    host.disks.failure = new NetbusError('not_found', '/disks/all does not exist');
    await host.start();
    await host.exports.places.fence('m3', 'm2');
    host.disks.failure = undefined;
    host.clock.advance(10_000);
    await settled();
    assert.throws(() => session('m2', id), { code: 'fenced' });
    assert.equal(host.exports.record(id)!.lease.holder, null);
  });

  test('a host that was fenced attaches anew, and has it again', async () => {
    const id = await attach('m2');
    await session('m2', id).activate();
    await host.exports.places.fence('m3', 'm2');
    assert.equal(await attach('m2'), id);
    assert.equal((await session('m2', id).activate()).epoch, 2);
  });

  test('attached anew where what a guest had brought along was never made good: that is void', async () => {
    const id = await attach('m2');
    const { exports } = host;
    await session('m2', id).activate();
    await exports.places.prepare('m3', { attachment: id, vm: 'web', name: 'disk', from: 'm2' });
    await session('m2', id).quiesced(left);
    await session('m3', id).activate();
    await exports.places.unprepare('m2', id);
    assert.deepEqual(exports.record(id)!.handOver, left);
    assert.equal(await attach('m3'), id);
    assert.equal((await session('m3', id).activate()).handOver, undefined);
    assert.deepEqual([exports.record(id)!.handOver, exports.record(id)!.leftBy], [undefined, undefined]);
  });

  test('a takeover without a fence: only where nobody holds the lease, and the host that had it is not there', async () => {
    const id = await attach('m2');
    const old = session('m2', id);
    const takeover = { takeover: true };
    await assert.rejects(attach('m3', 'all', takeover), {
      code: 'in_use',
      message: /host m2 uses it: stop the VM there.*netbus fence m2/,
    });
    await old.activate();
    await old.quiesced(left);
    old.close();
    old.close();
    host.clock.advance(1);
    assert.equal(await attach('m3', 'all', takeover), id);
    assert.throws(() => session('m2', id), { code: 'fenced' });
    const grant = await session('m3', id).activate();
    assert.deepEqual([grant.epoch, grant.handOver], [2, undefined], 'what was left is void');
  });

  test('--fence-after: a holder without a session for so long counts as fenced once somebody wants to take over', async () => {
    const id = await attach('m2', 'all', { fenceAfterMs: 60_000 });
    const held = session('m2', id);
    await held.activate();
    host.clock.advance(600_000);
    await assert.rejects(attach('m3', 'all', { takeover: true }), { code: 'in_use', message: /it counts as fenced in 60 s/ });
    held.close();
    host.clock.advance(59_999);
    await assert.rejects(attach('m3', 'all', { takeover: true }), { code: 'in_use', message: /netbus fence m2; .* in 1 s/ });
    // The time before this daemon's start is not known to have been one without a session.
    await host.exports.close();
    await host.start();
    await assert.rejects(attach('m3', 'all', { takeover: true }), { code: 'in_use', message: /in 60 s/ });
    host.clock.advance(59_999);
    const back = session('m2', id);
    host.clock.advance(59_999);
    back.close();
    host.clock.advance(60_000);
    told();
    assert.equal(await attach('m3', 'all', { takeover: true }), id);
    assert.deepEqual(told(), [
      'export.fenced: m2:web/disk: host m2 had no session for 60 s, so it counts as fenced',
      'export.taken-over: host m3 took web/disk over from host m2: the VM starts anew there',
    ]);
    assert.throws(() => session('m2', id), { code: 'fenced' });
    host.clock.advance(600_000);
    await session('m3', id).activate();
    await assert.rejects(attach('m2', 'all', { takeover: true }), { code: 'in_use', message: /netbus fence m3$/ });
  });

  describe('a hand-over that comes signed', () => {
    let id: string;
    let ends: NetbusError[];
    const signed = { text: 't', signature: 's', certificates: 'c' };
    const says = (more: Partial<StatedHandOver> = {}) => {
      host.verifyHandOver = (given) => {
        assert.equal(given, signed);
        return { host: 'm2', attachment: id, epoch: 1, left, ...more };
      };
    };
    const present = (by: string) => host.exports.places.present(by, { attachment: id, signed });
    beforeEach(async () => {
      id = await attach('m2');
      ends = [];
      await session('m2', id, ends).activate();
      await host.exports.places.prepare('m3', request(id, 'm2'));
      says();
      told();
    });

    test("is as that host's own, once", async () => {
      const late = session('m2', id);
      await present('m3');
      assert.deepEqual(host.exports.record(id)!.handOver, left);
      assert.deepEqual(
        ends.map(({ message }) => message),
        ['host m3 brought what host m2 handed over'],
      );
      // What was said before, and comes now.
      await assert.rejects(late.activate(), { code: 'ended' });
      await assert.rejects(present('m3'), { code: 'ended', message: /m2 does not hold the lease under epoch 1/ });
      const { epoch, handOver } = await session('m3', id).activate();
      assert.deepEqual([epoch, handOver], [2, left]);
      // Its own word is too late, and does no harm.
      await session('m2', id).quiesced(left);
      await assert.rejects(present('m3'), { code: 'denied' });
      assert.equal(host.exports.record(id)!.lease.holder, 'm3');
      assert.deepEqual(told(), [
        'export.handed-over: m2:web/disk gave the device back, with 2 requests unfinished, for host m3',
        'export.moved: m3:web/disk has the device (epoch 2): the VM came from host m2',
      ]);
    });

    test('is void once that host was granted anew', async () => {
      await session('m2', id).activate();
      await assert.rejects(present('m3'), { code: 'ended' });
      await session('m2', id).quiesced({ queues: [] });
      await session('m2', id).activate();
      await assert.rejects(present('m3'), { code: 'ended' });
      assert.deepEqual(host.exports.record(id)!.lease, { epoch: 3, holder: 'm2' });
    });

    test('is refused where it is of a host that has not the lease, of another epoch or attachment, or brought by another host', async () => {
      const before = host.exports.record(id);
      for (const epoch of [2, 7]) {
        says({ epoch });
        await assert.rejects(present('m3'), { code: 'ended' });
      }
      for (const other of ['m3', 'm4']) {
        says({ host: other });
        await assert.rejects(present('m3'), { code: 'ended' });
      }
      says({ attachment: UNKNOWN });
      await assert.rejects(present('m3'), { code: 'denied', message: /another attachment/ });
      says();
      for (const other of ['m2', 'm4']) await assert.rejects(present(other), { code: 'denied' });
      host.verifyHandOver = () => {
        throw new NetbusError('denied', 'tampered with');
      };
      await assert.rejects(present('m3'), { code: 'denied', message: 'tampered with' });
      assert.deepEqual([host.exports.record(id), ends], [before, []]);
      says();
      await host.exports.places.fence('m1', 'm2');
      await assert.rejects(present('m3'), { code: 'fenced' });
    });
  });

  test('an evicted host that was only expected, or was there before, is dropped; one that has the VM takes all with it', async () => {
    const id = await attach('m2');
    const source = session('m2', id);
    await source.activate();
    await host.exports.places.prepare('m3', request(id, 'm2'));
    assert.deepEqual(await host.exports.evict(({ host: name }) => name === 'm3'), []);
    assert.equal(host.exports.record(id)!.standby, undefined);
    await host.exports.places.prepare('m3', request(id, 'm2'));
    await source.quiesced(left);
    await session('m3', id).activate();
    assert.deepEqual(await host.exports.evict(({ host: name }) => name === 'm2'), []);
    assert.deepEqual([host.exports.record(id)!.previous, host.exports.record(id)!.handOver], [undefined, left]);
    await host.exports.places.prepare('m4', request(id, 'm3'));
    assert.equal((await host.exports.evict(({ host: name }) => name === 'm3')).length, 1);
    assert.equal(host.exports.record(id), undefined);
  });

  test('a host whose right to the export is gone gets no session, wherever the VM is', async () => {
    const id = await attach('m2');
    await host.exports.places.prepare('m3', request(id, 'm2'));
    host.isMember = (name) => name !== 'm3';
    assert.throws(() => session('m3', id), { code: 'denied' });
  });
});

/** Lets the promises that are ready run. */
async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}
