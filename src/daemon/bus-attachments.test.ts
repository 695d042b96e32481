import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ATTACHMENT, DEVICES } from '../../test/support/answers.ts';
import type { Devices, ExportUser } from '../api/types.ts';
import { busAttachments } from './bus-attachments.ts';

const user: ExportUser = { host: 'm2', vm: 'web', name: 'data', epoch: 3, active: true, state: 'active', standby: 'm3' };

function devicesWith(...users: ExportUser[]): Devices {
  const [device] = DEVICES.devices;
  const details = { allow: [], allowCount: 0, since: '2030-01-01T00:00:00Z', users };
  return {
    ...DEVICES,
    devices: [
      { ...device, details },
      { ...device, name: 'without' },
    ],
  };
}

test('a row for each user of each device, in the order of their names', () => {
  const { attachments } = busAttachments(devicesWith(user, { ...user, vm: 'db' }), [], 'm2');
  assert.deepEqual(
    attachments.map(({ vm }) => vm),
    ['db', 'web'],
  );
  assert.deepEqual(attachments[1], {
    ...{ vm: 'web', name: 'data', host: 'm2', device: 'm1/data', state: 'active', epoch: 3, standby: 'm3' },
  });
});

test('a host of an older release says less, and that is shown', () => {
  const { state: _, standby: __, ...old } = user;
  const { attachments } = busAttachments(devicesWith(old, { ...old, vm: 'x', active: false }), [], 'm2');
  assert.deepEqual(
    attachments.map(({ state }) => state),
    ['active', 'idle'],
  );
});

test('what this host has of hosts that do not answer is there, and nobody knows how it is', () => {
  const own = [ATTACHMENT, { ...ATTACHMENT, vm: 'far', device: 'm3/disk' }];
  const { attachments, away, warnings } = busAttachments(devicesWith(user), own, 'm2');
  assert.deepEqual(attachments[0], { vm: 'far', name: 'data', host: 'm2', device: 'm3/disk', state: 'unknown' });
  assert.equal(attachments.length, 2);
  assert.deepEqual([away, warnings], [DEVICES.away, DEVICES.warnings]);
});
