import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { Batch, Replies } from './batch.ts';
import type { Guest } from './device.ts';
import { DiskKind } from './disk.ts';
import { DiskReplay } from './disk-replay.ts';
import { NetbusError } from './errors.ts';
import { MessageTable } from './message-table.ts';
import type { DiskProfile } from './profile.ts';
import { Slot, type SlotOwner } from './slot.ts';

const MIB = 1024 * 1024;
const NEVER = new AbortController().signal;
const GONE = new NetbusError('unreachable', 'the test took it away');

const profile: DiskProfile = {
  class: 'disk',
  capacityBytes: MIB,
  logicalBlockBytes: 512,
  physicalBlockBytes: 512,
  optimalIoBytes: 0,
  readOnly: false,
  queues: 1,
  discardAlignmentBytes: 512,
  serial: '',
  features: [],
};

/** A slot with its guest, and what its owner heard. */
function setUp(options: { depth?: number; owner?: Partial<SlotOwner> } = {}) {
  const heard: string[] = [];
  const owner: SlotOwner = {
    lost: ({ message }) => void heard.push(`lost: ${message}`),
    quiesced: async (outcome) => void heard.push(`quiesced: ${outcome}`),
    closed: async () => void heard.push('closed'),
    tookBeyond: () => void heard.push('took beyond'),
    ...options.owner,
  };
  const slot = new Slot({ profile, depth: options.depth ?? 16, owner, policy: new DiskReplay() });
  const guest = new TestGuest(slot, new MemoryRegion(MIB), 32);
  const add = (count: number) => Array.from({ length: count }, () => guest.add({ kind: DiskKind.flush }));
  return { slot, guest, heard, add };
}

/** A device that holds what it takes. */
function heldDevice(depth = 16): HeldDevice {
  const device = new HeldDevice(profile, depth);
  device.hold();
  return device;
}

test('its owner hears when more is taken than was taken elsewhere before, once; what a device is given again does not count', async () => {
  const { slot, guest, heard, add } = setUp();
  slot.tellBeyond(2);
  slot.install(heldDevice());
  add(2);
  guest.pushAll();
  await slot.remove(AbortSignal.abort());
  slot.install(heldDevice());
  assert.deepEqual(heard, []);
  add(2);
  guest.pushAll();
  assert.deepEqual(heard, ['took beyond']);
  slot.tellBeyond(3);
  assert.equal(heard.length, 2, 'it has been so already');
  await slot.close();
});

test('while there is no device the guest keeps what it has', async () => {
  const { slot, guest, add } = setUp();
  add(3);
  assert.equal(guest.pushAll(), 0);
  const device = heldDevice();
  slot.install(device);
  assert.deepEqual(device.taken, [0, 1, 2]);
  device.release();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
});

test('what a lost device did not answer goes to the next one, in order, before anything new', async () => {
  const { slot, guest, heard, add } = setUp();
  const first = heldDevice();
  slot.install(first);
  const rows = add(6);
  guest.pushAll();
  first.answer([rows[4], rows[1]]);
  first.lose(GONE);
  add(1);
  assert.equal(guest.pushAll(), 0);
  await turn();
  assert.deepEqual(heard, ['lost: the test took it away']);
  const second = heldDevice();
  slot.install(second);
  assert.deepEqual(second.taken.slice(0, 4), [rows[0], rows[2], rows[3], rows[5]]);
  assert.equal(second.taken.length, 5);
  second.release();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
});

test('a device that was replaced and is not silent reaches nobody', async () => {
  const { slot, guest, heard, add } = setUp();
  const first = heldDevice();
  let old: Guest | undefined;
  const start = first.start.bind(first);
  first.start = (inner) => {
    old = inner;
    start(inner);
  };
  slot.install(first);
  const rows = add(2);
  guest.pushAll();
  slot.deviceLost(GONE);
  await turn();
  const second = heldDevice();
  slot.install(second);
  const replies = new Replies(4);
  replies.add(rows[0], 0, 0);
  old?.reply(replies);
  old?.ready();
  old?.lost(GONE);
  const events = new Batch(new MessageTable(1));
  events.add(0);
  assert.equal(old?.push(events), 1);
  assert.deepEqual([guest.answers, guest.events, heard.length, slot.held], [[], [], 1, 2]);
  second.release();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
});

test('a shallow device gets the rest of the replay when it has room', async () => {
  const { slot, guest, add } = setUp();
  const first = heldDevice();
  slot.install(first);
  const rows = add(5);
  guest.pushAll();
  first.lose(GONE);
  await turn();
  const second = heldDevice(2);
  slot.install(second);
  assert.deepEqual(second.taken, rows.slice(0, 2));
  second.answer([rows[0]]);
  assert.deepEqual(second.taken, rows.slice(1, 3));
  second.release();
  await guest.answered();
  assert.deepEqual(guest.answers.map(({ row }) => row).sort(), rows);
});

