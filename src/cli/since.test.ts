import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSince } from './since.ts';

const now = new Date(2030, 0, 31, 15, 30, 20).getTime();

test('spans and times', () => {
  const cases: [string, number][] = [
    ['90s', now - 90_000],
    ['15min', now - 900_000],
    ['15 m', now - 900_000],
    ['1h', now - 3_600_000],
    ['2d', now - 2 * 86_400_000],
    ['999999w', 0],
    ['14:03', new Date(2030, 0, 31, 14, 3).getTime()],
    ['14:03:12', new Date(2030, 0, 31, 14, 3, 12).getTime()],
    ['2030-01-30', new Date(2030, 0, 30).getTime()],
    ['2030-01-30 08:00', new Date(2030, 0, 30, 8).getTime()],
    ['2030-01-30T08:00:00Z', Date.UTC(2030, 0, 30, 8)],
    ['2030-01-30T08:00:00.5+02:00', Date.UTC(2030, 0, 30, 6, 0, 0, 500)],
  ];
  for (const [text, expected] of cases) assert.equal(parseSince(text, now), expected, text);
});

test('what is neither is refused', () => {
  for (const text of [
    '',
    'yesterday',
    '1y',
    '-1h',
    '1h30',
    '24:00',
    '14:60',
    '2030-13-01',
    '2030-01-31T99:00',
    '1e9',
    'constructor',
    '1toString',
  ])
    assert.throws(() => parseSince(text, now), { code: 'usage', message: /say how long ago/ }, text);
});
