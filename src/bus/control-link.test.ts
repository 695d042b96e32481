import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BusPair, busPair, pairAuthority } from '../../test/support/bus-pair.ts';
import { frame } from '../../test/support/frames.ts';
import { TlsPeer } from '../../test/support/tls-peer.ts';
import { waitFor } from '../../test/support/wait.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { CALLS_MAX } from '../protocols/netbus/limits.ts';
import type { ControlHandlers } from './control-link.ts';

const m2 = await pairAuthority.identity('m2');
const pairs: BusPair[] = [];
after(() => Promise.all(pairs.map((pair) => pair.close())));

let release: () => void = () => {};
/** Calls of `test.wait` that have come. */
let waiting = 0;
const waits = (count: number) => waitFor(`${count} calls that wait`, () => waiting === count);
const handlers: ControlHandlers = {
  'test.echo': async (peer, params) => ({ peer, ...params }),
  'test.deny': async () => {
    throw new NetbusError('denied', 'not for you');
  },
  'test.bug': async () => {
    throw new TypeError('x is undefined');
  },
  'test.wait': () => {
    waiting++;
    return new Promise((resolve) => (release = () => resolve({})));
  },
  'test.huge': async () => ({ text: 'x'.repeat(2_000_000) }),
};

async function pair(options: Parameters<typeof busPair>[0] = {}): Promise<BusPair> {
  waiting = 0;
  const made = await busPair({ handlers, ...options });
  pairs.push(made);
  return made;
}

test('calls go both ways, each host by its certificate', async () => {
  const { m1, m2: other } = await pair();
  assert.deepEqual(await other.links.call('m1', 'test.echo', { a: 1 }), { peer: 'm2', a: 1 });
  assert.deepEqual(await m1.links.call('m2', 'test.echo', { b: [2] }), { peer: 'm1', b: [2] });
  const [status] = other.links.status(['m1']);
  assert.equal(status.state, 'up');
  await waitFor('a round trip', () => other.links.status()[0].rttMs !== undefined);
  assert.deepEqual(
    other.links.status(['m1', 'm3']).map(({ peer, state }) => [peer, state]),
    [
      ['m1', 'up'],
      ['m3', 'idle'],
    ],
  );
});

test('errors keep their code; bugs are logged and become internal', async () => {
  const { m2: other, log } = await pair();
  await assert.rejects(other.links.call('m1', 'test.deny', {}), { code: 'denied', message: 'not for you' });
  await assert.rejects(other.links.call('m1', 'test.bug', {}), { code: 'internal' });
  assert.ok(log.lines.includes('error: a call met a bug'));
  await assert.rejects(other.links.call('m1', 'toString', {}), { code: 'not_found', message: 'there is no method toString' });
  await assert.rejects(other.links.call('m1', 'test.huge', {}), { code: 'limit' });
  await assert.rejects(other.links.call('m1', 'test.echo', { text: 'x'.repeat(2_000_000) }), { code: 'limit' });
  await assert.rejects(other.links.call('m9', 'test.echo', {}), {
    code: 'not_found',
    message: /host m9 is not a member of cluster lab/,
  });
});

test('a call that is not answered ends at its time; its late result harms nothing', async () => {
  const clock = new ManualClock();
  const { m2: other } = await pair({ m2: { clock } });
  await other.links.call('m1', 'test.echo', {});
  const call = other.links.call('m1', 'test.wait', {}, { timeoutMs: 2_000 });
  const rejected = assert.rejects(call, { code: 'timeout', message: /did not answer test\.wait within 2 s/ });
  await waits(1);
  clock.advance(2_000);
  await rejected;
  release();
  assert.deepEqual(await other.links.call('m1', 'test.echo', {}), { peer: 'm2' });
});

test('calls without result are bounded at both ends', async () => {
  const { m2: other, target } = await pair();
  const calls = Array.from({ length: CALLS_MAX }, () => other.links.call('m1', 'test.wait', {}));
  for (const call of calls) call.catch(() => {});
  await waits(CALLS_MAX);
  await assert.rejects(other.links.call('m1', 'test.echo', {}), { code: 'limit' });

  const peer = await TlsPeer.connect(m2, target);
  peer.send({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features: [], purpose: 'control' });
  await peer.received(FrameType.welcome);
  for (let id = 0; id <= CALLS_MAX; id++) peer.send({ type: FrameType.call, id }, { method: 'test.wait', params: {} });
  const { id, payload } = await peer.received(FrameType.result);
  assert.equal(id, CALLS_MAX);
  assert.equal(JSON.parse(Buffer.from(payload).toString()).error.code, 'limit');
  peer.socket.destroy();
});

