/** The steps of a hot-swap at the devices' hosts, with their records in files: d1 has the old device, d2 the new one, and the VM is at m1. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { CAPACITY_BYTES, TestHost } from '../../test/support/daemon/exports.ts';
import type { CopyMark, LeasePurpose } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { DiskProfile } from '../device/profile.ts';
import type { Grant } from '../device/source.ts';
import type { FillRequest } from '../migration/swap/copy-host.ts';
import { LocalDeviceHost } from './device-host.ts';

const UNKNOWN = '00000000-0000-4000-8000-000000000000';
const to = { host: 'd2', export: 'fast' };

describe('copies', () => {
  let d1: TestHost;
  let d2: TestHost;
  /** The attachment of the old device, and what its guest sees. */
  let a1: string;
  let profile: DiskProfile;
  beforeEach(async () => {
    [d1, d2] = [await new TestHost().start('d1'), await new TestHost().start('d2')];
    d1.askOutcome = (_host, request) => d2.exports.copies.outcome('d1', request);
    const allow = ['m1', 'm2'];
    await d1.exports.add({ name: 'data', disk: '/disks/data', readOnly: false, direct: false, allow });
    for (const name of ['fast', 'other']) {
      await d2.exports.add({ name, disk: `/disks/${name}`, readOnly: false, direct: false, allow });
    }
    const created = await d1.exports.attach('m1', { export: 'data', vm: 'web', name: 'disk', fenceAfterMs: 60_000 });
    a1 = created.attachment;
    profile = created.profile;
    for (const host of [d1, d2]) host.recorded.length = 0;
  });
  afterEach(() => Promise.all([d1.stop(), d2.stop()]));

  const job = (host: TestHost, caller = 'm1') => host.exports.copies.for(caller);
  const request = (generation: number, more: Partial<FillRequest> = {}): FillRequest => ({
    ...{ export: 'fast', from: { host: 'd1', export: 'data', attachment: a1 }, generation, vm: 'web', name: 'disk' },
    ...{ profile, writeCache: false, overwrite: false, ...more },
  });
  const grant = (host: TestHost, id: string, purpose?: LeasePurpose, ends: NetbusError[] = []): Promise<Grant> =>
    host.exports.openSession('m1', id, (cause) => ends.push(cause)).session.activate(purpose);
  const told = (host: TestHost) => host.recorded.splice(0).map(({ type, message }) => `${type}: ${message}`);
  const restart = async (host: TestHost, name: string) => {
    await host.exports.close();
    await host.start(name);
  };
  const stateOf = (host: TestHost, id: string): CopyMark['state'] | undefined => host.exports.record(id)?.copy?.state;
  /** Until `filling`, `complete` or `handing-over`. */
  const reach = async (state: 'filling' | 'complete' | 'handing-over'): Promise<{ a2: string; g: number }> => {
    const { generation: g } = await job(d1).begin(a1, to);
    const { attachment: a2 } = await job(d2).fill(request(g));
    if (state !== 'filling') await job(d2).complete(a2, g);
    if (state === 'handing-over') await job(d1).handOver(a1, g);
    return { a2, g };
  };

  test('a swap, with both daemons started anew after each step', async () => {
    const ends: NetbusError[] = [];
    await grant(d1, a1, undefined, ends);
    const again = async () => {
      await restart(d1, 'd1');
      await restart(d2, 'd2');
    };
    assert.deepEqual(await job(d1).begin(a1, to), { generation: 2, fenceAfterMs: 60_000 });
    await again();
    await grant(d1, a1, undefined, ends);
    const filled = await job(d2).fill(request(2));
    assert.deepEqual({ ...filled, attachment: '' }, { attachment: '', depth: 256, isBlank: true });
    assert.deepEqual(await job(d2).fill(request(2)), filled, 'asked again');
    const a2 = filled.attachment;
    await again();
    await assert.rejects(grant(d2, a2), { code: 'in_use', message: /a swap is filling it from d1\/data/ });
    await assert.rejects(grant(d2, a2, { decides: 2 }), { code: 'ended' });
    const fills: NetbusError[] = [];
    await grant(d2, a2, { fills: 2 }, fills);
    await job(d2).complete(a2, 2);
    await job(d2).complete(a2, 2);
    assert.equal(fills.length, 1, 'the session that filled it is ended');
    await again();
    await assert.rejects(grant(d2, a2, { fills: 2 }), { code: 'ended' });
    await grant(d1, a1, undefined, ends);
    ends.length = 0;
    await job(d1).handOver(a1, 2);
    assert.match(ends[0].message, /swap of web\/disk: generation 2 is handed over/);
    await again();
    await job(d1).handOver(a1, 2);
    await assert.rejects(grant(d1, a1), { code: 'in_use', message: /handing over to d2\/fast/ });
    assert.equal((await grant(d2, a2, { decides: 2 })).epoch, 2);
    await again();
    assert.deepEqual(await job(d2).abort(a2, 2), { decided: true });
    assert.equal((await grant(d2, a2)).epoch, 3);
    assert.equal((await grant(d2, a2, { decides: 2 })).epoch, 4);
    await job(d1).supersede(a1, 2);
    await again();
    await job(d1).supersede(a1, 2);
    assert.deepEqual(await job(d1).abort(a1, 2), { decided: true });
    await assert.rejects(grant(d1, a1), { code: 'in_use', message: /stale/ });
    const { host, vm, name, generation, writeCache, swapped, copy } = d2.exports.record(a2)!;
    assert.deepEqual([host, vm, name, generation, writeCache, copy], ['m1', 'web', 'disk', 2, false, undefined]);
    assert.deepEqual(swapped, { generation: 2, from: { host: 'd1', export: 'data', attachment: a1 } });
    const of = (events: string[]) => events.filter((event) => /swap|superseded/.test(event));
    assert.deepEqual(of(told(d1)), [
      'export.swap-begun: m1:web/disk: it is being copied to d2/fast',
      'export.superseded: m1:web/disk has d2/fast in its place',
    ]);
    assert.deepEqual(of(told(d2)), [
      'export.swap-begun: m1:web/disk: it is being filled from d1/data',
      'export.swap-decided: m1:web/disk has it in place of d1/data from now on',
    ]);
  });

  test('given up before and after the hand-over: the old device goes on, and a late step has no effect', async () => {
    for (const state of ['filling', 'complete', 'handing-over'] as const) {
      const { a2, g } = await reach(state);
      const sessions: NetbusError[] = [];
      if (state === 'filling') await grant(d2, a2, { fills: g }, sessions);
      assert.deepEqual(await job(d2).abort(a2, g), { decided: false });
      assert.equal(sessions.length, state === 'filling' ? 1 : 0);
      await restart(d2, 'd2');
      await assert.rejects(grant(d2, a2, { decides: g }), { code: 'ended', message: /was given up/ });
      await assert.rejects(job(d2).complete(a2, g), { code: 'ended' });
      await assert.rejects(job(d2).fill(request(g)), { code: 'ended' });
      assert.deepEqual(await job(d1).abort(a1, g), { decided: false });
      assert.deepEqual(await job(d1).abort(a1, g), { decided: false });
      await restart(d1, 'd1');
      await assert.rejects(job(d1).handOver(a1, g), { code: 'ended' });
      await assert.rejects(job(d1).supersede(a1, g), { code: 'ended' });
      await grant(d1, a1);
    }
    assert.equal(d1.exports.record(a1)!.generation, 4);
    const marks = (await d2.exports.list('m1', { details: true })).find(({ name }) => name === 'fast')!;
    assert.deepEqual(
      [marks.inUseBy, marks.details!.users.length],
      [[], 1],
      'a try of the same swap takes the place of the one before',
    );
    assert.deepEqual(await job(d2).abort(UNKNOWN, 2), { decided: false });
    await job(d1).supersede(UNKNOWN, 2);
  });

  test('begun and given up: the guest keeps its session', async () => {
    const ended: NetbusError[] = [];
    await grant(d1, a1, undefined, ended);
    const { generation } = await job(d1).begin(a1, { host: 'd2', export: 'fast' });
    await job(d1).abort(a1, generation);
    assert.equal(stateOf(d1, a1), undefined);
    await assert.rejects(job(d1).handOver(a1, generation), { code: 'ended' });
    assert.deepEqual(ended, []);
  });

  test('a late call of an earlier try does not take the place of the present one', async () => {
    const { g } = await reach('filling');
    await job(d1).abort(a1, g);
    const { a2 } = await reach('filling');
    await assert.rejects(job(d2).fill(request(g, { overwrite: true })), {
      code: 'ended',
      message: /generation 2 of the swap is over/,
    });
    assert.equal(stateOf(d2, a2), 'filling');
  });

  test('a daemon that ended before it had removed the mark of the try before', async () => {
    const { a2, g } = await reach('filling');
    const earlier = { ...d2.exports.record(a2)!, id: UNKNOWN };
    await d2.exports.close();
    writeFileSync(
      join(d2.folder, 'attachments', `${UNKNOWN}.json`),
      JSON.stringify({ ...earlier, copy: { ...earlier.copy, state: 'aborted', generation: 1 } }),
    );
    await d2.start('d2');
    assert.equal(stateOf(d2, UNKNOWN), 'aborted');
    assert.equal((await job(d2).fill(request(g))).attachment, a2);
    await restart(d2, 'd2');
    assert.deepEqual([stateOf(d2, UNKNOWN), stateOf(d2, a2)], [undefined, 'filling']);
  });

  test('only the host that has the VM may, and what is not there says so', async () => {
    const { a2, g } = await reach('filling');
    for (const refused of [
      job(d1, 'm2').begin(a1, to),
      job(d1, 'm2').handOver(a1, g),
      job(d1, 'm2').abort(a1, g),
      job(d1, 'm2').supersede(a1, g),
      job(d1, 'm2').mark(a1),
      job(d1, 'm2').extents(a1, 0),
      job(d2, 'm2').complete(a2, g),
      job(d2, 'd1').abort(a2, g),
      job(d2, 'm3').fill(request(g)),
      d2.exports.copies.outcome('m1', { export: 'fast', attachment: a1, generation: g }),
    ]) {
      await assert.rejects(refused, { code: 'denied' });
    }
    await d1.exports.places.fence('m2', 'm1');
    await assert.rejects(job(d1).handOver(a1, g), { code: 'fenced' });
    await assert.rejects(job(d1).begin(UNKNOWN, to), { code: 'not_found' });
    await assert.rejects(job(d2).complete(UNKNOWN, g), { code: 'not_found' });
  });

  test('a swap is not begun of what is read-only, expected elsewhere, or swapped already', async () => {
    await d1.exports.add({ name: 'iso', disk: '/disks/iso', readOnly: true, direct: false, allow: ['m1'] });
    const iso = (await d1.exports.attach('m1', { export: 'iso', vm: 'web', name: 'iso' })).attachment;
    await assert.rejects(job(d1).begin(iso, to), { code: 'usage', message: /read-only/ });
    await assert.rejects(job(d1).begin(a1, { host: 'd1', export: 'data' }), { code: 'usage', message: /has already/ });
    await d1.exports.places.prepare('m2', { attachment: a1, vm: 'web', name: 'disk', from: 'm1' });
    await assert.rejects(job(d1).begin(a1, to), { code: 'in_use', message: /expected at host m2/ });
    await d1.exports.places.unprepare('m2', a1);
    await job(d1).begin(a1, to);
    await assert.rejects(job(d1).begin(a1, { host: 'd2', export: 'other' }), { code: 'in_use' });
    const { places } = d1.exports;
    const prepare = { attachment: a1, vm: 'web', name: 'disk', from: 'm1' };
    await assert.rejects(places.prepare('m2', prepare), { code: 'in_use', message: /being copied to d2\/fast, for a swap/ });
    await assert.rejects(d1.exports.grow('m1', a1), { code: 'in_use', message: /being copied/ });
  });

  test('the new device has to be like the old one, free, and blank', async () => {
    const refused = async (code: string, message: RegExp, more: Partial<FillRequest> = {}) => {
      await assert.rejects(job(d2).fill(request(2, more)), { code, message });
      assert.equal(d2.exports.record(a1), undefined);
    };
    const bigger = { ...profile, capacityBytes: profile.capacityBytes + 512 };
    await refused('usage', /it has 1048576 bytes, and the guest's disk 1049088 bytes/, { profile: bigger });
    await refused('usage', /the guest has a read-only device/, { profile: { ...profile, readOnly: true } });
    await refused('not_found', /no export none/, { export: 'none' });
    d2.disks.blank = false;
    await refused('in_use', /there is data on it; to lose it: --overwrite/);
    assert.equal((await job(d2).fill(request(2, { overwrite: true }))).isBlank, false);
    await refused('in_use', /a swap is filling it from d1\/data.*--overwrite/, {
      from: { host: 'd1', export: 'x', attachment: UNKNOWN },
    });
    await d2.exports.attach('m2', { export: 'other', vm: 'db', name: 'disk' });
    await refused('in_use', /attached to m2:db\/disk/, { export: 'other' });
    await d2.exports.add({ name: 'iso', disk: '/disks/iso', readOnly: true, direct: false, allow: ['m1'] });
    await refused('usage', /it is read-only/, { export: 'iso' });
    await d1.exports.add({ name: 'more', disk: '/disks/more', readOnly: false, direct: false, allow: [] });
    await assert.rejects(job(d1).fill(request(2, { export: 'more' })), { code: 'denied' });
    await assert.rejects(
      job(d2).fill(request(2, { export: 'fast', from: { host: 'd2', export: 'fast', attachment: UNKNOWN }, overwrite: true })),
      {
        code: 'usage',
        message: /is to be replaced/,
      },
    );
  });

  test('a stale copy is attached, or written over, by someone who says so; an export of one alone can be taken back', async () => {
    const { a2, g } = await reach('complete');
    const attach = (host: TestHost, exported: string, more: object = {}) =>
      host.exports.attach('m2', { export: exported, vm: 'db', name: 'disk', ...more });
    await assert.rejects(attach(d2, 'fast', { forceStale: true }), { code: 'in_use', message: /attached to m1:web\/disk/ });
    await job(d2).abort(a2, g);
    await job(d1).abort(a1, g);
    await assert.rejects(attach(d2, 'fast'), {
      code: 'in_use',
      message: /export fast: a swap from d1\/data to it was given up: .*\(m1:web\/disk, since 20\d\d-.*Z\); .*--force-stale$/,
    });
    await assert.rejects(job(d2).fill(request(2, { from: { host: 'd3', export: 'x', attachment: UNKNOWN } })), {
      code: 'in_use',
      message: /was given up.*; to lose it: --overwrite/,
    });
    told(d2);
    await attach(d2, 'fast', { forceStale: true });
    assert.equal(d2.exports.record(a2), undefined);
    assert.match(
      told(d2)[0],
      /^export.stale-removed: the mark of a stale copy was removed: a swap from d1\/data to it was given up/,
    );
    const next = (await job(d1).begin(a1, { host: 'd2', export: 'other' })).generation;
    const { attachment: a3 } = await job(d2).fill(request(next, { export: 'other' }));
    await job(d2).complete(a3, next);
    await job(d1).handOver(a1, next);
    await grant(d2, a3, { decides: next });
    await assert.rejects(d1.exports.remove('data'), { code: 'in_use', message: /attached to m1:web\/disk/ });
    await assert.rejects(d1.exports.detach('m1', a1), { code: 'in_use', message: /handing over/ });
    await job(d1).supersede(a1, next);
    await d1.exports.detach('m1', a1);
    assert.equal(stateOf(d1, a1), 'superseded', 'its mark stays');
    assert.deepEqual(d1.exports.places.expected('m2', { vm: 'web', from: 'm1' }), []);
    await assert.rejects(attach(d1, 'data'), { code: 'in_use', message: /replaced it by d2\/other: what is on it is stale/ });
    await restart(d1, 'd1');
    await d1.exports.remove('data');
    assert.equal(d1.exports.record(a1), undefined);
  });

  test('swapped back to a device that was replaced before: with overwrite alone', async () => {
    const { a2, g } = await reach('handing-over');
    await grant(d2, a2, { decides: g });
    await job(d1).supersede(a1, g);
    const { generation } = await job(d2).begin(a2, { host: 'd1', export: 'data' });
    assert.equal(generation, g + 1);
    const back = request(generation, { export: 'data', from: { host: 'd2', export: 'fast', attachment: a2 } });
    await assert.rejects(job(d1).fill(back), { code: 'in_use', message: /stale .*--overwrite/ });
    const { attachment } = await job(d1).fill({ ...back, overwrite: true });
    assert.equal(d1.exports.record(a1), undefined);
    assert.equal(stateOf(d1, attachment), 'filling');
  });

  test('the guest keeps its size on a larger device, until it is told', async () => {
    d2.disks.capacityBytes = 2 * CAPACITY_BYTES;
    const { a2, g } = await reach('complete');
    await assert.rejects(d2.exports.grow('m1', a2), { code: 'in_use' });
    await job(d1).handOver(a1, g);
    await grant(d2, a2, { decides: g });
    assert.equal(d2.exports.record(a2)!.profile.capacityBytes, CAPACITY_BYTES);
    assert.equal((await d2.exports.grow('m1', a2)).profile.capacityBytes, 2 * CAPACITY_BYTES);
  });

  test("the VM's host dies: what is copied is started anew elsewhere", async () => {
    const { a2, g } = await reach('complete');
    const takeover = { export: 'data', vm: 'web', name: 'disk', takeover: true };
    await d1.exports.places.fence('m2', 'm1');
    assert.equal((await d1.exports.attach('m2', takeover)).attachment, a1);
    assert.deepEqual([stateOf(d1, a1), d1.exports.record(a1)!.generation], [undefined, g]);
    await assert.rejects(job(d1).handOver(a1, g), { code: 'fenced' });
    await assert.rejects(d2.exports.attach('m2', { ...takeover, export: 'fast' }), {
      code: 'in_use',
      message: /netbus fence m1/,
    });
    await d2.exports.places.fence('m2', 'm1');
    assert.equal(stateOf(d2, a2), 'aborted');
    await assert.rejects(d2.exports.attach('m2', { ...takeover, export: 'fast' }), {
      code: 'in_use',
      message: /--force-stale/,
    });
  });

  test("the VM's host dies while it hands over: the new device's host says which of the two counts", async () => {
    const takeover = { export: 'data', vm: 'web', name: 'disk', takeover: true };
    const { a2, g } = await reach('handing-over');
    await assert.rejects(d1.exports.attach('m2', takeover), { code: 'in_use', message: /m1 uses it|fence m1/ });
    await d1.exports.places.fence('m2', 'm1');
    const ask = d1.askOutcome;
    d1.askOutcome = () => Promise.reject(new NetbusError('unreachable', 'd2 does not answer'));
    await assert.rejects(d1.exports.attach('m2', takeover), {
      code: 'unreachable',
      message: /handing over to d2\/fast, whose host has to say .*: d2 does not answer; .*--force-stale/,
    });
    assert.equal(stateOf(d1, a1), 'handing-over');
    d1.askOutcome = ask;
    assert.equal((await d1.exports.attach('m2', takeover)).attachment, a1);
    assert.equal(stateOf(d1, a1), undefined);
    assert.equal(stateOf(d2, a2), 'aborted');
    await assert.rejects(grant(d2, a2, { decides: g }), { code: 'ended' });
  });

  test("the VM's host dies when it was decided: the old device is refused, and names the new one", async () => {
    const takeover = { export: 'data', vm: 'web', name: 'disk', takeover: true };
    const { a2, g } = await reach('handing-over');
    await grant(d2, a2, { decides: g });
    for (const host of [d1, d2]) await host.exports.places.fence('m2', 'm1');
    await assert.rejects(d1.exports.attach('m2', takeover), {
      code: 'in_use',
      message: /replaced export data by d2\/fast, and what is on it is stale: attach d2\/fast instead/,
    });
    assert.equal(stateOf(d1, a1), 'superseded');
    assert.equal((await d2.exports.attach('m2', { ...takeover, export: 'fast' })).attachment, a2);
  });

  test('someone who knows takes the old device, whatever became of the new one', async () => {
    const takeover = { export: 'data', vm: 'web', name: 'disk', takeover: true, forceStale: true };
    await reach('handing-over');
    await d1.exports.places.fence('m2', 'm1');
    d1.askOutcome = () => assert.fail('nobody is asked');
    assert.equal((await d1.exports.attach('m2', takeover)).attachment, a1);
    assert.equal(stateOf(d1, a1), undefined);
  });

  test('attached anew by the same host, which has forgotten the swap', async () => {
    const attach = () => d1.exports.attach('m1', { export: 'data', vm: 'web', name: 'disk' });
    const { generation } = await job(d1).begin(a1, to);
    assert.equal((await attach()).attachment, a1);
    assert.deepEqual([stateOf(d1, a1), d1.exports.record(a1)!.generation], [undefined, generation]);
    const { a2 } = await reach('handing-over');
    await attach();
    assert.deepEqual([stateOf(d1, a1), stateOf(d2, a2)], [undefined, 'aborted']);
  });

  test("the VM's host is evicted: what says that a copy is stale stays", async () => {
    await grant(d1, a1);
    const { a2 } = await reach('handing-over');
    for (const host of [d1, d2]) {
      assert.equal((await host.exports.evict((place) => place.host === 'm1')).length, 1);
      assert.equal((await host.exports.evict((place) => place.host === 'm1')).length, 0, 'once');
    }
    assert.deepEqual([stateOf(d1, a1), stateOf(d2, a2)], ['handing-over', 'aborted']);
    const attach = { export: 'data', vm: 'web', name: 'disk' };
    await assert.rejects(d1.exports.attach('m2', attach), { code: 'in_use' });
    assert.equal((await d1.exports.attach('m2', { ...attach, takeover: true })).attachment, a1);
  });

  test('from a device of the host of the VM to another one of it, with no network in between', async () => {
    for (const name of ['slow', 'quick']) {
      await d1.exports.add({ name, disk: `/disks/${name}`, readOnly: false, direct: false, allow: ['d1'] });
    }
    const local = new LocalDeviceHost(d1.exports, 'd1', (device) => device);
    const old = await local.attach({ export: 'slow', vm: 'web', name: 'disk' });
    const { generation: g } = await local.copies.begin(old.attachment, { host: 'd1', export: 'quick' });
    const from = { host: 'd1', export: 'slow', attachment: old.attachment };
    const { attachment } = await local.copies.fill({ ...request(g), export: 'quick', from });
    const session = await local.openSession(attachment)(() => {});
    await session.activate({ fills: g });
    await local.copies.complete(attachment, g);
    await local.copies.handOver(old.attachment, g);
    await (await local.openSession(attachment)(() => {})).activate({ decides: g });
    assert.deepEqual(await local.copyOutcome({ export: 'quick', attachment: old.attachment, generation: g }), {
      decided: true,
    });
    await assert.rejects(local.copyOutcome({ export: 'slow', attachment, generation: g }), { code: 'not_found' });
  });

  test('what a device of a host without holes has is data, up to the size that the guest knows', async () => {
    assert.deepEqual(await job(d1).extents(a1, 512), { ranges: [[512, CAPACITY_BYTES - 512]] });
    assert.deepEqual(await job(d1).extents(a1, CAPACITY_BYTES), { ranges: [] });
    assert.equal(await job(d1).mark(a1), null);
    await job(d1).begin(a1, to);
    const mark = await job(d1).mark(a1);
    assert.deepEqual({ ...mark, since: '' }, { state: 'copied', generation: 2, to, since: '' });
  });
});
