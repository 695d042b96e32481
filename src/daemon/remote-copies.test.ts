/** A hot-swap between hosts far from each other: the calls, the sessions with a purpose, and hosts that are older, or outside. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BusPair, busPair } from '../../test/support/bus-pair.ts';
import { TestHost } from '../../test/support/daemon/exports.ts';
import type { EndpointOptions } from '../bus/endpoint.ts';
import type { LeasePurpose } from '../device/copy-mark.ts';
import type { NetbusError } from '../device/errors.ts';
import type { Grant } from '../device/source.ts';
import { createCallHandlers } from './calls.ts';
import { RemoteDeviceHost } from './remote-host.ts';

const closing: (() => Promise<unknown>)[] = [];
after(async () => {
  for (const close of closing.reverse()) await close();
});

interface Far {
  readonly host: TestHost;
  readonly pair: BusPair;
  /** Of m1, as m2 deals with it. */
  readonly far: RemoteDeviceHost;
  grant(attachment: string, purpose?: LeasePurpose, ends?: NetbusError[]): Promise<Grant>;
}

/** m1 has the devices `old` and `new`; the VM is at m2. */
async function makeFar(m1: Partial<EndpointOptions> = {}): Promise<Far> {
  const host = await new TestHost().start('m1');
  closing.push(() => host.stop());
  for (const name of ['old', 'new']) await host.add(name);
  const pair = await busPair({
    m1,
    handlers: createCallHandlers(host.exports),
    sessionHost: { open: async (peer, { attachment }, onEnded) => host.exports.openSession(peer, attachment, onEnded) },
  });
  closing.push(() => pair.close());
  const far = new RemoteDeviceHost(pair.m2, 'm1', () => pair.target);
  return {
    host,
    pair,
    far,
    grant: async (attachment, purpose, ends = []) => {
      const session = await far.openSession(attachment, new AbortController().signal)((cause) => ends.push(cause));
      return session.activate(purpose);
    },
  };
}

test('a whole swap, far away', async () => {
  const { far, grant } = await makeFar();
  const { attachment: a1, profile } = await far.attach({ export: 'old', vm: 'web', name: 'disk', fenceAfterMs: 60_000 });
  const ends: NetbusError[] = [];
  await grant(a1, undefined, ends);
  const { copies } = far;
  assert.deepEqual(await copies.begin(a1, { host: 'm1', export: 'new' }), { generation: 2, fenceAfterMs: 60_000 });
  const from = { host: 'm1', export: 'old', attachment: a1 };
  const request = { export: 'new', from, generation: 2, vm: 'web', name: 'disk', profile, writeCache: null, overwrite: false };
  const { attachment: a2, depth, isBlank } = await copies.fill({ ...request, holdMs: 1_000 });
  assert.deepEqual([depth, isBlank], [256, true]);
  await assert.rejects(grant(a2), { code: 'in_use', message: /a swap is filling it/ });
  await assert.rejects(grant(a2, { decides: 2 }), { code: 'ended' });
  await grant(a2, { fills: 2 });
  assert.deepEqual(await copies.extents(a1, 0), { ranges: [[0, profile.capacityBytes]] });
  await copies.complete(a2, 2);
  assert.equal((await copies.mark(a2))?.state, 'complete');
  ends.length = 0;
  await copies.handOver(a1, 2);
  assert.equal((await copies.mark(a1))?.state, 'handing-over');
  const grantOfNew = await grant(a2, { decides: 2 });
  assert.equal(grantOfNew.epoch, 2);
  assert.equal(await copies.mark(a2), null);
  assert.deepEqual(await copies.abort(a2, 2), { decided: true });
  await copies.supersede(a1, 2);
  assert.equal((await copies.mark(a1))?.state, 'superseded');
  const [old] = (await far.list({ details: true })).filter(({ name }) => name === 'old');
  assert.deepEqual([old.inUseBy, old.details!.users[0].state], [[], 'stale']);
  assert.match(old.details!.users[0].mark!, /a swap has replaced it by m1\/new: what is on it is stale/);
  await assert.rejects(far.attach({ export: 'old', vm: 'db', name: 'disk' }), { code: 'in_use', message: /--force-stale/ });
  await far.attach({ export: 'old', vm: 'db', name: 'disk', forceStale: true });
});

test('a host of an older release is refused before anything is touched', async () => {
  const { far, host, grant } = await makeFar({ features: ['hand-over'], release: '0.0.9' });
  const { attachment } = await far.attach({ export: 'old', vm: 'web', name: 'disk' });
  const refused = { code: 'protocol', message: /0\.0\.9, which does not know hot-swapping: upgrade it/ };
  await assert.rejects(far.copies.begin(attachment, { host: 'm2', export: 'new' }), refused);
  await assert.rejects(far.copies.abort(attachment, 2), refused);
  await assert.rejects(grant(attachment, { fills: 2 }), { code: 'protocol', message: /cannot swap a device: upgrade it/ });
  assert.equal(host.exports.record(attachment)!.copy, undefined);
});

test('answers are checked: the host is outside', async () => {
  const host = await new TestHost().start('m1');
  closing.push(() => host.stop());
  const answers: object[] = [];
  const pair = await busPair({
    handlers: { 'copy.extents': async () => answers.shift()!, 'copy.mark': async () => answers.shift()! },
  });
  closing.push(() => pair.close());
  const { copies } = new RemoteDeviceHost(pair.m2, 'm1', () => pair.target);
  const odd = async (answer: object, ask: () => Promise<unknown>) => {
    answers.push(answer);
    await assert.rejects(ask(), { code: 'protocol', message: /answered copy\.(extents|mark) with/ });
  };
  const extents = () => copies.extents('a', 4096);
  await odd({ ranges: [[0, 4096]] }, extents);
  await odd(
    {
      ranges: [
        [8192, 4096],
        [8192, 4096],
      ],
    },
    extents,
  );
  await odd({ ranges: [], next: 4096 }, extents);
  await odd({ ranges: [[8192, 4096]], next: 8192 }, extents);
  await odd({ ranges: [[8192, 0]] }, extents);
  await odd({ ranges: Array.from({ length: 1001 }, (_, i) => [8192 * (i + 1), 512]) }, extents);
  await odd({ mark: { state: 'active' } }, () => copies.mark('a'));
  answers.push({ ranges: [[8192, 4096]], next: 16384 });
  assert.deepEqual(await extents(), { ranges: [[8192, 4096]], next: 16384 });
});
