import assert from 'node:assert/strict';
import { fstatSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { native } from './index.ts';
import { NO_DESCRIPTOR, openDescriptors, systemError } from './testing.ts';

const EAGAIN = 11;
const EBADF = 9;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

function flagsOf(fd: number): number {
  return Number.parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]!, 8);
}

test('a duplicate is the same open file, close-on-exec', () => {
  const fd = native.createMemoryFile('first', 10);
  const copy = native.duplicate(fd);
  native.close(fd);
  assert.equal(fstatSync(copy).size, 10);
  assert.ok(flagsOf(copy) & O_CLOEXEC);
  native.close(copy);
  assert.throws(() => native.close(NO_DESCRIPTOR), systemError('EBADF', 'close'));
  assert.throws(() => native.duplicate(NO_DESCRIPTOR), systemError('EBADF', 'fcntl'));
});

test('a memory file has its name and its length', () => {
  const fd = native.createMemoryFile('netbus-test', 12345);
  assert.equal(fstatSync(fd).size, 12345);
  assert.match(readlinkSync(`/proc/self/fd/${fd}`), /memfd:netbus-test/);
  assert.ok(flagsOf(fd) & O_CLOEXEC);
  native.close(fd);
  assert.throws(() => native.createMemoryFile('x'.repeat(250), 1), systemError('ENAMETOOLONG', 'memfd_create'));
  assert.throws(() => native.createMemoryFile('a\0b', 1), RangeError);
  assert.throws(() => native.createMemoryFile('x', -1), RangeError);
  assert.throws(() => native.createMemoryFile(1 as unknown as string, 1), TypeError);
});

test('an event counts its signals until it is drained', () => {
  const event = native.createEvent();
  assert.equal(flagsOf(event) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK);
  assert.equal(native.drainEvent(event), 0);
  for (let count = 0; count < 3; count++) assert.equal(native.signalEvent(event), 0);
  assert.equal(native.drainEvent(event), 3);
  assert.equal(native.drainEvent(event), 0);
  // eventfd(2): the counter's largest value is 2^64 - 2; one more would wrap.
  writeSync(event, new BigUint64Array([2n ** 64n - 2n]));
  assert.equal(native.signalEvent(event), -EAGAIN);
  assert.equal(native.drainEvent(event), 2 ** 64);
  native.close(event);
  assert.equal(native.signalEvent(NO_DESCRIPTOR), -EBADF);
  assert.equal(native.drainEvent(NO_DESCRIPTOR), -EBADF);
});

test('what is no event and no descriptor is an error', () => {
  const file = native.createMemoryFile('no event', 0);
  assert.equal(native.drainEvent(file), 0);
  native.close(file);
  assert.throws(() => native.signalEvent(-1), RangeError);
  assert.throws(() => native.signalEvent(2 ** 31), RangeError);
  assert.throws(() => native.signalEvent(undefined as unknown as number), TypeError);
  assert.throws(() => (native.signalEvent as () => number)(), TypeError);
});

test('setNonBlocking sets O_NONBLOCK and keeps the other flags', () => {
  const fd = native.createMemoryFile('flags', 1);
  const before = flagsOf(fd);
  assert.equal(before & O_NONBLOCK, 0);
  native.setNonBlocking(fd);
  assert.equal(flagsOf(fd), before | O_NONBLOCK);
  native.close(fd);
  assert.throws(() => native.setNonBlocking(NO_DESCRIPTOR), systemError('EBADF', 'fcntl'));
});

test('no descriptor is left', () => {
  const before = openDescriptors();
  for (let count = 0; count < 50; count++) {
    const fd = native.createEvent();
    native.close(native.duplicate(fd));
    native.close(fd);
  }
  assert.ok(openDescriptors() <= before);
});
