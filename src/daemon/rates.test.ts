import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskStatistics, DURATION_BOUNDS_SECONDS, diskOperations } from '../frontends/vhost-user/disk-statistics.ts';
import { ManualClock } from '../lib/clock.ts';
import { quantileMs, Rates } from './rates.ts';

const READ = diskOperations.indexOf('read');
const WRITE = diskOperations.indexOf('write');
const FLUSH = diskOperations.indexOf('flush');

test('rates are those of the last seconds, and not of before', () => {
  const clock = new ManualClock();
  const statistics = new DiskStatistics();
  const key = { statistics };
  const rates = new Rates(clock, () => [key]);
  for (let i = 0; i < 1000; i++) statistics.record(READ, 4096, false, 0.0001);
  assert.equal(rates.of(key), undefined, 'one look is no rate');
  clock.advance(60_000);
  for (let second = 0; second < 10; second++) {
    clock.advance(1000);
    for (let i = 0; i < 100; i++) statistics.record(READ, 4096, false, 0.0002);
    for (let i = 0; i < 20; i++) statistics.record(WRITE, 8192, i === 0, 0.002);
    statistics.record(FLUSH, 0, false, 0.03);
  }
  const { seconds, read, write, other } = rates.of(key)!;
  assert.equal(seconds, 10);
  assert.equal(read.requestsPerSecond, 100);
  assert.equal(read.bytesPerSecond, 409_600);
  assert.ok(read.p50Ms! > 0.1 && read.p50Ms! <= 0.25);
  assert.deepEqual([write.requestsPerSecond, write.bytesPerSecond, write.errorsPerSecond], [20, 19 * 8192, 1]);
  assert.ok(write.p99Ms! > 1 && write.p99Ms! <= 2.5);
  assert.equal(other.requestsPerSecond, 1);
  clock.advance(60_000);
  assert.deepEqual(rates.of(key)!.read, { requestsPerSecond: 0, bytesPerSecond: 0, errorsPerSecond: 0 });
  rates.close();
});

test('a counter that begins anew is another series, and one that is gone is forgotten', () => {
  const clock = new ManualClock();
  const key = { statistics: new DiskStatistics() as DiskStatistics | undefined };
  const keys = [key];
  const rates = new Rates(clock, () => keys);
  for (let i = 0; i < 1000; i++) key.statistics!.record(READ, 4096, false, 0.001);
  clock.advance(4_000);
  key.statistics = new DiskStatistics();
  assert.equal(rates.of(key), undefined);
  clock.advance(4_000);
  assert.equal(rates.of(key)!.read.requestsPerSecond, 0, 'never negative');
  key.statistics = undefined;
  clock.advance(4_000);
  assert.equal(rates.of(key), undefined);
  keys.pop();
  clock.advance(4_000);
  assert.equal(rates.of(key), undefined);
  rates.close();
});

test('quantiles of a histogram', () => {
  const buckets = new Float64Array(DURATION_BOUNDS_SECONDS.length + 1);
  buckets[5] = 100; // 0.5 to 1 ms
  assert.equal(quantileMs(buckets, 100, 0.5), 0.75);
  assert.equal(quantileMs(buckets, 100, 0.99), 0.995);
  buckets[buckets.length - 1] = 100;
  assert.equal(quantileMs(buckets, 200, 0.99), 10_000, 'above the last bound nothing more is known');
});