test('remove takes a device out when it is quiet, or cuts it, and another one goes on', async () => {
  const { slot, guest, add } = setUp();
  const first = heldDevice();
  slot.install(first);
  const rows = add(4);
  guest.pushAll();
  const removing = slot.remove(NEVER);
  add(1);
  guest.pushAll();
  first.release();
  await removing;
  assert.deepEqual([first.closed, slot.held, guest.waiting.count], [true, 0, 1]);
  const second = heldDevice();
  slot.install(second);
  assert.equal(second.taken.length, 1);
  await slot.remove(AbortSignal.abort());
  const third = heldDevice();
  slot.install(third);
  assert.deepEqual(third.taken, second.taken);
  third.release();
  await guest.answered();
  assert.equal(guest.answers.length, rows.length + 1);
  assert.deepEqual(guest.breaches, []);
});

test('nothing goes in while a device is still on its way out', async () => {
  const { slot, guest, add, heard } = setUp();
  const first = new HeldDevice(profile, 16, { lateMemory: true });
  first.hold();
  slot.install(first);
  add(2);
  guest.pushAll();
  first.lose(GONE);
  const early = heldDevice();
  slot.install(early);
  await turn();
  assert.deepEqual([early.closed, heard], [true, []]);
  first.release();
  await turn();
  assert.deepEqual(heard, ['lost: the test took it away']);
});

test('quiesce while holding waits for a device, and is a cut at its bound', async () => {
  const { slot, guest, heard, add } = setUp();
  const first = heldDevice();
  slot.install(first);
  const rows = add(3);
  guest.pushAll();
  first.lose(GONE);
  await turn();
  const bound = new AbortController();
  const quiescing = guest.quiesce(bound.signal);
  await turn();
  bound.abort();
  assert.deepEqual(await quiescing, { outcome: 'cut', unfinished: rows });
  assert.deepEqual(heard, ['lost: the test took it away', 'quiesced: cut']);
});

test('quiesce while the device is lost and replaced is clean', async () => {
  const { slot, guest, add } = setUp();
  const first = heldDevice();
  slot.install(first);
  add(3);
  guest.pushAll();
  const quiescing = slot.quiesce(NEVER);
  first.lose(GONE);
  await turn();
  const second = heldDevice();
  slot.install(second);
  second.release();
  assert.deepEqual(await quiescing, { outcome: 'clean' });
  assert.equal(guest.lent.size, 0);
});

test('after a clean quiesce the device is closed before the owner hears of it, and no other one gets in', async () => {
  let closedBefore = false;
  const device = heldDevice();
  const { slot, heard } = setUp({
    owner: {
      quiesced: async () => {
        closedBefore = device.closed;
      },
    },
  });
  slot.install(device);
  assert.deepEqual(await slot.quiesce(NEVER), { outcome: 'clean' });
  assert.equal(closedBefore, true);
  slot.deviceLost(GONE);
  const late = heldDevice();
  slot.install(late);
  await turn();
  assert.deepEqual([late.closed, heard], [true, []]);
  await slot.close();
});

test('close while a device is being removed silences and closes it', async () => {
  const { slot, guest, add } = setUp();
  const device = heldDevice();
  slot.install(device);
  add(2);
  guest.pushAll();
  const removing = slot.remove(NEVER);
  await guest.close();
  assert.equal(device.closed, true);
  device.release();
  await removing;
  await guest.silence();
  assert.deepEqual(guest.breaches, []);
});

test('takes no more than its depth, whatever the device can', async () => {
  const { slot, guest, add } = setUp({ depth: 3 });
  const device = heldDevice();
  slot.install(device);
  const rows = add(5);
  assert.equal(guest.pushAll(), 3);
  device.answer([rows[1]]);
  assert.deepEqual(device.taken, [rows[0], rows[2], rows[3]]);
  device.release();
  await guest.answered();
  assert.deepEqual(guest.breaches, []);
});

/** What can happen to a slot. */
const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('push' as const), count: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const), count: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('lose' as const, 'remove' as const), count: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('install' as const), count: fc.integer({ min: 1, max: 8 }) }) },
);

test('over random schedules each device sees what is unanswered in the order of the guest, and every request is answered once', async () => {
  const property = fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
    const { slot, guest, add } = setUp({ depth: 8 });
    /** The model: requests that were taken and not answered, oldest first. */
    let unanswered: number[] = [];
    let device: HeldDevice | undefined;
    const install = async (depth: number) => {
      if (device !== undefined) return;
      device = heldDevice(depth);
      slot.install(device);
      unanswered = [...guest.lent];
      // Its room first for what is unanswered.
      assert.deepEqual(device.taken, unanswered.slice(0, depth));
    };
    for (const { do: what, count } of actions) {
      switch (what) {
        case 'push':
          if (guest.rowsFree >= count) add(count);
          if (guest.waiting.count > 0) guest.pushAll();
          break;
        case 'answer':
          if (device !== undefined) device.answer(device.taken.slice(0, count).reverse());
          break;
        case 'lose':
          device?.lose(GONE);
          device = undefined;
          await turn();
          break;
        case 'remove':
          await slot.remove(AbortSignal.abort());
          device = undefined;
          break;
        case 'install':
          await install(count);
      }
      assert.deepEqual(device?.taken ?? [], [...guest.lent].slice(0, device?.taken.length ?? 0), what);
      assert.ok(slot.held <= 8);
      assert.equal(slot.held, guest.lent.size);
    }
    await install(8);
    device?.release();
    await guest.answered();
    assert.deepEqual(guest.breaches, []);
    await guest.close();
  });
  await fc.assert(property, { numRuns: 200 });
});
