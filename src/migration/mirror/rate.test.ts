import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../../lib/clock.ts';
import { Rate } from './rate.ts';

test('bytes wait for the bound, which may be changed at any time', () => {
  const clock = new ManualClock();
  const rate = new Rate(clock, 1000);
  clock.advance(1_000);
  rate.take(100);
  assert.equal(rate.waitMs, 0);
  rate.take(500);
  assert.equal(rate.waitMs, 500);
  clock.advance(200);
  assert.equal(rate.waitMs, 300);
  rate.limit = undefined;
  assert.equal(rate.waitMs, 0);
  rate.limit = 2000;
  rate.take(400);
  assert.equal(rate.waitMs, 200);
});

test('the speed is that of the last seconds', () => {
  const clock = new ManualClock();
  const rate = new Rate(clock, undefined);
  for (let i = 0; i < 100; i++) {
    clock.advance(100);
    rate.done(1000);
  }
  assert.ok(Math.abs(rate.bytesPerSecond - 10_000) < 1_500, String(rate.bytesPerSecond));
  clock.advance(60_000);
  assert.equal(rate.bytesPerSecond, 0);
});
