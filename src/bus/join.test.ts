/** Joining over loopback TLS: who gets how far without a certificate. */
import assert from 'node:assert/strict';
import type { X509Certificate } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { TestAuthority, TestLog, TestSessionHost } from '../../test/support/bus-host.ts';
import { frame } from '../../test/support/frames.ts';
import { TlsPeer } from '../../test/support/tls-peer.ts';
import { waitFor } from '../../test/support/wait.ts';
import { NetbusError } from '../device/errors.ts';
import { type Clock, ManualClock, systemClock } from '../lib/clock.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { JOIN_MS_MAX, JOINERS_MAX } from '../protocols/netbus/limits.ts';
import { Bus } from './bus.ts';
import type { Target } from './dial.ts';
import { Endpoint, type EndpointOptions } from './endpoint.ts';
import { FAILURE_WINDOW_MS, FAILURES_MAX, FailureCounter } from './failure-counter.ts';
import { ASK_AGAIN_MS, type JoinOptions, requestToJoin } from './join-client.ts';
import type { JoinHost, RedeemRequest } from './join-desk.ts';

const authority = new TestAuthority();
const m1 = await authority.identity('m1');
const buses: Bus[] = [];
const peers: TlsPeer[] = [];
after(async () => {
  for (const { socket } of peers) socket.destroy();
  await Promise.all(buses.map((bus) => bus.close()));
});

const welcoming: JoinHost = {
  certificates: () => [m1.ca],
  redeem: async ({ secret, host, address }) => {
    if (Buffer.from(secret).toString() !== 'right') throw new NetbusError('denied', 'the invitation is not valid');
    return { certificate: `certificate of ${host} at ${address}`, list: 'list' };
  },
};

async function inviter(joinHost: JoinHost | undefined, options: Partial<EndpointOptions> = {}) {
  const log = new TestLog();
  const bus = new Bus({
    ...(await authority.endpointOptions('m1', { identity: m1, log, ...options })),
    ...{ sessionHost: new TestSessionHost(), handlers: { 'test.echo': async () => ({}) }, targetOf: () => undefined },
    ...(joinHost && { joinHost }),
    allocate: () => assert.fail('no session is opened'),
  });
  buses.push(bus);
  const port = await bus.listen('127.0.0.1', 0);
  return { bus, log, target: { host: 'the inviting host', address: '127.0.0.1', port } };
}

function ask(target: Target, options: Partial<JoinOptions> = {}, clock: Clock = systemClock) {
  const endpoint = new Endpoint({
    ...{ identity: { cluster: 'lab', host: 'm2' }, bootId: '', release: '', clock, log: new TestLog() },
    admits: () => 'nobody is known yet',
  });
  const secret = Buffer.from('right').toString('base64url');
  return requestToJoin({ endpoint, target, check: () => {}, secret, host: 'm2', request: 'request', ...options });
}

/** Somebody without a certificate, and what they like to say. */
async function anonymous(target: Target): Promise<TlsPeer> {
  const peer = await TlsPeer.connect({ ...m1, certificate: '', key: '' }, target);
  peers.push(peer);
  return peer;
}

const hello = (purpose: string, more: object = {}) =>
  frame({ type: FrameType.hello }, { magic: 'netbus', versions: [1, 1], features: [], purpose, ...more });

test('who has the secret gets in; the address that it comes from counts where it names none', async () => {
  const { target } = await inviter(welcoming);
  let shown: { own: X509Certificate; above: readonly X509Certificate[] } | undefined;
  const answer = await ask(target, { check: (certificates) => (shown = certificates) });
  assert.deepEqual([answer.certificate, answer.list], ['certificate of m2 at 127.0.0.1', 'list']);
  assert.equal(shown?.own.subjectAltName, 'URI:netbus://lab/m1');
  assert.ok(shown.own.checkIssued(shown.above[0]));
  assert.equal((await ask(target, { address: 'm2.example:7444' })).certificate, 'certificate of m2 at m2.example:7444');
});

test('nothing is sent to a host whose certificates are not right', async () => {
  const asked: RedeemRequest[] = [];
  const { target, log } = await inviter({
    ...welcoming,
    redeem: async (request) => {
      asked.push(request);
      throw new Error('it must not come here');
    },
  });
  const check = () => {
    throw new NetbusError('denied', 'another CA');
  };
  await assert.rejects(ask(target, { check }), { code: 'denied', message: 'another CA' });
  await waitFor('the inviting host hears why', () => log.lines.some((line) => /m2 refuses this host: another CA/.test(line)));
  assert.deepEqual(asked, []);
});

test('a wrong secret, a host that invites nobody, and certificates that are none', async () => {
  const { target, log } = await inviter(welcoming);
  await assert.rejects(ask(target, { secret: 'wrong' }), { code: 'denied', message: 'the invitation is not valid' });
  assert.ok(
    log.lines.some((line) => /^warn: the host at 127\.0\.0\.1:\d+ could not join: the invitation is not valid$/.test(line)),
  );
  const deaf = await inviter(undefined);
  await assert.rejects(ask(deaf.target), { code: 'denied', message: /host m1 lets nobody join/ });
  const odd = await inviter({ ...welcoming, certificates: () => ['no certificate'] });
  await assert.rejects(ask(odd.target), { code: 'protocol', message: /something else than certificates/ });
});

test('an address that failed too often is sent away until a minute is over', async () => {
  const clock = new ManualClock();
  const { target, log } = await inviter(welcoming, { clock });
  for (let i = 0; i < FAILURES_MAX; i++) await assert.rejects(ask(target, { secret: 'wrong' }), { code: 'denied' });
  const lines = log.lines.length;
  await assert.rejects(ask(target), { code: 'limit', message: /too many attempts failed/ });
  assert.equal(log.lines.slice(lines).filter((line) => line.startsWith('warn')).length, 0);
  clock.advance(FAILURE_WINDOW_MS);
  await ask(target);
});

