import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from './index.ts';
import { nextTurn } from './testing.ts';

test('an awake loop serves what comes, and ends by itself', async () => {
  const event = native.createEvent();
  let events = 0;
  const watch = native.watch(event, { readable: true, writable: false }, () => {
    native.drainEvent(event);
    events++;
  });
  native.busyPoll(1000);
  native.signalEvent(event);
  while (events === 0) await nextTurn();
  native.busyPoll(0);
  native.busyPoll(1);
  native.unwatch(watch);
  native.close(event);
  // The test's process ends only when nothing is active any more.
  assert.equal(events, 1);
});

test('a bound that only a bug can ask for throws', () => {
  assert.throws(() => native.busyPoll(1001), RangeError);
  assert.throws(() => native.busyPoll(0.5), RangeError);
});
