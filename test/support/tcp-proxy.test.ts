import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { after, beforeEach, describe, test } from 'node:test';
import { ManualClock } from '../../src/lib/clock.ts';
import { CLEAR_WIRE, TcpProxy } from './tcp-proxy.ts';
import { waitFor } from './wait.ts';

const LOOPBACK = '127.0.0.1';

let clock: ManualClock;
let proxy: TcpProxy;
/** The two ends of a connection through the proxy. */
let near: Collected;
let far: Collected;

/** A socket, what came out of it, and how it ended. */
class Collected {
  readonly socket: Socket;
  received = '';
  state: 'open' | 'ended' | 'reset' = 'open';

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('latin1').on('data', (text: string) => {
      this.received += text;
    });
    socket.on('end', () => {
      this.state = 'ended';
    });
    socket.on('error', () => {
      this.state = 'reset';
    });
  }
}

const accepted: Socket[] = [];
const server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(socket));
const echo = createServer((socket) => socket.pipe(socket));

beforeEach(async () => {
  for (const each of [server, echo]) {
    if (each.listening) continue;
    each.listen(0, LOOPBACK);
    await once(each, 'listening');
  }
  await proxy?.close();
  clock = new ManualClock();
  proxy = await TcpProxy.listen({ host: LOOPBACK, port: 0 }, { host: LOOPBACK, port: portOf(server) }, clock);
  [near, far] = await pair();
});
after(async () => {
  await proxy.close();
  server.close();
  echo.close();
});

function portOf(listener: Server): number {
  return (listener.address() as AddressInfo).port;
}

async function pair(): Promise<[Collected, Collected]> {
  const before = accepted.length;
  const socket = connect({ host: LOOPBACK, port: proxy.port, allowHalfOpen: true });
  await once(socket, 'connect');
  return [new Collected(socket), new Collected(await waitFor('the far end', () => accepted[before]))];
}

/** A round trip of another connection: whatever the kernel had for this process before has been read. */
async function settled(): Promise<void> {
  const socket = connect({ host: LOOPBACK, port: portOf(echo) });
  socket.write('x');
  await once(socket, 'data');
  socket.destroy();
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets time of the proxy's clock pass until the far end has it all. */
async function arrives(end: Collected, text: string, stepMs = 1): Promise<void> {
  await waitFor(`"${text.slice(0, 20)}"`, () => {
    clock.advance(stepMs);
    return end.received === text;
  });
}

describe('a network between two hosts', () => {
  test('passes bytes and ends both ways', async () => {
    near.socket.write('hello');
    far.socket.write('there');
    await waitFor('both', () => far.received === 'hello' && near.received === 'there');
    near.socket.end('bye');
    await waitFor('the end', () => far.state === 'ended');
    assert.equal(far.received, 'hellobye');
    far.socket.end('late');
    await waitFor('the other end', () => near.state === 'ended');
    assert.equal(near.received, 'therelate');
    await waitFor('nothing to be left', () => proxy.connections === 0);
  });

  test('passes a reset on', async () => {
    near.socket.resetAndDestroy();
    await waitFor('the reset', () => far.state === 'reset');
  });

  test('cut: both ends are reset, and new connections too, until it ends', async () => {
    proxy.set({ ...CLEAR_WIRE, cut: true });
    await waitFor('both resets', () => near.state === 'reset' && far.state === 'reset');
    const refused = new Collected(connect({ host: LOOPBACK, port: proxy.port }));
    await waitFor('the refusal', () => refused.state === 'reset');
    proxy.set(CLEAR_WIRE);
    [near, far] = await pair();
    near.socket.write('again');
    await waitFor('the bytes', () => far.received === 'again');
  });

  test('stalled: nothing passes, nothing is lost, and the sender has to wait', async () => {
    proxy.set({ ...CLEAR_WIRE, stalled: true });
    const text = 'x'.repeat(16 * 1024 * 1024);
    let written = false;
    near.socket.end(text, () => {
      written = true;
    });
    await settled();
    assert.equal(far.received, '');
    assert.equal(written, false);
    proxy.set(CLEAR_WIRE);
    await waitFor('all of it', () => far.state === 'ended');
    assert.equal(far.received, text);
  });

  test('half open: swallowed without a word, for new connections too; reset when it ends', async () => {
    proxy.set({ ...CLEAR_WIRE, halfOpen: true });
    const [newNear] = await pair();
    near.socket.write('lost');
    newNear.socket.write('lost');
    far.socket.destroy();
    await settled();
    assert.equal(far.received, '');
    assert.equal(near.state, 'open');
    assert.equal(newNear.state, 'open');
    // One that has nothing to say loses nothing and lives on.
    const [idleNear, idleFar] = await pair();
    await waitFor('the bytes to be read', () => near.socket.bytesWritten === 4 && newNear.socket.bytesWritten === 4);
    await settled();
    proxy.set(CLEAR_WIRE);
    await waitFor('the resets', () => near.state === 'reset' && newNear.state === 'reset');
    idleNear.socket.write('alive');
    await waitFor('the bytes', () => idleFar.received === 'alive');
  });

  test('delayed: each byte comes so much later, in order, also when the delay becomes shorter', async () => {
    proxy.set({ ...CLEAR_WIRE, delayMs: 100 });
    near.socket.write('slow');
    await waitFor('the bytes at the proxy', () => near.socket.bytesWritten === 4);
    await settled();
    proxy.set(CLEAR_WIRE);
    near.socket.write('fast');
    await settled();
    clock.advance(99);
    await settled();
    assert.equal(far.received, '');
    await arrives(far, 'slowfast');
  });

  test('throttled: no more bytes than the time allows', async () => {
    proxy.set({ ...CLEAR_WIRE, bytesPerSecond: 10_000 });
    const text = 'y'.repeat(1000);
    const startedAt = clock.now();
    near.socket.write(text);
    await waitFor('the first bytes', () => far.received.length > 0);
    await settled();
    assert.equal(far.received.length, 100, 'what 10 ms allow');
    await arrives(far, text, 5);
    assert.ok(clock.now() - startedAt >= 90);
  });
});