test('only tokens that are no good count, not what a host with a good one meets', async () => {
  const { target } = await inviter({
    ...welcoming,
    redeem: async () => {
      throw new NetbusError('in_use', 'host m1 has the address 192.0.2.1:7443');
    },
  });
  for (let i = 0; i <= FAILURES_MAX; i++) await assert.rejects(ask(target), { code: 'in_use' });
});

test('an answer that was lost is asked for again, with the same request', async () => {
  const requests: string[] = [];
  const sockets: Socket[] = [];
  const { target } = await inviter({
    ...welcoming,
    redeem: async (asked) => {
      requests.push(asked.request);
      // The way to here is cut while the answer is made.
      if (requests.length < 3) for (const socket of sockets) socket.destroy();
      return welcoming.redeem(asked);
    },
  });
  const proxy = createServer((socket) => {
    const onward = connect(target.port, target.address);
    sockets.push(socket, onward);
    for (const each of [socket, onward]) each.on('error', () => each.destroy());
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as AddressInfo;
  const clock = new ManualClock();
  const told: string[] = [];
  const onLost = ({ code }: NetbusError) => {
    told.push(code);
    setImmediate(() => clock.advance(ASK_AGAIN_MS[told.length - 1]));
  };
  const answer = await ask({ ...target, port }, { onLost }, clock);
  proxy.close();
  assert.match(answer.certificate, /certificate of m2/);
  assert.deepEqual(requests, ['request', 'request', 'request']);
  assert.equal(told.length, 2);
});

test('who is interrupted when it was asked hears the answer', async () => {
  const interrupt = new AbortController();
  const { target } = await inviter({
    ...welcoming,
    redeem: async (asked) => {
      interrupt.abort();
      return welcoming.redeem(asked);
    },
  });
  let waits = 0;
  const answer = await ask(target, { signal: interrupt.signal, onWait: () => waits++ });
  assert.deepEqual([answer.list, waits], ['list', 1]);
  await assert.rejects(ask(target, { signal: interrupt.signal }), /was given up/);
});

test('without a certificate there is joining and nothing else', async () => {
  const { target, log } = await inviter(welcoming);
  for (const [purpose, more] of [
    ['control', {}],
    ['session', { attachment: 'a', state: 'standby', epoch: 0 }],
  ] as const) {
    const peer = await anonymous(target);
    peer.socket.write(hello(purpose, more));
    assert.match((await peer.bye()).message, /no certificate was presented/);
  }
  assert.ok(log.lines.some((line) => /refused: no certificate was presented/.test(line)));
  const peer = await anonymous(target);
  peer.socket.write(hello('join'));
  await peer.received(FrameType.welcome);
  peer.send({ type: FrameType.call, id: 1 }, { method: 'test.echo', params: {} });
  const result = JSON.parse((await peer.received(FrameType.result)).payload.toString());
  assert.equal(result.error.code, 'not_found');
  peer.send({ type: FrameType.state, id: 1, kind: 1 });
  assert.equal((await peer.bye()).code, 'protocol');
});

test('few at a time, each for a short while; what they send is checked', async () => {
  const clock = new ManualClock();
  const { target } = await inviter(welcoming, { clock });
  const waiting: TlsPeer[] = [];
  for (let i = 0; i < JOINERS_MAX; i++) {
    const peer = await anonymous(target);
    peer.socket.write(hello('join'));
    await peer.received(FrameType.welcome);
    waiting.push(peer);
  }
  const one = await anonymous(target);
  one.socket.write(hello('join'));
  assert.equal((await one.bye()).code, 'limit');
  for (const params of [{}, { secret: 'a b', host: 'm2', request: 'r' }, { secret: 'a', host: 'M 2', request: 'r' }]) {
    const peer = waiting.pop()!;
    peer.send({ type: FrameType.call, id: 1 }, { method: 'join.redeem', params });
    assert.equal(JSON.parse((await peer.received(FrameType.result)).payload.toString()).error.code, 'protocol');
    peer.socket.destroy();
  }
  clock.advance(JOIN_MS_MAX);
  assert.equal((await waiting[0].bye()).code, 'timeout');
});

test('a host of the cluster does not join again, and one that nobody knows may give a list alone', async () => {
  const isUnknown = (host: string) => host === 'm7';
  const admits = (host: string) => (host === 'm2' ? undefined : `host ${host} was evicted`);
  const { target } = await inviter(welcoming, { admits, isUnknown });
  const connect = async (host: string, purpose: string, more: object = {}) => {
    const peer = await TlsPeer.connect(await authority.identity(host), target);
    peers.push(peer);
    peer.socket.write(hello(purpose, more));
    return peer;
  };
  assert.match((await (await connect('m2', 'join')).bye()).message, /host m2 is a member already/);
  assert.match((await (await connect('m3', 'control')).bye()).message, /host m3 was evicted/);
  const session = { attachment: 'a', state: 'standby', epoch: 0 };
  assert.match((await (await connect('m7', 'session', session)).bye()).message, /host m7 is not in the member list of m1/);
  await (await connect('m7', 'control')).received(FrameType.welcome);
});

test('failures are counted by address, in bounds', () => {
  const clock = new ManualClock();
  const counter = new FailureCounter(clock);
  for (let i = 0; i < FAILURES_MAX; i++) counter.count('a');
  assert.equal(counter.blocked('a'), true);
  assert.equal(counter.blocked('b'), false);
  for (let i = 0; i < 1024; i++) counter.count(`other ${i}`);
  assert.equal(counter.blocked('a'), false);
});
