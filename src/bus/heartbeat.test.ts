import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ManualClock } from '../lib/clock.ts';
import { Heartbeat } from './heartbeat.ts';

function start() {
  const clock = new ManualClock();
  const told: string[] = [];
  const heartbeat = new Heartbeat(clock, {
    idle: () => told.push(`idle at ${clock.now()}`),
    silent: () => told.push(`silent at ${clock.now()}`),
  });
  heartbeat.start();
  return { clock, told, heartbeat };
}

test('says something after 5 s of saying nothing, and no sooner', () => {
  const { clock, told, heartbeat } = start();
  clock.advance(4_000);
  heartbeat.sent();
  heartbeat.received();
  clock.advance(4_999);
  assert.deepEqual(told, []);
  clock.advance(1);
  assert.deepEqual(told, ['idle at 9000']);
});

test('a peer that is heard is not silent, however long', () => {
  const { clock, told, heartbeat } = start();
  for (let i = 0; i < 100; i++) {
    clock.advance(10_000);
    heartbeat.received();
  }
  assert.equal(told.filter((line) => line.startsWith('silent')).length, 0);
});

test('15 s without a word are a cut, told once', async () => {
  const { clock, told } = start();
  clock.advance(15_000);
  assert.deepEqual(told, ['idle at 5000', 'idle at 10000']);
  await turn();
  await turn();
  assert.deepEqual(told, ['idle at 5000', 'idle at 10000', 'silent at 15000']);
  clock.advance(60_000);
  await turn();
  assert.equal(told.length, 3);
});

test('what had arrived while this process stood still is heard before the peer is called silent', async () => {
  const { clock, told, heartbeat } = start();
  clock.advance(20_000);
  // The event loop reads the sockets before it comes back.
  heartbeat.received();
  await turn();
  await turn();
  assert.equal(told.filter((line) => line.startsWith('silent')).length, 0);
});

test('stops', async () => {
  const { clock, told, heartbeat } = start();
  heartbeat.stop();
  clock.advance(60_000);
  await turn();
  assert.deepEqual(told, []);
});
