import assert from 'node:assert/strict';
import { test } from 'node:test';
import { longestGapMs } from './gaps.ts';

const times = [0, 1, 2, 12, 13, 14, 50];

test('the longest gap is one that overlaps the span', () => {
  assert.equal(longestGapMs(times, { fromMs: 1, toMs: 13 }), 10);
  assert.equal(longestGapMs(times, { fromMs: 5, toMs: 6 }), 10);
  assert.equal(longestGapMs(times, { fromMs: 20, toMs: 21 }), 36);
});

test('without two times in it there is none', () => {
  assert.equal(longestGapMs([], { fromMs: 0, toMs: 1 }), 0);
  assert.equal(longestGapMs(times, { fromMs: 60, toMs: 61 }), 0);
});
