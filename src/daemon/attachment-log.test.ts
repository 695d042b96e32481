import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Device } from '../device/device.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import type { AttachmentEvents } from './attachment-events.ts';
import { AttachmentLog } from './attachment-log.ts';

import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

const BOUND_BYTES = 16 * 1024 * 1024;

/** What becomes of unflushed writes when the device's host is another one at the second grant, without a flush between the two. */
async function forgets(guestBefore: VirtualDeviceRecord['guest']): Promise<unknown> {
  const folder = mkdtempSync(join(tmpdir(), 'nb-log-'));
  const value = { vm: 'web', name: 'data', attachment: 'a', guest: guestBefore };
  const log = new AttachmentLog({
    record: { value } as StoredRecord<VirtualDeviceRecord>,
    path: join(folder, 'data.log'),
    boundBytes: BOUND_BYTES,
    bootId: 'here',
    clock: new ManualClock(),
    log: silentLog,
    onWhole: () => {},
    askKeptPage: () => assert.fail('no guest comes'),
    allocate: () => assert.fail('no guest comes'),
    events: { logSent: () => {}, logTrouble: () => {} } as unknown as AttachmentEvents,
  });
  try {
    value.guest = { process: 'second', left: 'unknown', device: null };
    let bootId = 'one';
    const device = {} as Device;
    const open = log.wrap(async () => ({
      activate: async () => ({ epoch: 1, bootId, instance: 'i', device }),
      quiesced: async () => {},
      close: () => {},
    }));
    assert.equal((await (await open(() => {})).activate()).unflushed, 'kept');
    bootId = 'two';
    return (await (await open(() => {})).activate()).unflushed;
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
