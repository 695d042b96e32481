import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject } from '../bus/control-link.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { type Caller, describeHost, probeMembers } from './probe.ts';

const TARGETS = new Map([
  ['m2', { host: '10.0.0.2', port: 7443 }],
  ['m3', { host: 'fd00::3', port: 80 }],
]);

/** `answers` by host; each call takes `halfMs` on the way there and on the way back. */
function caller(clock: ManualClock, halfMs: number, answers: Record<string, () => Promise<object>>): Caller {
  return {
    async call(host, method): Promise<JsonObject> {
      assert.equal(method, 'host.describe');
      clock.advance(halfMs);
      const answer = (await answers[host]()) as JsonObject;
      clock.advance(halfMs);
      return answer;
    },
  };
}

test("the other clock is compared with the middle of the round trip, and not with the time that the link's making took", async () => {
  const clock = new ManualClock();
  const there = new ManualClock();
  there.advance(90_000);
  let calls = 0;
  const answers = {
    m2: async () => {
      // The first call also opens the link.
      if (calls++ === 0) clock.advance(700);
      there.advance(clock.now() + 90_000 - there.now());
      return describeHost('1.2.3', there)();
    },
  };
  const [probe] = await probeMembers(caller(clock, 20, answers), new Map([...TARGETS].slice(0, 1)), clock);
  assert.deepEqual(probe, {
    host: 'm2',
    address: '10.0.0.2:7443',
    reachable: true,
    release: '1.2.3',
    roundTripMs: 40,
    clockAheadMs: 90_000,
  });
});

test('a host that is away is told with its reason and holds up no other; a release that does not know the question is there', async () => {
  const clock = new ManualClock();
  const answers = {
    m2: () => Promise.reject(new NetbusError('unreachable', 'm2 refused')),
    m3: () => Promise.reject(new NetbusError('not_found', 'there is no method host.describe')),
  };
  assert.deepEqual(await probeMembers(caller(clock, 1, answers), TARGETS, clock), [
    { host: 'm2', address: '10.0.0.2:7443', reachable: false, error: { code: 'unreachable', message: 'm2 refused' } },
    { host: 'm3', address: '[fd00::3]:80', reachable: true },
  ]);
});

test('an answer that is something else', async () => {
  const clock = new ManualClock();
  for (const answer of [{}, { release: 'x'.repeat(65), wallTime: 1 }, { release: '1', wallTime: 'now' }]) {
    const [probe] = await probeMembers(caller(clock, 1, { m2: async () => answer, m3: async () => answer }), TARGETS, clock);
    assert.equal(probe.error?.code, 'protocol');
  }
});
