import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { native } from './index.ts';
import { ADDON_PATH, NO_DESCRIPTOR, nextTurn, openDescriptors, systemError, until } from './testing.ts';

const READABLE = { readable: true, writable: false };
const WRITABLE = { readable: false, writable: true };
const NOTHING = { readable: false, writable: false };

/** Runs a script that has `native` in a process of its own. */
function run(script: string) {
  const text = `const native = require(${JSON.stringify(ADDON_PATH)});${script}`;
  return spawnSync(process.execPath, ['-e', text], { encoding: 'utf8', timeout: 180_000 });
}

test('a watch reports readiness, again and again until it is taken', { timeout: 180_000 }, async () => {
  const event = native.createEvent();
  let calls = 0;
  const watch = native.watch(event, READABLE, (error, readable, writable) => {
    assert.deepEqual([error, readable, writable], [0, true, false]);
    if (++calls === 3) native.drainEvent(event);
  });
  await nextTurn();
  assert.equal(calls, 0);
  native.signalEvent(event);
  await until(() => calls === 3);
  for (let turn = 0; turn < 5; turn++) await nextTurn();
  assert.equal(calls, 3);
  native.unwatch(watch);
  native.close(event);
});

test('rewatch changes what is waited for', { timeout: 180_000 }, async () => {
  const [left, right] = native.socketPair();
  const seen: string[] = [];
  const watch = native.watch(left, NOTHING, (_error, readable, writable) => {
    seen.push(`${readable ? 'r' : ''}${writable ? 'w' : ''}`);
    native.rewatch(watch, NOTHING);
  });
  native.sendMessage(right, Buffer.from('x'), 0, 1, []);
  for (let turn = 0; turn < 5; turn++) await nextTurn();
  assert.deepEqual(seen, []);
  native.rewatch(watch, WRITABLE);
  await until(() => seen.length === 1);
  native.rewatch(watch, READABLE);
  await until(() => seen.length === 2);
  native.rewatch(watch, { readable: true, writable: true });
  await until(() => seen.length === 3);
  assert.deepEqual(seen, ['w', 'r', 'rw']);
  native.unwatch(watch);
  native.close(left);
  native.close(right);
});

/** A new event with this very number, or undefined where another thread has it; lower numbers may have become free meanwhile. */
function eventNumbered(wanted: number): number | undefined {
  const made = [native.createEvent()];
  while (made[made.length - 1] < wanted) made.push(native.createEvent());
  const last = made.pop()!;
  made.forEach(native.close);
  if (last === wanted) return last;
  native.close(last);
  return undefined;
}

test('unwatch within the callback, close right after, and the same number watched anew', { timeout: 180_000 }, async () => {
  for (let round = 0; round < 20; ) {
    const event = native.createEvent();
    native.signalEvent(event);
    let calls = 0;
    const watch = native.watch(event, READABLE, () => {
      calls++;
      native.unwatch(watch);
      native.unwatch(watch);
      native.close(event);
    });
    await until(() => calls === 1);
    const next = eventNumbered(event);
    // A thread of Node's own was quicker to take the number.
    if (next === undefined) continue;
    round++;
    let nextCalls = 0;
    const nextWatch = native.watch(next, READABLE, () => {
      nextCalls++;
      native.drainEvent(next);
    });
    assert.notEqual(nextWatch, watch);
    native.unwatch(watch);
    native.signalEvent(next);
    await until(() => nextCalls === 1);
    assert.equal(calls, 1);
    native.unwatch(nextWatch);
    native.close(next);
  }
});

test('one watch may end another that is ready in the same turn', { timeout: 180_000 }, async () => {
  const events = [native.createEvent(), native.createEvent()];
  let calls = 0;
  const watches = events.map((event) =>
    native.watch(event, READABLE, () => {
      calls++;
      watches.forEach(native.unwatch);
      events.forEach(native.close);
    }),
  );
  events.forEach(native.signalEvent);
  await until(() => calls > 0);
  for (let turn = 0; turn < 5; turn++) await nextTurn();
  assert.equal(calls, 1);
});

test('a second watch of a descriptor is EEXIST, also where the first waits for nothing', () => {
  const event = native.createEvent();
  const watch = native.watch(event, NOTHING, () => {});
  assert.throws(() => native.watch(event, READABLE, () => {}), systemError('EEXIST', 'uv_poll'));
  native.unwatch(watch);
  native.unwatch(native.watch(event, READABLE, () => {}));
  native.close(event);
});

