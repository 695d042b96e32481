import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { native } from './index.ts';
import { systemError, until } from './testing.ts';

const ECONNREFUSED = 111;
const ENOTCONN = 107;

/** Resolves with what the first event says: 0, or a negative errno. */
function connected(fd: number): Promise<number> {
  return new Promise((resolve) => {
    const watch = native.watch(fd, { readable: false, writable: true }, (error) => {
      native.unwatch(watch);
      resolve(error);
    });
  });
}

for (const address of ['127.0.0.1', '::1']) {
  test(`listen, connect, accept and the addresses of both ends at ${address}`, async () => {
    const listener = native.listenTcp(address, 0);
    const { port, ...rest } = native.localAddress(listener);
    assert.deepEqual(rest, { address });
    const client = native.connectTcp(address, port);
    assert.equal(await connected(client), 0);
    let server = -1;
    await until(() => {
      server = native.acceptConnection(listener);
      return server >= 0;
    });
    assert.deepEqual(native.peerAddress(server), native.localAddress(client));
    assert.deepEqual(native.peerAddress(client), { address, port });
    native.setTcpOptions(server, 10);
    assert.equal(native.endSocket(client), 0);
    for (const fd of [client, server, listener]) native.close(fd);
  });
}

test('"::" takes IPv4 as well', async () => {
  const listener = native.listenTcp('::', 0);
  const client = native.connectTcp('127.0.0.1', native.localAddress(listener).port);
  assert.equal(await connected(client), 0);
  for (const fd of [client, listener]) native.close(fd);
});

test('nobody there is an error of the watch', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  const fd = native.connectTcp('127.0.0.1', port);
  assert.equal(await connected(fd), -ECONNREFUSED);
  assert.throws(() => native.peerAddress(fd), systemError('ENOTCONN', 'getsockname'));
  assert.equal(native.endSocket(fd), -ENOTCONN);
  native.close(fd);
});

test('an address that is taken, that this host has not, or that is none', () => {
  const listener = native.listenTcp('127.0.0.1', 0);
  const { port } = native.localAddress(listener);
  assert.throws(() => native.listenTcp('127.0.0.1', port), systemError('EADDRINUSE', 'bind'));
  native.close(listener);
  assert.throws(() => native.listenTcp('192.0.2.77', 0), systemError('EADDRNOTAVAIL', 'bind'));
  assert.throws(() => native.listenTcp('localhost', 0), systemError('EINVAL', 'getaddrinfo'));
  assert.throws(() => native.connectTcp('300.0.0.1', 1), systemError('EINVAL', 'getaddrinfo'));
  assert.throws(() => native.connectTcp('1'.repeat(100), 1), systemError('ENAMETOOLONG', 'getaddrinfo'));
  assert.throws(() => native.connectTcp('127.0.0.1', 65_536), RangeError);
});
