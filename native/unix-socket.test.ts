import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, fstatSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from './index.ts';
import { NO_DESCRIPTOR, openDescriptors, systemError, temporaryDirectory } from './testing.ts';

const EBADF = 9;
const EAGAIN = 11;
const EPIPE = 32;
const EMSGSIZE = 90;

function send(fd: number, text: string, fds: number[] = []): number {
  const bytes = Buffer.from(text);
  return native.sendMessage(fd, bytes, 0, bytes.length, fds);
}

function receive(fd: number): { text: string; bytes: number; fds: number[] } {
  const buffer = Buffer.alloc(256);
  const { bytes, fds } = native.receiveMessage(fd, buffer, 0, buffer.length);
  return { text: buffer.toString('utf8', 0, Math.max(bytes, 0)), bytes, fds };
}

test('listen, connect, accept, and who is there', (context) => {
  const path = join(temporaryDirectory(context), 'socket');
  const listener = native.listenUnix(path, 0o640);
  assert.equal(statSync(path).mode & 0o7777, 0o640);
  assert.equal(native.acceptConnection(listener), -EAGAIN);
  const client = native.connectUnix(path);
  const server = native.acceptConnection(listener);
  assert.ok(server >= 0);
  assert.equal(native.acceptConnection(listener), -EAGAIN);
  assert.equal(receive(server).bytes, -EAGAIN);
  assert.equal(send(client, 'hello'), 5);
  assert.deepEqual(receive(server), { text: 'hello', bytes: 5, fds: [] });
  const self = { pid: process.pid, uid: process.getuid!(), gid: process.getgid!() };
  assert.deepEqual(native.peerCredentials(server), self);
  assert.deepEqual(native.peerCredentials(client), self);
  assert.throws(() => native.listenUnix(path, 0o600), systemError('EADDRINUSE', 'bind'));
  for (const fd of [listener, client, server]) native.close(fd);
  assert.ok(existsSync(path));
  assert.throws(() => native.connectUnix(path), systemError('ECONNREFUSED', 'connect'));
});

test('errors name the path', (context) => {
  const directory = temporaryDirectory(context);
  const path = join(directory, 'missing', 'socket');
  const message = `ENOENT: bind ${path} (No such file or directory)`;
  assert.throws(() => native.listenUnix(path, 0o600), { message, code: 'ENOENT', errno: 2, syscall: 'bind' });
  assert.throws(() => native.connectUnix(path), systemError('ENOENT', 'connect'));
  const longest = '/'.repeat(107);
  assert.throws(() => native.connectUnix(longest), { syscall: 'connect', code: 'ECONNREFUSED' });
  assert.throws(() => native.connectUnix(`${longest}/`), systemError('ENAMETOOLONG', 'connect'));
  assert.throws(() => native.listenUnix(`${longest}/`, 0o600), systemError('ENAMETOOLONG', 'bind'));
  assert.throws(() => native.listenUnix('a\0b', 0o600), RangeError);
  assert.throws(() => native.listenUnix(join(directory, 'mode'), 0o1000), RangeError);
});

test('connecting never waits: a full backlog is EAGAIN', (context) => {
  const path = join(temporaryDirectory(context), 'socket');
  const listener = native.listenUnix(path, 0o600);
  const clients: number[] = [];
  assert.throws(
    () => {
      for (;;) clients.push(native.connectUnix(path));
    },
    systemError('EAGAIN', 'connect'),
  );
  for (const fd of [listener, ...clients]) native.close(fd);
});

test('a range of the buffer is sent and filled, nothing else', () => {
  const [left, right] = native.socketPair();
  assert.equal(native.sendMessage(left, Buffer.from('0123456789'), 3, 4, []), 4);
  const buffer = new Uint8Array(10).fill(0x2e);
  assert.deepEqual(native.receiveMessage(right, buffer, 2, 8), { bytes: 4, fds: [] });
  assert.equal(Buffer.from(buffer).toString(), '..3456....');
  for (const [offset, length] of [
    [0, 11],
    [10, 1],
    [11, 0],
    [-1, 1],
    [0, 2 ** 53],
    [2 ** 32, 1],
    [0.5, 1],
  ]) {
    assert.throws(() => native.sendMessage(left, buffer, offset!, length!, []), RangeError);
    assert.throws(() => native.receiveMessage(right, buffer, offset!, length!), RangeError);
  }
  assert.throws(() => native.sendMessage(left, 'text' as unknown as Uint8Array, 0, 1, []), TypeError);
  assert.throws(() => native.sendMessage(left, buffer, 0, 1, {} as number[]), TypeError);
  native.close(left);
  native.close(right);
});

