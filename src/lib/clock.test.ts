import assert from 'node:assert/strict';
import { test } from 'node:test';
import { within } from './abort.ts';
import { abortAfter, ManualClock } from './clock.ts';

test('a manual clock calls back in order of time, and a cancelled one never', () => {
  const clock = new ManualClock();
  const calls: string[] = [];
  clock.after(20, () => calls.push('second'));
  clock.after(10, () => {
    calls.push(`first at ${clock.now()}`);
    clock.after(5, () => calls.push(`inner at ${clock.now()}`));
  });
  const cancel = clock.after(12, () => calls.push('never'));
  cancel();
  clock.advance(19);
  assert.deepEqual(calls, ['first at 10', 'inner at 15']);
  clock.advance(1);
  assert.equal(calls[2], 'second');
});

test('abortAfter aborts in time, unless it is cancelled', () => {
  const clock = new ManualClock();
  const first = abortAfter(clock, 10);
  const second = abortAfter(clock, 10);
  second.cancel();
  clock.advance(10);
  assert.deepEqual([first.signal.aborted, second.signal.aborted], [true, false]);
});

test('within waits for the work or the bound, whichever comes first', async () => {
  const bound = new AbortController();
  await within(bound.signal, Promise.resolve());
  await assert.rejects(within(bound.signal, Promise.reject(new Error('failed'))), /failed/);
  const waiting = within(bound.signal, new Promise<void>(() => {}));
  bound.abort();
  await waiting;
  await within(bound.signal, new Promise<void>(() => {}));
});
