import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BusyPoll } from './busy-poll.ts';
import { ManualClock } from './clock.ts';

function make(maxUs = 100) {
  const clock = new ManualClock();
  const calls: number[] = [];
  const poll = new BusyPoll({ clock, maxUs, stayAwake: (microseconds) => calls.push(microseconds) });
  /** One wait of so many microseconds; returns how long it was awake for it at most. */
  const wait = (microseconds: number): number => {
    calls.length = 0;
    poll.begin();
    clock.advance(microseconds / 1000);
    poll.end();
    return calls[0] ?? 0;
  };
  return { poll, calls, clock, wait };
}

test('the window grows to what is awaited, and stays while that comes in time', () => {
  const { wait } = make();
  assert.deepEqual([60, 60, 60, 60, 60, 60].map(wait), [12, 24, 48, 96, 96, 96]);
});

test('it never grows beyond its bound', () => {
  const { wait } = make(50);
  assert.deepEqual([49, 49, 49, 49, 49].map(wait), [12, 24, 48, 50, 50]);
});

test('what takes long ends it after a few waits, and what comes quickly begins it again', () => {
  const { wait } = make();
  for (let i = 0; i < 4; i++) wait(60);
  assert.deepEqual([5000, 5000, 5000, 5000, 5000, 5000].map(wait), [96, 48, 24, 12, 0, 0]);
  assert.deepEqual([60, 60].map(wait), [0, 12]);
});

test('it sleeps again as soon as it has what it waited for', () => {
  const { calls, wait } = make();
  wait(5);
  assert.deepEqual(calls, [12, 0]);
});

test('a wait that goes on is one wait; an end without one is nothing', () => {
  const { poll, calls } = make();
  poll.end();
  poll.begin();
  poll.begin();
  assert.deepEqual(calls, [12]);
});

test('0 turns it off', () => {
  const { wait, calls } = make(0);
  assert.deepEqual([5, 60, 5].map(wait), [0, 0, 0]);
  assert.deepEqual(calls, []);
});