test('violations end the link with BYE', async () => {
  const { target } = await pair();
  const cases: [Uint8Array, RegExp][] = [
    [frame({ type: FrameType.result, id: 5 }, { value: {} }), /RESULT to 5, which no call waits for/],
    [frame({ type: FrameType.call, id: 1, payload: Buffer.from('[]') }), /CALL: /],
    [frame({ type: FrameType.request }), /REQUEST is not for a control link/],
    [frame({ type: FrameType.hello }, {}), /HELLO is not for a control link/],
    [
      Buffer.concat([1, 1].map((id) => frame({ type: FrameType.call, id }, { method: 'test.wait' }))),
      /CALL with the id 1, which is in use/,
    ],
  ];
  for (const [bytes, message] of cases) {
    const peer = await TlsPeer.connect(m2, target);
    peer.send({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features: [], purpose: 'control' });
    await peer.received(FrameType.welcome);
    peer.socket.write(bytes);
    const bye = await peer.bye();
    assert.equal(bye.code, 'protocol');
    assert.match(bye.message, message);
    peer.socket.destroy();
  }
});

test('a link that is lost rejects its calls, is shown as down, and comes back by itself', async () => {
  const clock = new ManualClock();
  const first = await pair({ m2: { clock } });
  const { m1, m2: other } = first;
  await other.links.call('m1', 'test.echo', {});
  const call = other.links.call('m1', 'test.wait', {});
  const rejected = assert.rejects(call, {
    code: 'ended',
    message: /^test\.wait: m1 \(.*\) ended the connection: netbusd of m1 stops$/,
  });
  await waits(1);
  await m1.close();
  await rejected;
  await waitFor('down', () => other.links.status()[0].state === 'down');
  assert.match(other.links.status()[0].error!, /netbusd of m1 stops/);
  // Nobody listens there now.
  await assert.rejects(other.links.call('m1', 'test.echo', {}), { code: 'unreachable', message: /refused the connection/ });
  clock.advance(500);
  await waitFor('tried again', () => other.links.status()[0].state !== 'connecting');
  assert.match(other.links.status()[0].error!, /refused the connection/);
  const lines = first.log.lines.filter((line) => line.includes('control link with m1 is down'));
  assert.equal(lines.length, 2, 'one line a reason');
});

test('a newer link of the same host takes the place of the older one', async () => {
  const { target, log } = await pair();
  const open = async (from?: string) => {
    const peer = await TlsPeer.connect(m2, target, from);
    peer.send({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features: [], purpose: 'control' });
    await peer.received(FrameType.welcome);
    return peer;
  };
  const first = await open();
  const second = await open();
  assert.match((await first.bye()).message, /opened a newer control link/);
  // A copy of its machine, which then hears the same of the first one.
  const copy = await open('127.0.0.2');
  const problem =
    /a host at 127\.0\.0\.2 that is m2, too, opened a control link, while that of m2 at 127\.0\.0\.1 was up: .*stop its daemon/;
  assert.match((await second.bye()).message, problem);
  const third = await open();
  assert.match((await copy.bye()).message, /a host at 127\.0\.0\.1 that is m2, too/);
  assert.equal(log.lines.filter((line) => /that is m2, too/.test(line)).length, 1, 'once a minute');
  third.socket.destroy();
});

test('a peer that calls and never reads its results is cut at the bound', async () => {
  const big = { 'test.big': async () => ({ text: 'x'.repeat(1_000_000) }) };
  const { target, log } = await pair({ handlers: big });
  const peer = await TlsPeer.connect(m2, target);
  peer.send({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features: [], purpose: 'control' });
  await peer.received(FrameType.welcome);
  peer.socket.pause();
  for (let id = 0; id < CALLS_MAX; id++) peer.send({ type: FrameType.call, id }, { method: 'test.big' });
  await waitFor('cut', () => log.lines.some((line) => line.includes('does not read')));
  peer.socket.destroy();
});
