import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LatencyHistogram } from './latency-histogram.ts';

test('percentiles of known latencies', () => {
  const histogram = new LatencyHistogram();
  for (let us = 1; us <= 1000; us++) histogram.add(us / 1000);
  assert.equal(histogram.count, 1000);
  for (const percent of [1, 50, 99, 99.9]) {
    const expected = percent * 10;
    assert.ok(Math.abs(histogram.percentileUs(percent) - expected) <= expected * 0.016 + 0.1, `p${percent}`);
  }
});

test('an empty histogram has no percentiles', () => {
  assert.equal(new LatencyHistogram().percentileUs(50), 0);
});

test('every latency comes back within 1.6 % or a tenth of a microsecond, also the absurd ones', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 200_000, noNaN: true }), (milliseconds) => {
      const histogram = new LatencyHistogram();
      histogram.add(milliseconds);
      const us = milliseconds * 1000;
      return Math.abs(histogram.percentileUs(100) - us) <= us * 0.016 + 0.1;
    }),
  );
  const histogram = new LatencyHistogram();
  histogram.add(1e12);
  assert.equal(histogram.count, 1);
});

test('histograms add up and can be cleared', () => {
  const one = new LatencyHistogram();
  const other = new LatencyHistogram();
  one.add(0.01);
  other.add(1);
  one.addAll(other);
  assert.equal(one.count, 2);
  assert.ok(one.percentileUs(100) > 980);
  one.clear();
  assert.deepEqual([one.count, one.percentileUs(50)], [0, 0]);
});
