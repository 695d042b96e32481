import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { GONE, Host } from '../../test/support/scripted-host.ts';
import { ManualClock } from '../lib/clock.ts';
import type { NetbusError } from './errors.ts';
import { ReadySession } from './ready-session.ts';

function setUp() {
  const host = new Host();
  const clock = new ManualClock();
  const troubles: (string | undefined)[] = [];
  const ready = new ReadySession({
    open: host.openSession,
    clock,
    onTrouble: (cause) => troubles.push(cause?.message),
  });
  return { host, clock, troubles, ready };
}

test('the session that stands ready is the one that is given, and its end is told to whoever has it', async () => {
  const { host, clock, ready } = setUp();
  ready.keep();
  await turn();
  assert.equal(host.sessions.length, 1);
  const ended: NetbusError[] = [];
  assert.equal(await ready.open((cause) => ended.push(cause)), host.last);
  host.last.end(GONE);
  clock.advance(10_000);
  await turn();
  assert.deepEqual(ended, [GONE]);
  assert.equal(host.sessions.length, 1);
  await ready.open(() => {});
  assert.equal(host.sessions.length, 2);
});

test('one that ends before it is needed is opened again, and what is in the way is told', async () => {
  const { host, clock, troubles, ready } = setUp();
  ready.keep();
  ready.keep();
  await turn();
  host.reachable = false;
  host.last.end(GONE);
  await turn();
  clock.advance(1_000);
  await turn();
  assert.deepEqual(troubles, [undefined, GONE.message, GONE.message]);
  host.reachable = true;
  clock.advance(1_000);
  await turn();
  assert.equal(troubles.at(-1), undefined);
  assert.equal(host.sessions.length, 2);
  ready.stop();
  assert.deepEqual(host.last.calls, ['close']);
  clock.advance(10_000);
  await turn();
  assert.equal(host.sessions.length, 2);
});

test('stopped while it is being opened: it is closed when it comes', async () => {
  const { host, ready } = setUp();
  host.holdOpening = true;
  ready.keep();
  await turn();
  ready.stop();
  host.last.goOn();
  await turn();
  assert.deepEqual(host.last.calls, ['close']);
});
