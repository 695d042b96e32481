import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import type { Grant } from '../device/source.ts';
import { silentLog } from '../lib/log.ts';
import { BroughtHandOver } from './brought-hand-over.ts';
import type { DeviceHost, PresentRequest } from './device-host.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

const signed = { text: 't', signature: 's', certificates: 'c' };
const IN_USE = new NetbusError('in_use', 'host m2 holds the lease');

describe('a hand-over that the last host of a guest brought', () => {
  let record: { value: Partial<VirtualDeviceRecord>; change(change: (value: object) => object): Promise<void> };
  let brought: BroughtHandOver;
  let shown: PresentRequest[];
  let held: NetbusError | undefined;
  let refusal: NetbusError | undefined;
  let asked: number;

  beforeEach(() => {
    [shown, held, refusal, asked] = [[], IN_USE, undefined, 0];
    record = {
      value: { vm: 'web', name: 'data', attachment: 'a', arriving: true, from: 'm2' },
      change: async (change) => {
        record.value = change(record.value);
      },
    };
    const deviceHost = {
      present: async (request: PresentRequest) => {
        shown.push(request);
        if (refusal !== undefined) throw refusal;
        held = undefined;
      },
    };
    brought = new BroughtHandOver({
      record: record as unknown as StoredRecord<VirtualDeviceRecord>,
      deviceHost: deviceHost as unknown as DeviceHost,
      log: silentLog,
    });
  });

  const activate = async () => {
    const open = brought.wrap(async () => ({
      activate: async () => {
        asked++;
        if (held !== undefined) throw held;
        return { epoch: 7 } as Grant;
      },
      quiesced: async () => {},
      close: () => {},
    }));
    return (await open(() => {})).activate();
  };

  test('is taken from the host that the guest comes from alone, and while it is expected', async () => {
    await assert.rejects(brought.keep('m4', signed), { code: 'denied', message: 'web/data is not expected from host m4' });
    await brought.keep('m2', signed);
    assert.deepEqual(record.value.signed, signed);
    await brought.keep('m2', null);
    assert.equal('signed' in record.value, false);
    record.value = { ...record.value, arriving: undefined };
    await assert.rejects(brought.keep('m2', signed), { code: 'denied' });
  });

  test('is shown where that host still has the lease', async () => {
    await brought.keep('m2', signed);
    assert.equal((await activate()).epoch, 7);
    assert.deepEqual([shown, asked], [[{ attachment: 'a', signed }], 2]);
  });

  test('is not shown where there is none, or no need', async () => {
    await assert.rejects(activate(), IN_USE);
    await brought.keep('m2', signed);
    held = new NetbusError('unreachable', 'away');
    await assert.rejects(activate(), held);
    held = undefined;
    await activate();
    assert.deepEqual(shown, []);
  });

  test('that is void is forgotten; any other refusal is told, and it is shown again', async () => {
    await brought.keep('m2', signed);
    for (const code of ['denied', 'unreachable', 'device'] as const) {
      refusal = new NetbusError(code, 'no');
      await assert.rejects(activate(), refusal);
    }
    assert.deepEqual([shown.length, record.value.signed], [3, signed]);
    refusal = new NetbusError('ended', 'another epoch');
    await assert.rejects(activate(), IN_USE);
    await assert.rejects(activate(), IN_USE);
    assert.deepEqual([shown.length, record.value.signed], [4, undefined]);
  });
});
