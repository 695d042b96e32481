import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';
import { Patience } from './patience.ts';
import { SwapSwitch, type SwapSwitchOptions } from './swap-switch.ts';

/** A switch of which only the beginning takes place. `failure`: what the old device's host answers. */
function begin(failure?: NetbusError) {
  const calls: string[] = [];
  const call = (name: string) => () => void calls.push(name);
  const next = { warm: async () => calls.push('warm'), stop: call('stop'), forget: call('forget') };
  const target = {
    record: {},
    candidate: () => next,
    renew: async () => {
      calls.push('pause');
      return undefined;
    },
  };
  const host = (name: string, thrown?: NetbusError): Partial<CopyHost> => ({
    mark: async () => {
      calls.push(`ask ${name}`);
      if (thrown !== undefined) throw thrown;
      return null;
    },
  });
  const patience = new Patience(new ManualClock());
  const options = {
    target,
    tried: {
      generation: 1,
      old: { host: host('old', failure), attachment: 'a' },
      next: { host: host('new'), attachment: 'b' },
    },
    place: {},
    mirror: { flushAgain: call('flush'), finish: false, inStep: false },
    patience,
    converged: async () => call('converged')(),
    isStopping: () => false,
  };
  return { calls, patience, run: () => new SwapSwitch(options as unknown as SwapSwitchOptions).run() };
}

test('the guest is paused when both hosts have answered and everything that it wrote is flushed', async () => {
  const { calls, run } = begin();
  assert.deepEqual(await run(), { outcome: 'stays' });
  assert.deepEqual(calls, ['warm', 'ask old', 'ask new', 'flush', 'converged', 'pause', 'stop', 'forget']);
});

test('no guest is paused for a host that does not answer', async () => {
  const { calls, patience, run } = begin(new NetbusError('unreachable', 'm1 is away'));
  assert.deepEqual(await run(), { outcome: 'stays' });
  assert.deepEqual(calls, ['warm', 'ask old', 'ask new', 'stop', 'forget']);
  assert.equal(patience.reason, 'm1 is away');
});

test('what else is wrong with a host comes out in the steps', async () => {
  const { calls, run } = begin(new NetbusError('denied', 'not yours'));
  await run();
  assert.ok(calls.includes('pause'));
});
