import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { AttachmentEvents } from './attachment-events.ts';
import type { NewEvent } from './events.ts';

let clock: ManualClock;
let recorded: NewEvent[];
let events: AttachmentEvents;
beforeEach(() => {
  clock = new ManualClock();
  recorded = [];
  const place = { vm: 'web', name: 'data', host: 'm1', export: 'disk' };
  events = new AttachmentEvents(place, { record: (event) => void recorded.push(event) }, clock);
});
const texts = () => recorded.map(({ type, message }) => `${type}: ${message}`);
const since = 0;
const refused = new NetbusError('unreachable', 'm1 refused the connection');

test('a session that is lost and back: why, and how long the guest waited', () => {
  events.became({ name: 'connecting', since });
  clock.advance(12);
  events.became({ name: 'active', since, epoch: 1 });
  clock.advance(60_000);
  events.became({ name: 'connecting', since, cause: new NetbusError('unreachable', 'the connection was cut') });
  for (let i = 0; i < 5; i++) {
    clock.advance(7_000);
    events.became({ name: 'connecting', since, cause: refused });
  }
  events.became({ name: 'active', since, epoch: 2 });
  events.became({ name: 'idle' });
  assert.deepEqual(texts(), [
    'session.opened: its guest has the device (epoch 1), after 12 ms',
    'session.lost: its guest waits for the device: the connection was cut',
    'attachment.waiting: its guest waits for the device: m1 refused the connection',
    'session.reopened: its guest has the device (epoch 2), after 35 s without it',
    'session.closed: its guest uses it no more',
  ]);
  assert.deepEqual(recorded[3].details, { device: 'm1/disk', epoch: 2, waitedMs: 35_000 });
  assert.ok(recorded.every(({ subject }) => subject === 'web/data'));
});

test('a device that was never there, one that fails, and a use that is new after that', () => {
  events.became({ name: 'connecting', since });
  clock.advance(3_000);
  events.became({ name: 'connecting', since, cause: refused });
  clock.advance(3_000);
  events.became({ name: 'failed', since, cause: new NetbusError('device', 'acknowledged writes may be lost') });
  events.became({ name: 'idle' });
  events.became({ name: 'connecting', since });
  clock.advance(5);
  events.became({ name: 'active', since, epoch: 9 });
  events.became({ name: 'closed' });
  assert.deepEqual(texts(), [
    'attachment.waiting: its guest waits for the device: m1 refused the connection',
    'attachment.failed: its guest gets errors until the VM is started again: acknowledged writes may be lost',
    'session.opened: its guest has the device (epoch 9), after 5 ms',
    'session.closed: its guest uses it no more',
  ]);
});

test('the rest in words', () => {
  events.added();
  events.connection(42);
  events.connection(undefined);
  events.grown(3 * 1024 ** 3);
  events.noSocket(new NetbusError('denied', 'no permission'));
  events.removed([]);
  events.removed(['host m1 was not told']);
  assert.deepEqual(texts(), [
    'attachment.added: m1/disk is attached',
    'vmm.connected: the VMM has connected (process 42)',
    'vmm.disconnected: the VMM has gone',
    'attachment.grown: its guest sees 3 GiB now',
    'attachment.failed: it has no socket: no permission',
    'attachment.removed: m1/disk is detached',
    'attachment.removed: m1/disk is detached, by force: host m1 was not told',
  ]);
});
