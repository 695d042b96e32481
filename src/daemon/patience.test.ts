import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { Patience } from './patience.ts';

test('whoever asks for long leaves nothing behind, and ends with the daemon', async () => {
  const clock = new ManualClock();
  const patience = new Patience(clock);
  let asked = 0;
  const asking = patience.persist(async () => {
    asked++;
    throw new NetbusError('unreachable', 'away');
  });
  const ended = assert.rejects(asking, { code: 'ended' });
  while (asked < 30) {
    clock.advance(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(patience.reason, 'away');
  assert.ok(getEventListeners(patience.ending, 'abort').length <= 1);
  patience.end();
  await ended;
  await assert.rejects(patience.pause(1), { code: 'ended' });
  assert.equal(getEventListeners(patience.ending, 'abort').length, 0);
});
