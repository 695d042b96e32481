/** Strangers, and hosts that are not what they should be, at the port of a host: each gets a clear word and harms nobody. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { type ConnectionOptions, connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { TestAuthority, TestLog } from '../../test/support/bus-host.ts';
import { FrameCollector, frame } from '../../test/support/frames.ts';
import { waitFor } from '../../test/support/wait.ts';
import { ManualClock, systemClock } from '../lib/clock.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { HANDSHAKE_MS_MAX, UNFINISHED_CONNECTIONS_MAX } from '../protocols/netbus/limits.ts';
import type { ConnectionOwner } from './connection.ts';
import { dial, type Target } from './dial.ts';
import type { Endpoint, EndpointOptions } from './endpoint.ts';
import { Listener } from './listener.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const authority = new TestAuthority();
const m1 = await authority.identity('m1');
const m2 = await authority.identity('m2');
const nobody: ConnectionOwner = { begin() {}, payload() {}, end() {}, arrived() {}, ended() {} };
const disposals: (() => void)[] = [];
after(() => {
  for (const dispose of disposals) dispose();
});

interface Host {
  readonly log: TestLog;
  readonly target: Target;
  readonly endpoint: Endpoint;
}

/** A host m1 that welcomes every control link. */
async function listen(options: Partial<EndpointOptions> = {}): Promise<Host> {
  const log = new TestLog();
  const endpoint = await authority.endpoint('m1', { identity: m1, log, ...options });
  const listener = new Listener(endpoint, (incoming) => {
    incoming.welcome({ ...nobody, ended: (cause) => log.info({}, `ended: ${cause.message}`) });
    disposals.push(() => incoming.connection.destroy());
  });
  const port = await listener.listen('127.0.0.1', 0);
  disposals.push(() => listener.close());
  return { log, endpoint, target: { host: 'm1', address: '127.0.0.1', port } };
}

async function dialFrom(options: Partial<EndpointOptions>, target: Target): Promise<void> {
  const endpoint = await authority.endpoint('m2', { identity: m2, ...options });
  await dial(endpoint, target, { purpose: 'control' }, (connection) => {
    disposals.push(() => connection.destroy());
    return nobody;
  });
}

