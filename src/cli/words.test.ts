import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration } from '../lib/format.ts';
import { Progress } from './progress.ts';
import { localTime, perSecond, quantiles, shortTime, sinceWhen, span } from './words.ts';

const now = new Date(2030, 0, 31, 14, 3, 47).getTime();
const ago = (milliseconds: number) => new Date(now - milliseconds).toISOString();

test('times are local, and without the day where that is today', () => {
  assert.equal(localTime(ago(35_000)), '2030-01-31 14:03:12');
  assert.equal(shortTime(ago(35_000), now), '14:03:12');
  assert.equal(shortTime(ago(86_400_000), now), '2030-01-30 14:03:47');
  assert.equal(sinceWhen(ago(35_000), now), '14:03:12 (35 s)');
  assert.equal(span(ago(-5_000), now), '0 s', 'a clock of another host may be ahead');
  for (const odd of ['', 'never']) {
    assert.equal(localTime(odd), '-');
    assert.equal(shortTime(odd, now), '-');
    assert.equal(span(odd, now), '-');
  }
});

test('spans', () => {
  const cases: [number, string][] = [
    [0, '0 ms'],
    [999, '999 ms'],
    [1000, '1 s'],
    [3_460, '3.5 s'],
    [9_999, '10 s'],
    [59_400, '59 s'],
    [59_600, '1 min'],
    [250_000, '4 min 10 s'],
    [3_600_000, '1 h'],
    [11_100_000, '3 h 5 min'],
    [187_200_000, '2 d 4 h'],
    [172_859_000, '2 d'],
    [-5, '0 ms'],
  ];
  for (const [milliseconds, text] of cases) assert.equal(formatDuration(milliseconds), text);
});

test('rates, and nothing where there is none', () => {
  assert.equal(perSecond(1200, 4.5 * 1024 ** 2), '1200/s, 4.5 MiB/s');
  assert.equal(perSecond(2.5), '2.5/s');
  assert.equal(perSecond(0, 0), '');
  assert.equal(quantiles({ p50Ms: 0.12, p99Ms: 0.8 }), '0.12 / 0.8 ms');
  assert.equal(quantiles({}), '');
});

test('a long wait: one line that is written anew on a terminal, a line now and then in a pipe', () => {
  const written = (isTTY: boolean) => {
    const texts: string[] = [];
    const progress = new Progress({ isTTY, write: (text) => void texts.push(text) }, 'attach');
    for (let second = 0; second <= 70; second++) progress.waiting(second * 1000 + 10);
    progress.end();
    progress.end();
    return texts;
  };
  const terminal = written(true);
  assert.equal(terminal[0], '\r\x1b[Knetbus: attach: the daemon is at it, for 1 s now');
  assert.equal(terminal.length, 71);
  assert.equal(terminal.at(-1), '\r\x1b[K');
  assert.deepEqual(written(false), [
    'netbus: attach: the daemon is at it, for 15 s now\n',
    'netbus: attach: the daemon is at it, for 30 s now\n',
    'netbus: attach: the daemon is at it, for 60 s now\n',
  ]);
});
