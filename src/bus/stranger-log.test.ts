import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestLog } from '../../test/support/bus-host.ts';
import { ManualClock } from '../lib/clock.ts';
import { STRANGER_LINES_MAX, STRANGER_WINDOW_MS, StrangerLog } from './stranger-log.ts';

test('strangers get so many lines a minute, and their number is told later', () => {
  const log = new TestLog();
  const clock = new ManualClock();
  const strangers = new StrangerLog(log, clock);
  for (let i = 0; i < STRANGER_LINES_MAX + 25; i++) strangers.warn('192.0.2.1:5', 'it spoke HTTP');
  assert.equal(log.lines.length, STRANGER_LINES_MAX);
  assert.equal(log.lines[0], 'warn: the connection from 192.0.2.1:5 was refused: it spoke HTTP');
  clock.advance(STRANGER_WINDOW_MS);
  strangers.warn('192.0.2.1:6', 'it did not speak TLS');
  assert.deepEqual(log.lines.slice(STRANGER_LINES_MAX), [
    'warn: 25 more connections were refused and not logged',
    'warn: the connection from 192.0.2.1:6 was refused: it did not speak TLS',
  ]);
});
