import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Device } from '../device/device.ts';
import { NetbusError } from '../device/errors.ts';
import type { Grant } from '../device/source.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import type { AttachmentEvents } from './attachment-events.ts';
import { AttachmentLog } from './attachment-log.ts';

import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

const BOUND_BYTES = 16 * 1024 * 1024;

/** What becomes of unflushed writes when the device's host is another one at the second grant, without a flush between the two. */
async function forgets(guestBefore: VirtualDeviceRecord['guest']): Promise<unknown> {
  return withLog(guestBefore, async ({ grants, activate }) => {
    await activate();
    grants.bootId = 'two';
    return (await activate()).unflushed;
  });
}

/** The log of a guest, under grants that are as the test says. */
async function withLog<T>(
  guestBefore: VirtualDeviceRecord['guest'],
  use: (given: {
    grants: { epoch: number; bootId: string };
    activate: () => Promise<Grant>;
    leave: () => Promise<void>;
    log: AttachmentLog;
    whole: number[];
  }) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'nb-log-'));
  const value = { vm: 'web', name: 'data', attachment: 'a', guest: guestBefore };
  const grants = { epoch: 1, bootId: 'one' };
  const whole: number[] = [];
  const log = new AttachmentLog({
    record: { value } as StoredRecord<VirtualDeviceRecord>,
    path: join(folder, 'data.log'),
    boundBytes: BOUND_BYTES,
    bootId: 'here',
    clock: new ManualClock(),
    log: silentLog,
    onWhole: () => whole.push(grants.epoch),
    askKeptPage: () => assert.fail('no guest comes'),
    allocate: () => assert.fail('no guest comes'),
    events: { logSent: () => {}, logTrouble: () => {} } as unknown as AttachmentEvents,
  });
  try {
    value.guest = { process: 'second', left: 'unknown', device: null };
    const device = {} as Device;
    const open = log.wrap(async () => ({
      activate: async () => ({ ...grants, instance: 'i', device }),
      quiesced: async () => {},
      close: () => {},
    }));
    const activate = async () => (await open(() => {})).activate();
    const leave = async () => (await open(() => {})).quiesced('unchanged');
    return await use({ grants, activate, leave, log, whole });
  } finally {
    log.remove();
    rmSync(folder, { recursive: true });
  }
}

test('the log of the first guest has everything from the start', async () => {
  assert.equal(await forgets(null), 'kept');
});

test('the log of a later guest does not have what the one before left unflushed, and says so', async () => {
  assert.ok((await forgets({ process: 'first', left: 'unknown', device: null })) instanceof NetbusError);
});

test('a guest that left unchanged and was elsewhere has a log of its own when it comes once more', async () => {
  await withLog(null, async ({ grants, activate, leave, log, whole }) => {
    await activate();
    assert.deepEqual([log.content.isWhole, whole], [true, [1]]);
    await leave();
    grants.epoch = 2;
    await activate();
    assert.deepEqual([log.content.isWhole, whole], [true, [1, 2]], 'nobody else was granted the device in between');
    await leave();
    grants.epoch = 4;
    await activate();
    assert.deepEqual([log.content.isWhole, whole], [false, [1, 2]]);
  });
});
