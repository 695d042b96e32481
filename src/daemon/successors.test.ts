import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { Successors } from './successors.ts';

const left: HandOver = { queues: [] };
const signed = { text: 't', signature: 's', certificates: 'c' };

describe('the hosts that expect a guest', () => {
  let clock: ManualClock;
  let successors: Successors;
  let over: AbortController;
  let put: string[];
  let sent: string[];
  let failure: NetbusError | undefined;

  beforeEach(() => {
    clock = new ManualClock();
    over = new AbortController();
    [put, sent, failure] = [[], [], undefined];
    successors = new Successors({
      attachment: 'a',
      peers: {
        sign: (stated) => {
          assert.deepEqual(stated, { attachment: 'a', epoch: 4, left });
          return signed;
        },
        put: async (host, attachment, given) => {
          assert.equal(attachment, 'a');
          put.push(given === null ? `not ${host}` : host);
          if (failure !== undefined) throw failure;
        },
      },
      onSent: (host) => sent.push(host),
      clock,
      log: silentLog,
    });
  });
  const send = async () => {
    successors.send({ epoch: 4, left }, over.signal);
    await turn();
  };
  const pass = async (milliseconds: number) => {
    clock.advance(milliseconds);
    await turn();
  };

  test('are given what it left, those that come later, too, and no longer once it is over', async () => {
    for (const host of ['m2', 'm3', 'm2']) successors.expected(host);
    successors.unexpected('m2');
    await send();
    assert.deepEqual(put, ['m3']);
    successors.expected('m4');
    await turn();
    assert.deepEqual(sent, ['m3', 'm4']);
    over.abort();
    await turn();
    assert.deepEqual(put.splice(0), ['m3', 'm4', 'not m3', 'not m4']);
    successors.expected('m5');
    await turn();
    assert.deepEqual(put, []);
    over = new AbortController();
    await send();
    assert.deepEqual(put, ['m5']);
  });

  test('are asked again while they do not answer, and not where they refuse', async () => {
    successors.expected('m2');
    failure = new NetbusError('unreachable', 'away');
    await send();
    await pass(1_000);
    assert.deepEqual([put.length, sent], [2, []]);
    failure = undefined;
    await pass(1_000);
    await pass(10_000);
    assert.deepEqual([put.length, sent], [3, ['m2']]);
    failure = new NetbusError('denied', 'not here');
    successors.expected('m3');
    await turn();
    await pass(10_000);
    assert.equal(put.length, 4);
  });

  test('are not asked again once it is over, or they expect it no longer', async () => {
    failure = new NetbusError('timeout', 'away');
    for (const host of ['m2', 'm3']) successors.expected(host);
    await send();
    successors.unexpected('m2');
    await pass(1_000);
    assert.deepEqual(put.splice(0), ['m2', 'm3', 'm3']);
    over.abort();
    await pass(10_000);
    assert.deepEqual(put, ['not m3']);
  });

  test('keep what they have when the daemon ends', async () => {
    successors.expected('m2');
    await send();
    successors.close();
    over.abort();
    await pass(10_000);
    assert.deepEqual(put, ['m2']);
  });

  test('are few: whoever said it first is forgotten', async () => {
    for (let i = 0; i < 9; i++) successors.expected(`m${i}`);
    await send();
    assert.deepEqual(put, ['m5', 'm6', 'm7', 'm8']);
  });
});
