import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRate } from './rate.ts';

test('rates: bytes, letters of either case, fractions, and none', () => {
  for (const [text, rate] of [
    ['65536', 65_536],
    ['64K', 65_536],
    ['100M', 100 * 1024 ** 2],
    ['1.5g', 1.5 * 1024 ** 3],
    ['1T', 1024 ** 4],
    ['unlimited', 'unlimited'],
  ] as const) {
    assert.equal(parseRate(text), rate, text);
  }
});

test('what is none, too slow to end, or faster than anything', () => {
  for (const text of ['', '0', '63K', '1.1T', '2T', '100 M', '100MB', '-1M', '1e9', 'M', 'none', '9'.repeat(400)]) {
    assert.throws(() => parseRate(text), { code: 'commander.invalidArgument' }, text);
  }
});