test('messages go from and into windows of regions', () => {
  const [left, right] = native.socketPair();
  const region = native.allocateRegion(8192);
  const window = new Uint8Array(native.regionWindow(region, 4096, 16));
  window.set(Buffer.from('in the region'));
  assert.equal(native.sendMessage(left, window, 0, 13, []), 13);
  window.fill(0);
  assert.equal(native.receiveMessage(right, window, 3, 13).bytes, 13);
  assert.equal(Buffer.from(window.subarray(3)).toString(), 'in the region');
  native.unmapRegion(region);
  assert.throws(() => native.sendMessage(left, window, 0, 1, []), RangeError);
  native.close(left);
  native.close(right);
});

test('as much is sent as fits, then EAGAIN; a peer that is gone is EPIPE, without a signal', () => {
  const [left, right] = native.socketPair();
  const big = Buffer.alloc(8 * 1024 * 1024);
  const sent = native.sendMessage(left, big, 0, big.length, []);
  assert.ok(sent > 0 && sent < big.length);
  assert.equal(send(left, 'x'), -EAGAIN);
  native.close(right);
  assert.equal(send(left, 'x'), -EPIPE);
  native.close(left);
});

test('descriptors go with a message: 0 to 16 of them, close-on-exec', () => {
  const [left, right] = native.socketPair();
  const before = openDescriptors();
  const file = native.createMemoryFile('passed', 4321);
  for (const count of [1, 2, 8, 15, 16]) {
    assert.equal(send(left, `with ${count}`, new Array(count).fill(file)), `with ${count}`.length);
    const message = receive(right);
    assert.equal(message.text, `with ${count}`);
    assert.equal(message.fds.length, count);
    for (const fd of message.fds) {
      assert.equal(fstatSync(fd).size, 4321);
      native.close(fd);
    }
  }
  assert.throws(() => send(left, 'x', new Array(17).fill(file)), RangeError);
  assert.throws(() => send(left, '', [file]), RangeError);
  assert.throws(() => send(left, 'x', [-1]), RangeError);
  assert.throws(() => send(left, 'x', ['1' as unknown as number]), TypeError);
  native.close(file);
  assert.equal(send(left, 'x', [NO_DESCRIPTOR]), -EBADF);
  assert.equal(receive(right).bytes, -EAGAIN);
  assert.ok(openDescriptors() <= before);
  native.close(left);
  native.close(right);
});

test('the descriptors of two messages are not mixed', () => {
  const [left, right] = native.socketPair();
  const file = native.createMemoryFile('passed', 1);
  send(left, 'one', [file]);
  send(left, 'two', [file, file]);
  const first = receive(right);
  const second = receive(right);
  assert.deepEqual([first.text, first.fds.length, second.text, second.fds.length], ['one', 1, 'two', 2]);
  for (const fd of [file, ...first.fds, ...second.fds, left, right]) native.close(fd);
});

/** Sends one byte with as many copies of descriptor 0 as its argument says, on descriptor 3. */
const SENDER = `
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
int main(int count, char **values) {
  (void)count;
  int number = atoi(values[1]);
  char control[CMSG_SPACE(253 * sizeof(int))];
  memset(control, 0, sizeof control);
  struct iovec part = {"x", 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(number * sizeof(int))};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(number * sizeof(int));
  return sendmsg(3, &message, 0) == 1 ? 0 : 1;
}`;

test('a message with more than 16 descriptors is refused, and none of them stays open', {
  timeout: 180_000,
}, async (context) => {
  const directory = temporaryDirectory(context);
  writeFileSync(join(directory, 'sender.c'), SENDER);
  execFileSync('cc', ['-o', join(directory, 'sender'), join(directory, 'sender.c')]);
  const [left, right] = native.socketPair();
  const before = openDescriptors();
  for (const count of [16, 17, 253]) {
    const environment = { ...process.env, LD_PRELOAD: '' };
    const stdio = ['ignore', 'inherit', 'inherit', left] as const;
    const child = spawn(join(directory, 'sender'), [String(count)], { stdio: [...stdio], env: environment });
    const [status] = await once(child, 'exit');
    assert.equal(status, 0);
    const message = receive(right);
    assert.deepEqual([message.bytes, message.fds.length], count === 16 ? [1, 16] : [-EMSGSIZE, 0]);
    for (const fd of message.fds) native.close(fd);
  }
  assert.ok(openDescriptors() <= before);
  native.close(left);
  native.close(right);
});

test('descriptor errors are answers on the data path, exceptions elsewhere', () => {
  const file = native.createMemoryFile('no socket', 1);
  const ENOTSOCK = 88;
  assert.equal(native.acceptConnection(file), -ENOTSOCK);
  assert.equal(send(file, 'x'), -ENOTSOCK);
  assert.equal(receive(file).bytes, -ENOTSOCK);
  assert.throws(() => native.peerCredentials(file), systemError('ENOTSOCK', 'getsockopt'));
  native.close(file);
});
