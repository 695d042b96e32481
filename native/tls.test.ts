import assert from 'node:assert/strict';
import { randomInt, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { issueAuthority, issueHost } from '../src/directory/identity-issue.ts';
import { systemClock } from '../src/lib/clock.ts';
import { type SeededRandom, seededRandom } from '../test/support/random.ts';
import { native, TLS_READ_BYTES_MIN } from './index.ts';
import { ADDON_PATH } from './testing.ts';

const EAGAIN = 11;
const EPROTO = 71;
const ECONNRESET = 104;
const WRITE_BYTES_MAX = 64 * 1024;

const CIPHERS = 'TLS_AES_128_GCM_SHA256';
const authority = await issueAuthority({ cluster: 'lab', clock: systemClock });
const other = await issueAuthority({ cluster: 'lab', clock: systemClock });
const issued = await issueHost({ authority, cluster: 'lab', host: 'm1', clock: systemClock });
const good = { ...issued, authority: authority.certificate, ciphers: CIPHERS, protocol: 'netbus' };

/** Random numbers whose seed is printed; NETBUS_SEED brings a run back. */
function chance(context: TestContext): SeededRandom {
  const seed = Number(process.env.NETBUS_SEED ?? randomInt(2 ** 32));
  context.diagnostic(`seed ${seed}`);
  return seededRandom(seed);
}

type Options = Parameters<typeof native.createTlsContext>[0];

interface Pair {
  readonly client: number;
  readonly server: number;
  readonly clientFd: number;
  readonly serverFd: number;
}

/** Two ends on a socket pair, before the handshake; closed after the test. */
function open(context: TestContext, options: { client?: Partial<Options>; server?: Partial<Options> } = {}): Pair {
  const contexts = [options.client, options.server].map((part) => native.createTlsContext({ ...good, ...part }));
  const [clientFd, serverFd] = native.socketPair();
  const client = native.openTls(contexts[0], clientFd, 0);
  const server = native.openTls(contexts[1], serverFd, 1);
  for (const each of contexts) native.destroyTlsContext(each);
  context.after(() => {
    for (const tls of [client, server]) native.closeTls(tls);
    for (const fd of [clientFd, serverFd]) native.close(fd);
  });
  return { client, server, clientFd, serverFd };
}

/** Both sides in turns, until neither has anything to wait for. Returns both outcomes. */
function shake({ client, server }: Pair): [client: number, server: number] {
  let outcomes: [number, number] = [-EAGAIN, -EAGAIN];
  for (let turn = 0; turn < 4; turn++) {
    outcomes = [
      outcomes[0] === -EAGAIN ? native.tlsHandshake(client) : outcomes[0],
      outcomes[1] === -EAGAIN ? native.tlsHandshake(server) : outcomes[1],
    ];
  }
  return outcomes;
}

const buffer = new Uint8Array(96 * 1024);
const read = (tls: number): string | number => {
  const count = native.tlsRead(tls, buffer, 0, buffer.length);
  return count > 0 ? Buffer.from(buffer.subarray(0, count)).toString() : count;
};
const write = (tls: number, text: string): number => native.tlsWrite(tls, Buffer.from(text), 0, Buffer.byteLength(text));
/** As the socket's peer sees it, without TLS. */
function raw(fd: number): Buffer {
  const { bytes } = native.receiveMessage(fd, buffer, 0, buffer.length);
  return Buffer.from(buffer.subarray(0, Math.max(0, bytes)));
}
const put = (fd: number, bytes: Uint8Array) => native.sendMessage(fd, bytes, 0, bytes.length, []);

test('handshake, who is there, words in both directions, and the end', (context) => {
  const pair = open(context);
  const { client, server } = pair;
  assert.deepEqual(shake(pair), [0, 0]);
  for (const tls of [client, server]) {
    const { certificate, ...rest } = native.tlsPeer(tls);
    assert.deepEqual(rest, { verdict: 0, reason: 'ok', protocol: 'netbus', resumed: false });
    assert.equal(new X509Certificate(certificate!).subjectAltName, 'URI:netbus://lab/m1');
    assert.equal(native.tlsFailure(tls), '');
  }
  assert.equal(read(server), -EAGAIN);
  assert.equal(write(client, 'ping'), 0);
  assert.equal(read(server), 'ping');
  assert.equal(write(server, 'pong'), 0);
  assert.equal(read(client), 'pong');
  assert.equal(write(client, ''), 0);
  assert.equal(native.tlsEnd(client), 0);
  assert.equal(read(server), 0);
  assert.equal(read(server), 0);
});

test('what came along with the end of the handshake is there for the next read', (context) => {
  const { client, server } = open(context);
  assert.equal(native.tlsHandshake(client), -EAGAIN);
  assert.equal(native.tlsHandshake(server), -EAGAIN);
  assert.equal(native.tlsHandshake(client), 0);
  assert.equal(write(client, 'hello'), 0);
  assert.equal(write(client, ' at once'), 0);
  // One recv takes all of it.
  assert.equal(native.tlsHandshake(server), 0);
  assert.equal(read(server), 'hello at once');
  assert.equal(read(server), -EAGAIN);
});

test('the end of the socket without close_notify is the end; a reset is its errno', (context) => {
  const contextHandle = native.createTlsContext(good);
  context.after(() => native.destroyTlsContext(contextHandle));
  const [left, right] = native.socketPair();
  const client = native.openTls(contextHandle, left, 0);
  const server = native.openTls(contextHandle, right, 1);
  assert.deepEqual(shake({ client, server, clientFd: left, serverFd: right }), [0, 0]);
  native.endSocket(left);
  assert.equal(read(server), 0);
  native.closeTls(client);
  native.close(left);
  assert.ok(write(server, 'nobody') < 0);
  native.closeTls(server);
  native.close(right);

  const [near, far] = native.socketPair();
  native.close(far);
  const lonely = native.openTls(contextHandle, near, 1);
  assert.equal(native.tlsHandshake(lonely), -ECONNRESET);
  native.closeTls(lonely);
  native.close(near);
});

test('a peer that does not read costs one write; the rest is refused until it has gone, and arrives whole', (context) => {
  const random = chance(context);
  const pair = open(context);
  const { client, server } = pair;
  assert.deepEqual(shake(pair), [0, 0]);
  const sent: Buffer[] = [];
  let unsent = 0;
  while (unsent === 0) {
    const bytes = Buffer.alloc(1 + random.below(WRITE_BYTES_MAX));
    bytes.fill(random.below(256));
    sent.push(bytes);
    unsent = native.tlsWrite(client, bytes, 0, bytes.length);
    assert.ok(unsent >= 0);
  }
  assert.equal(write(client, 'too early'), -EAGAIN);
  assert.equal(native.tlsFlush(client), unsent);
  const received: Buffer[] = [];
  for (let turn = 0; turn < 10_000 && Buffer.concat(received).length < Buffer.concat(sent).length; turn++) {
    const count = native.tlsRead(server, buffer, 0, TLS_READ_BYTES_MIN + random.below(32 * 1024));
    if (count > 0) received.push(Buffer.from(buffer.subarray(0, count)));
    else assert.equal(count, -EAGAIN);
    if (unsent > 0) unsent = native.tlsFlush(client);
  }
  assert.equal(unsent, 0);
  assert.ok(Buffer.concat(received).equals(Buffer.concat(sent)));
  assert.equal(write(client, 'again'), 0);
});

test('whatever pieces the network makes of the records', (context) => {
  const random = chance(context);
  const contextHandle = native.createTlsContext(good);
  context.after(() => native.destroyTlsContext(contextHandle));
  const [clientFd, clientWire] = native.socketPair();
  const [serverFd, serverWire] = native.socketPair();
  const client = native.openTls(contextHandle, clientFd, 0);
  const server = native.openTls(contextHandle, serverFd, 1);
  let inHandshake = true;
  const received: Buffer[] = [];
  const step = () => {
    if (inHandshake) {
      const outcome = native.tlsHandshake(server);
      if (outcome !== 0) return assert.equal(outcome, -EAGAIN);
      inHandshake = false;
    }
    const count = native.tlsRead(server, buffer, 0, buffer.length);
    if (count > 0) received.push(Buffer.from(buffer.subarray(0, count)));
    else assert.equal(count, -EAGAIN);
  };
  const relay = () => {
    put(clientWire, raw(serverWire));
    for (let left = raw(clientWire); left.length > 0; ) {
      const piece = left.subarray(0, 1 + random.below(random.below(4) === 0 ? 20_000 : 50));
      put(serverWire, piece);
      left = left.subarray(piece.length);
      step();
    }
  };
  for (let outcome = -EAGAIN; outcome !== 0; relay()) outcome = native.tlsHandshake(client);
  const sent = Buffer.alloc(200_000);
  for (let i = 0; i < sent.length; i++) sent[i] = random.below(256);
  for (let at = 0; at < sent.length; ) {
    const length = Math.min(sent.length - at, 1 + random.below(40_000));
    assert.equal(native.tlsWrite(client, sent, at, length), 0);
    at += length;
    relay();
  }
  assert.ok(Buffer.concat(received).equals(sent));
  for (const tls of [client, server]) native.closeTls(tls);
  for (const fd of [clientFd, clientWire, serverFd, serverWire]) native.close(fd);
});

test('noise, another protocol and a bit that was turned: a reason, an alert for the peer, and nothing after it', (context) => {
  const pair = open(context);
  put(pair.clientFd, Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  assert.equal(native.tlsHandshake(pair.server), -EPROTO);
  assert.equal(native.tlsFailure(pair.server), 'http request');
  assert.equal(native.tlsHandshake(pair.server), -EPROTO);
  assert.equal(write(pair.server, 'x'), -EPROTO);
  assert.equal(read(pair.server), -EPROTO);

  const second = open(context);
  assert.deepEqual(shake(second), [0, 0]);
  assert.equal(write(second.client, 'whole'), 0);
  const record = raw(second.serverFd);
  record[record.length - 1] ^= 1;
  put(second.clientFd, record);
  assert.equal(read(second.server), -EPROTO);
  assert.match(native.tlsFailure(second.server), /bad record mac/);
  assert.equal(read(second.client), -EPROTO);
  assert.match(native.tlsFailure(second.client), /alert bad record mac/);
});

test('a certificate of another CA and none at all: the handshake ends well, and the verdict says so', (context) => {
  const strange = open(context, { server: { authority: other.certificate } });
  assert.deepEqual(shake(strange), [0, 0]);
  assert.notEqual(native.tlsPeer(strange.server).verdict, 0);
  assert.equal(native.tlsPeer(strange.client).verdict, 0);

  const nobody = open(context, { client: { certificate: '', key: '', authority: '' } });
  assert.deepEqual(shake(nobody), [0, 0]);
  assert.equal(native.tlsPeer(nobody.server).certificate, undefined);
  assert.notEqual(native.tlsPeer(nobody.client).verdict, 0);
});

test('a client that offers another protocol only is refused', (context) => {
  const pair = open(context, { client: { protocol: 'h2' } });
  assert.deepEqual(shake(pair), [-EPROTO, -EPROTO]);
  assert.match(native.tlsFailure(pair.server), /no application protocol/);
  assert.match(native.tlsFailure(pair.client), /alert no application protocol/);
});

test('what OpenSSL does not take is an error that says which part', () => {
  const wrong: [Partial<Options>, RegExp][] = [
    [{ certificate: 'no PEM' }, /^the certificate: /],
    [
      { certificate: `${issued.certificate}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n` },
      /^the certificate: /,
    ],
    [{ key: other.key }, /^the key: key values mismatch$/],
    [{ key: '' }, /^the key: /],
    [{ authority: 'no PEM' }, /^the CA's certificate: /],
    [{ ciphers: 'NO_SUCH_CIPHER' }, /^the ciphers: /],
    [{ protocol: '' }, /^the protocol's name: /],
    [{ protocol: 'x'.repeat(256) }, /^the protocol's name: /],
  ];
  for (const [part, message] of wrong) {
    assert.throws(() => native.createTlsContext({ ...good, ...part }), { code: 'ERR_SSL', message });
  }
  assert.throws(() => native.createTlsContext({ ...good, key: 7 as never }), RangeError);
});

test('what only a bug can ask for throws', (context) => {
  const pair = open(context);
  const { client } = pair;
  assert.deepEqual(shake(pair), [0, 0]);
  assert.throws(() => native.tlsRead(client, buffer, 0, TLS_READ_BYTES_MIN - 1), RangeError);
  assert.throws(() => native.tlsRead(client, buffer, 1, buffer.length), RangeError);
  assert.throws(() => native.tlsWrite(client, buffer, 0, WRITE_BYTES_MAX + 1), RangeError);
  assert.throws(() => native.tlsRead(0, buffer, 0, buffer.length), RangeError);
  const handle = native.createTlsContext(good);
  native.destroyTlsContext(handle);
  assert.throws(() => native.destroyTlsContext(handle), RangeError);
  assert.throws(() => native.openTls(handle, pair.clientFd, 0), RangeError);
});

test('a thread that ends with connections open leaves nothing', { timeout: 180_000 }, async () => {
  const script = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const { workerData, parentPort } = require('worker_threads');
    const context = native.createTlsContext(workerData);
    for (let i = 0; i < 20; i++) {
      const [left, right] = native.socketPair();
      native.tlsHandshake(native.openTls(context, left, 0));
      native.tlsHandshake(native.openTls(context, right, 1));
      native.close(left);
      native.close(right);
    }
    native.busyPoll(1000);
    parentPort.postMessage('done');`;
  const worker = new Worker(script, { eval: true, workerData: good });
  const [message] = await once(worker, 'message');
  assert.equal(message, 'done');
  assert.deepEqual(await once(worker, 'exit'), [0]);
});