async function plain(target: Target): Promise<Socket> {
  const socket = connect(target.port, target.address);
  disposals.push(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** TLS as a host of the cluster, and then whatever a test likes. */
async function secure(target: Target, options: ConnectionOptions = {}): Promise<TLSSocket & { collector: FrameCollector }> {
  const { ca, certificate: cert, key } = m2;
  const socket = connectTls({
    ...{ host: target.address, port: target.port, ca, cert, key, ALPNProtocols: ['netbus'], rejectUnauthorized: false },
    ...options,
  });
  disposals.push(() => socket.destroy());
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  const collector = new FrameCollector();
  socket.on('data', (chunk: Uint8Array) => collector.parser.feed(chunk));
  return Object.assign(socket, { collector });
}

const told = (log: TestLog, text: RegExp) => waitFor(String(text), () => log.lines.some((line) => text.test(line)));
const byeOf = (socket: { collector: FrameCollector }) =>
  socket.collector.frames.filter(({ type }) => type === FrameType.bye).map(({ payload }) => JSON.parse(payload.toString()));
const hello = (versions = [1, 1]) =>
  frame({ type: FrameType.hello }, { magic: 'netbus', versions, features: [], purpose: 'control' });

test('a host of the cluster gets in', async () => {
  const { target, log } = await listen();
  await dialFrom({}, target);
  assert.deepEqual(log.lines, []);
});

test('a certificate of another cluster: both ends say so', async () => {
  const { target, log } = await listen();
  const identity = await new TestAuthority('lab').identity('m2');
  await assert.rejects(dialFrom({ identity }, target), {
    code: 'denied',
    message:
      /^m1 \(127\.0\.0\.1:\d+\) is not the host it should be: the certificate was not issued by the CA of cluster lab: is it of another cluster\? \(/,
  });
  await told(log, /^warn: the connection from 127\.0\.0\.1:\d+ was refused: .*not issued by the CA of cluster lab/);
});

test('the name of another cluster under the same CA is refused as well', async () => {
  const { target, log } = await listen();
  const identity = await authority.identity('m2', { cluster: 'other' });
  await assert.rejects(dialFrom({ identity }, target), { code: 'denied', message: /is of a host of cluster lab, not other/ });
  await told(log, /is of a host of cluster other, not lab/);
});

test('an expired certificate, at either end', async () => {
  const past = { ...systemClock, wallTime: () => Date.now() - 60 * DAY_MS };
  const expired = await authority.identity('m2', { clock: past });
  const { target, log } = await listen();
  await assert.rejects(dialFrom({ identity: expired }, target), {
    code: 'denied',
    message:
      /^m1 \(.*\) ended the connection: m1 refuses this host: the certificate \(or its CA\) has expired, on .*: issue a new one$/,
  });
  await told(log, /refused: the certificate \(or its CA\) has expired/);
  const old = await listen({ identity: await authority.identity('m1', { clock: past }) });
  await assert.rejects(dialFrom({}, old.target), { code: 'denied', message: /^m1 \(.*\) is not the host .* has expired/ });
  await told(old.log, /m2 refuses this host: the certificate .* has expired/);
});

test('a certificate that is not valid yet points at the clocks', async () => {
  const future = { ...systemClock, wallTime: () => Date.now() + DAY_MS };
  const { target } = await listen();
  await assert.rejects(dialFrom({ identity: await authority.identity('m2', { clock: future }) }, target), {
    message: /is valid from .* on: check the clocks of both hosts/,
  });
});

test('a host that is not a member is refused by name', async () => {
  const { target, log } = await listen({
    admits: (host) => (host === 'm2' ? 'host m2 is not a member: add it to the hosts in the config of m1' : undefined),
  });
  await assert.rejects(dialFrom({}, target), {
    code: 'denied',
    message: /host m2 is not a member: add it to the hosts in the config of m1/,
  });
  await told(log, /host m2 is not a member/);
});

test('no certificate at all', async () => {
  const { target, log } = await listen();
  const { ca } = m2;
  const socket = await secure(target, { ca, cert: '', key: '' });
  socket.write(hello());
  await told(log, /no certificate was presented/);
  await waitFor('BYE', () => byeOf(socket).length === 1);
  assert.equal(byeOf(socket)[0].code, 'denied');
});

test('another host behind the address', async () => {
  const { target, log } = await listen();
  await assert.rejects(dialFrom({}, { ...target, host: 'm3' }), {
    code: 'denied',
    message: /is not the host it should be: it is host m1, not m3: correct the address of m3 in the config of m2$/,
  });
  await told(log, /m2 refuses this host: it is host m1, not m3/);
});

test('no version in common: both ranges are named at both ends; a neighbour with one in common gets in', async () => {
  const { target, log } = await listen();
  await assert.rejects(dialFrom({ versions: [2, 2] }, target), {
    code: 'protocol',
    message: /no version of the Netbus protocol in common: m1 speaks 1, the opener speaks 2; upgrade the older one/,
  });
  await told(log, /no version of the Netbus protocol in common/);
  await dialFrom({ versions: [1, 2] }, target);
});

test('nobody there', async () => {
  const { target } = await listen();
  const free = createServer().listen(0, '127.0.0.1');
  await once(free, 'listening');
  const { port } = free.address() as AddressInfo;
  await new Promise((resolve) => free.close(resolve));
  await assert.rejects(dialFrom({}, { ...target, port }), {
    code: 'unreachable',
    message: `m1 (127.0.0.1:${port}) refused the connection: is netbusd running there?`,
  });
  await assert.rejects(dialFrom({}, { ...target, address: 'no-such-host.invalid' }), {
    code: 'unreachable',
    message: /no-such-host\.invalid:\d+\): the address is not known to DNS/,
  });
});

test('something else there: a plain service, one that hangs up, another TLS service', async () => {
  const services = [
    {
      server: createServer((socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n')),
      code: 'protocol',
      message: /does not speak TLS 1\.3/,
    },
    {
      server: createServer((socket) => socket.destroy()),
      code: 'unreachable',
      message: /closed the connection before TLS was up/,
    },
    {
      server: createTlsServer({ cert: m1.certificate, key: m1.key, ALPNProtocols: ['h2'] }),
      code: 'protocol',
      message: /speaks TLS but not Netbus/,
    },
  ];
  for (const { server, code, message } of services) {
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    disposals.push(() => server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await assert.rejects(dialFrom({}, { host: 'm1', address: '127.0.0.1', port }), { code, message });
  }
});

test('a host that does not answer is given up after 10 s, and a dial can be given up before', async () => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  disposals.push(() => silent.close());
  await once(silent, 'listening');
  const target = { host: 'm1', address: '127.0.0.1', port: (silent.address() as AddressInfo).port };
  const clock = new ManualClock();
  const dialling = dialFrom({ clock }, target);
  await once(silent, 'connection');
  clock.advance(HANDSHAKE_MS_MAX);
  await assert.rejects(dialling, { code: 'timeout', message: /did not answer within 10 s/ });

  const endpoint = await authority.endpoint('m2', { identity: m2 });
  const giveUp = new AbortController();
  const second = dial(endpoint, target, { purpose: 'control' }, () => nobody, giveUp.signal);
  giveUp.abort();
  await assert.rejects(second, { code: 'ended' });
});

test('strangers: a port scanner, HTTP, noise, TLS without netbus, an old TLS', async () => {
  const { target, log } = await listen();
  (await plain(target)).destroy();
  await told(log, /refused: it was (closed|cut)/);
  (await plain(target)).write('GET / HTTP/1.1\r\nHost: m1\r\n\r\n');
  await told(log, /refused: it spoke HTTP, and this is a Netbus port/);
  (await plain(target)).write('SSH-2.0-OpenSSH_9.2\r\n');
  await told(log, /refused: it did not speak TLS/);
  await assert.rejects(secure(target, { ALPNProtocols: ['h2'] }), /Error/);
  await told(log, /refused: it spoke TLS but not netbus \(ALPN\)/);
  await secure(target, { ALPNProtocols: [] });
  await told(log, /refused: the ALPN is not netbus/);
  await assert.rejects(secure(target, { maxVersion: 'TLSv1.2' }), /Error/);
  await told(log, /refused: it spoke a TLS version below 1\.3/);
  await dialFrom({}, target);
});

test('inside TLS: garbage, frames before HELLO, a truncated HELLO, a bad one', async () => {
  const { target, log } = await listen();
  const cases: [Uint8Array, RegExp][] = [
    [Buffer.alloc(64, 0xee), /a frame of the unknown type 238/],
    [frame({ type: FrameType.request, payload: new Uint8Array(10) }), /REQUEST before HELLO/],
    [frame({ type: FrameType.ping }), /PING before HELLO/],
    [frame({ type: FrameType.hello }, { magic: 'nbd' }), /HELLO: magic: /],
    [frame({ type: FrameType.hello, payload: Buffer.from('{') }), /HELLO: the payload is not JSON/],
  ];
  for (const [bytes, message] of cases) {
    const socket = await secure(target);
    socket.write(bytes);
    await told(log, message);
    await waitFor(`BYE after ${message}`, () => byeOf(socket).length === 1);
    assert.equal(byeOf(socket)[0].code, 'protocol');
    assert.match(byeOf(socket)[0].message, message);
  }
  const truncated = await secure(target);
  truncated.end(hello().subarray(0, 40));
  await told(log, /closed by the peer within a frame/);
  await dialFrom({}, target);
});

test('whoever says nothing is closed after 10 s', async () => {
  const clock = new ManualClock();
  const { target, log } = await listen({ clock });
  const tcp = await plain(target);
  const tls = await secure(target);
  const closed = Promise.all([once(tcp, 'close'), once(tls, 'close')]);
  clock.advance(HANDSHAKE_MS_MAX);
  await closed;
  assert.equal(log.lines.filter((line) => line.includes('did not finish the TLS handshake and HELLO within 10 s')).length, 2);
});

test('no more than 64 unfinished connections: the newest is closed, and members get in again afterwards', async () => {
  const clock = new ManualClock();
  const { target, log } = await listen({ clock });
  const sockets: Socket[] = [];
  for (let i = 0; i < UNFINISHED_CONNECTIONS_MAX; i++) sockets.push(await plain(target));
  const one = await plain(target);
  await once(one, 'close');
  await told(log, /64 others have not finished their handshake/);
  for (const socket of sockets) socket.destroy();
  await waitFor('the strangers are gone', () => log.lines.length > 1);
  await dialFrom({}, target);
});

test('an address that cannot be had is told in one line', async () => {
  const { target, endpoint } = await listen();
  const second = new Listener(endpoint, () => {});
  await assert.rejects(second.listen('127.0.0.1', target.port), {
    code: 'in_use',
    message: /127\.0\.0\.1:\d+ is in use by another program/,
  });
  await assert.rejects(new Listener(endpoint, () => {}).listen('192.0.2.77', 7443), {
    code: 'config',
    message: /is no address of this host/,
  });
});
