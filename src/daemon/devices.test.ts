import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LinkEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import type { DeviceHost } from './device-host.ts';
import { LIST_DOWN_MS_MAX, LIST_MS_MAX, listDevices } from './devices.ts';
import type { ExportListing } from './export-entry.ts';

const listing: ExportListing = {
  name: 'data',
  class: 'disk',
  capacityBytes: 512,
  readOnly: false,
  shared: false,
  state: 'ready',
  inUseBy: ['m2:web/data'],
};
const answering = (asked: object[] = []) =>
  ({
    list: async (options: object) => {
      asked.push(options);
      return [listing];
    },
  }) as unknown as DeviceHost;
const silent = { list: () => new Promise(() => {}) } as unknown as DeviceHost;
const refusing = {
  list: () => Promise.reject(new NetbusError('unreachable', 'm5 refused the connection')),
} as unknown as DeviceHost;
const link = (host: string, more: Partial<LinkEntry> = {}): LinkEntry => {
  return { host, address: `${host}:7443`, state: 'up', since: '2026-01-01T00:00:00Z', ...more };
};

test('all hosts are asked at once, and those that are away cost their bound, not the sum', async () => {
  const clock = new ManualClock();
  const asked: object[] = [];
  const hosts = new Map([
    ['m1', answering(asked)],
    ['m2', answering(asked)],
    ['m3', silent],
    ['m4', silent],
    ['m5', refusing],
  ]);
  const seen = '2026-01-01T00:00:07Z';
  const links = [link('m1'), link('m3'), link('m4', { state: 'down', lastSeen: seen }), link('m5', { state: 'down' })];
  let answered = false;
  const answer = listDevices({ hosts, links, details: true, clock });
  void answer.then(() => {
    answered = true;
  });
  clock.advance(LIST_DOWN_MS_MAX);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(answered, false, 'a host whose link was up may take longer');
  clock.advance(LIST_MS_MAX - LIST_DOWN_MS_MAX);
  const { devices, away, warnings } = await answer;
  assert.deepEqual(asked, [{ details: true }, { details: true }]);
  const { inUseBy: usedBy, ...rest } = listing;
  assert.deepEqual(devices, [
    { host: 'm1', ...rest, usedBy, address: 'm1:7443' },
    { host: 'm2', ...rest, usedBy },
  ]);
  assert.deepEqual(away, [
    { host: 'm3', reason: 'it did not answer within 3 s', address: 'm3:7443' },
    { host: 'm4', reason: 'it did not answer within 1 s', address: 'm4:7443', lastSeen: seen },
    { host: 'm5', reason: 'm5 refused the connection', address: 'm5:7443' },
  ]);
  assert.deepEqual(warnings, [
    'm3: it did not answer within 3 s',
    'm4: it did not answer within 1 s',
    'm5: m5 refused the connection',
  ]);
});
