import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskStatistics, DURATION_BOUNDS_SECONDS, diskOperations } from './disk-statistics.ts';

test('requests are counted where they belong', () => {
  const statistics = new DiskStatistics();
  const [read, write] = [diskOperations.indexOf('read'), diskOperations.indexOf('write')];
  statistics.record(read, 4096, false, 0.00005);
  statistics.record(read, 4096, true, 0.000051);
  statistics.record(write, 512, false, 100);
  assert.deepEqual(statistics.counters().read, { requests: 2, bytes: 4096, errors: 1 });
  assert.deepEqual(statistics.counters().write, { requests: 1, bytes: 512, errors: 0 });
  const reads = statistics.durationsOf('read');
  assert.equal(reads[DURATION_BOUNDS_SECONDS.indexOf(0.00005)], 1, 'a bound is inside its bucket');
  assert.equal(reads[DURATION_BOUNDS_SECONDS.indexOf(0.0001)], 1);
  assert.equal(statistics.durationsOf('write').at(-1), 1);
  assert.equal(statistics.durationSums[write], 100);
});
