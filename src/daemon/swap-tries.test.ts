import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CopyMark } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';
import { SwapTries, type SwapTriesOptions } from './swap-tries.ts';

const to = { host: 'm3', export: 'data' };

/** Begins a swap from m1 to m3 whose first call fails with `code`, and `mark` is what that host has then. Returns what that host was asked for. */
async function begin(code: 'unreachable' | 'timeout' | 'denied', mark: CopyMark | NetbusError | null): Promise<string[]> {
  const calls: string[] = [];
  const copies: Partial<CopyHost> = {
    begin: async () => {
      calls.push('begin');
      throw new NetbusError(code, 'no answer');
    },
    mark: async () => {
      calls.push('mark');
      if (mark instanceof NetbusError) throw mark;
      return mark;
    },
    abort: async (_, generation) => {
      calls.push(`abort ${generation}`);
      return { decided: false };
    },
  };
  const options = {
    record: { value: { to } },
    attachment: () => ({ record: { host: 'm1', export: 'data', attachment: 'a' } }),
    deviceHost: () => ({ copies }),
  };
  await assert.rejects(new SwapTries(options as unknown as SwapTriesOptions).begin(false), { code });
  return calls;
}

test('what was marked although its answer was lost is taken back', async () => {
  const mark: CopyMark = { state: 'copied', generation: 4, to };
  assert.deepEqual(await begin('unreachable', mark), ['begin', 'mark', 'abort 4']);
  assert.deepEqual(await begin('timeout', mark), ['begin', 'mark', 'abort 4']);
});

test('what is not its own is left alone', async () => {
  const other: CopyMark = { state: 'copied', generation: 4, to: { host: 'm2', export: 'data' } };
  assert.deepEqual(await begin('unreachable', other), ['begin', 'mark']);
  assert.deepEqual(await begin('unreachable', null), ['begin', 'mark']);
  assert.deepEqual(await begin('unreachable', new NetbusError('unreachable', 'still away')), ['begin', 'mark']);
  assert.deepEqual(await begin('denied', null), ['begin']);
});