test('what cannot be watched throws', () => {
  const event = native.createEvent();
  const file = native.createMemoryFile('file', 1);
  assert.throws(() => native.watch(file, READABLE, () => {}), systemError('EPERM', 'uv_poll'));
  assert.throws(() => native.watch(event, {} as typeof READABLE, () => {}), TypeError);
  assert.throws(() => native.watch(event, READABLE, 1 as unknown as () => void), TypeError);
  assert.throws(() => native.rewatch(12345, READABLE), RangeError);
  assert.equal(native.unwatch(12345), undefined);
  native.close(event);
  native.close(file);
  assert.throws(() => native.watch(NO_DESCRIPTOR, READABLE, () => {}), systemError('EBADF', 'uv_poll'));
});

test('the end of the peer is readable; an error is the one of the socket', { timeout: 180_000 }, async () => {
  const [left, right] = native.socketPair();
  let ended = false;
  const watch = native.watch(left, READABLE, (error, readable) => {
    ended = error === 0 && readable && native.receiveMessage(left, Buffer.alloc(1), 0, 1).bytes === 0;
    native.unwatch(watch);
  });
  native.close(right);
  await until(() => ended);
  native.close(left);

  // unix(7): closing with unread data resets the peer.
  const [near, far] = native.socketPair();
  native.sendMessage(near, Buffer.from('unread'), 0, 6, []);
  const errors: number[] = [];
  const failing = native.watch(near, NOTHING, (error) => errors.push(error));
  native.close(far);
  native.rewatch(failing, READABLE);
  await until(() => errors.length > 0);
  assert.deepEqual(errors, [-104]);
  native.unwatch(failing);
  native.close(near);
});

test('microtasks run after each callback, and asynchronous context is not mixed up', { timeout: 180_000 }, async () => {
  const events = [native.createEvent(), native.createEvent()];
  const order: string[] = [];
  const storage = new AsyncLocalStorage<string>();
  const watches = events.map((event, index) =>
    storage.run('outer', () =>
      native.watch(event, READABLE, () => {
        native.drainEvent(event);
        order.push(`call ${storage.getStore()}`);
        queueMicrotask(() => order.push('microtask'));
        process.nextTick(() => order.push(`tick ${index === -1}`));
      }),
    ),
  );
  events.forEach(native.signalEvent);
  await until(() => order.length === 6);
  assert.deepEqual(order.slice(0, 3), order.slice(3));
  assert.equal(order[0], 'call undefined');
  watches.forEach(native.unwatch);
  events.forEach(native.close);
});

test('what a callback throws is an uncaught exception, and the watch goes on', () => {
  const handled = run(`
    process.on('uncaughtException', (error) => console.log('caught', error.message));
    const event = native.createEvent();
    native.signalEvent(event);
    let calls = 0;
    const watch = native.watch(event, { readable: true, writable: false }, () => {
      if (++calls === 2) native.unwatch(watch);
      throw new Error('call ' + calls);
    });`);
  assert.equal(handled.stdout, 'caught call 1\ncaught call 2\n');
  assert.equal(handled.status, 0);

  const unhandled = run(`
    const event = native.createEvent();
    native.signalEvent(event);
    native.watch(event, { readable: true, writable: false }, () => { throw new Error('of the callback'); });`);
  assert.match(unhandled.stderr, /of the callback/);
  assert.equal(unhandled.status, 1);
});

test('a watch keeps the process alive until it ends, also while it waits for nothing', () => {
  const alive = run(`
    const event = native.createEvent();
    const watch = native.watch(event, { readable: false, writable: false }, () => {});
    setTimeout(() => console.log('alive'), 20).unref();
    setTimeout(() => native.unwatch(watch), 60).unref();
    process.on('exit', () => console.log('exit'));`);
  assert.equal(alive.stdout, 'alive\nexit\n');
  assert.equal(alive.status, 0);
});

test('no descriptor is left', { timeout: 180_000 }, async () => {
  const before = openDescriptors();
  for (let count = 0; count < 100; count++) {
    const event = native.createEvent();
    native.unwatch(native.watch(event, READABLE, () => {}));
    native.close(event);
  }
  await nextTurn();
  assert.ok(openDescriptors() <= before);
});
