import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LinkEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { DeviceHost } from './device-host.ts';
import { checkFence, fenceHost } from './fence.ts';

const asked: string[] = [];
const host = (name: string, fence: () => Promise<readonly string[]>): [string, DeviceHost] => [
  name,
  {
    fence: (dead: string) => {
      asked.push(`${name}: ${dead}`);
      return fence();
    },
  } as unknown as DeviceHost,
];
const hosts = new Map([
  host('m1', async () => ['m2:web/data']),
  host('m2', async () => ['m2:own/disk']),
  host('m3', async () => []),
  host('m4', async () => {
    throw new NetbusError('unreachable', 'm4 does not answer');
  }),
]);
const links = [{ host: 'm2', state: 'up' }] as LinkEntry[];
const options = { own: 'm1', hosts, links };

test('all hosts but the dead one are asked, and each is told of', async () => {
  assert.deepEqual(await fenceHost('m2', options), {
    host: 'm2',
    fenced: [{ by: 'm1', attachments: ['m2:web/data'] }],
    untold: [{ host: 'm4', reason: 'm4 does not answer' }],
  });
  assert.deepEqual(asked, ['m1: m2', 'm3: m2', 'm4: m2']);
});

test('a host that answers is told to do so, and one that cannot be dead or is none is refused', async () => {
  assert.deepEqual(checkFence('m2', options), { host: 'm2', answers: true });
  assert.deepEqual(checkFence('m3', options), { host: 'm3', answers: false });
  assert.throws(() => checkFence('m1', options), { code: 'usage', message: /m1 is this one, and it is alive/ });
  await assert.rejects(fenceHost('m9', options), { code: 'not_found', message: /the members are m1, m2, m3, m4/ });
});
