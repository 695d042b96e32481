import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import type { DeviceHost, Whereabouts } from './device-host.ts';
import { GuestPlace } from './guest-place.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

const HERE: Whereabouts = { host: 'm1', holder: null, epoch: 1, settled: false };

function setUp(options: { arriving?: true; waitsForFlush?: boolean } = {}) {
  const clock = new ManualClock();
  const world = {
    where: HERE as Whereabouts | NetbusError,
    epoch: 7 as number | undefined,
    isOver: false,
    unprepared: 0,
    settled: [] as [string, number][],
    /** Is answered when the test says so. */
    answer: Promise.resolve(),
    settledHere: 0,
    moved: 0,
    fenced: [] as string[],
    opened: 0,
    closed: 0,
  };
  const record = {
    value: { attachment: 'a', guest: { process: '1', left: 'nothing', device: null }, ...options } as unknown,
    change: async (change: (value: VirtualDeviceRecord) => VirtualDeviceRecord) => {
      record.value = change(record.value as VirtualDeviceRecord);
    },
  };
  const deviceHost = {
    whereabouts: async () => {
      if (world.where instanceof NetbusError) throw world.where;
      return world.where;
    },
    unprepare: async () => {
      world.unprepared++;
      world.where = { ...(world.where as Whereabouts), previous: undefined, settled: true };
    },
    settled: async (attachment: string, epoch: number) => {
      if (world.where instanceof NetbusError) throw world.where;
      world.settled.push([attachment, epoch]);
      await world.answer;
    },
  } as unknown as DeviceHost;
  const passage = new GuestPlace({
    host: 'm1',
    record: record as unknown as StoredRecord<VirtualDeviceRecord>,
    deviceHost,
    open: async () => {
      world.opened++;
      return {
        activate: () => assert.fail('nobody asks for it'),
        quiesced: async () => {},
        close: () => void world.closed++,
      };
    },
    epoch: () => world.epoch,
    waitsForFlush: options.waitsForFlush ?? false,
    isOver: () => world.isOver,
    onSettled: () => void world.settledHere++,
    onMoved: async () => void world.moved++,
    onFenced: (reason) => void world.fenced.push(reason),
    clock,
    log: silentLog,
  });
  const pass = async (milliseconds: number) => {
    clock.advance(milliseconds);
    for (let i = 0; i < 5; i++) await turn();
  };
  return { world, record, passage, pass };
}

test('a guest that went elsewhere: what was left stays until it is made good there', async () => {
  const { world, passage, pass } = setUp();
  passage.vmm(true);
  world.where = { ...HERE, standby: 'm2' };
  passage.vmm(false);
  await pass(0);
  assert.equal(passage.place, undefined);
  world.where = { ...HERE, host: 'm2' };
  await pass(1_000);
  assert.equal(passage.place, 'moved');
  world.where = new NetbusError('unreachable', 'm3 is away');
  await pass(1_000);
  assert.deepEqual([passage.place, passage.trouble], ['moved', 'm3 is away']);
  world.where = { ...HERE, host: 'm2', settled: true };
  await pass(5_000);
  assert.equal(world.moved, 1);
});

test('a guest that is expected elsewhere and does not go there stays', async () => {
  const { world, passage, pass } = setUp();
  world.where = { ...HERE, standby: 'm2' };
  passage.opened();
  await pass(0);
  world.where = HERE;
  await pass(1_000);
  world.where = { ...HERE, host: 'm2', settled: true };
  await pass(100_000);
  assert.deepEqual([world.moved, passage.place], [0, undefined]);
});

test('it is not looked for while a VMM is connected, nor after the end, nor where it is nobody of ours', async () => {
  const { world, passage, pass } = setUp();
  world.where = { ...HERE, host: 'm2', settled: true };
  passage.vmm(false);
  passage.vmm(true);
  await pass(10_000);
  passage.vmm(false);
  world.where = new NetbusError('not_found', 'no such attachment');
  await pass(0);
  world.where = { ...HERE, host: 'm2', settled: true };
  await pass(100_000);
  passage.vmm(false);
  passage.close();
  await pass(100_000);
  assert.equal(world.moved, 0);
});

test('a guest that came: all know it when what it left is noted here and flushed, and it has taken something', async () => {
  const { world, record, passage, pass } = setUp({ arriving: true, waitsForFlush: true });
  world.where = { ...HERE, previous: 'm2' };
  assert.equal(passage.place, 'standby');
  passage.vmm(true);
  passage.arrived();
  passage.taken();
  await pass(0);
  assert.deepEqual(world.settled, []);
  world.epoch = undefined;
  passage.madeGood();
  await pass(0);
  assert.match(passage.trouble!, /away/);
  world.epoch = 8;
  await pass(1_000);
  assert.deepEqual(world.settled, [['a', 8]]);
  assert.equal(world.settledHere, 1);
  assert.equal((record.value as VirtualDeviceRecord).arriving, undefined);
  passage.madeGood();
  await pass(10_000);
  assert.equal(world.settled.length, 1);
});

test('a host that was fenced keeps that in mind, and looks no more', async () => {
  const { world, passage, pass } = setUp();
  world.where = new NetbusError('fenced', 'the device was taken from host m1');
  passage.opened();
  await pass(0);
  world.where = { ...HERE, host: 'm2', settled: true };
  await pass(100_000);
  assert.deepEqual([world.fenced, world.moved], [['the device was taken from host m1'], 0]);
});

test('without a write log there is no flush to wait for', async () => {
  const { world, passage, pass } = setUp({ arriving: true });
  world.where = { ...HERE, previous: 'm2' };
  passage.vmm(true);
  passage.arrived();
  passage.taken();
  await pass(0);
  assert.equal(world.settledHere, 1);
});

test('a guest that takes nothing may go back, for however long, until nobody is left there for it', async () => {
  const { world, passage, pass } = setUp({ arriving: true });
  world.where = { ...HERE, previous: 'm2' };
  passage.vmm(true);
  passage.arrived();
  for (let i = 0; i < 100; i++) await pass(1_000);
  assert.equal(world.settledHere, 0);
  assert.equal(await passage.isHere(), true);
  world.where = HERE;
  await pass(1_000);
  assert.equal(world.settledHere, 1);
});

test('a guest that left unchanged and comes once more: what it brings then has to be noted and flushed anew', async () => {
  const { world, record, passage, pass } = setUp({ arriving: true, waitsForFlush: true });
  world.where = { ...HERE, previous: 'm2' };
  passage.vmm(true);
  passage.arrived();
  passage.madeGood();
  await passage.left('unchanged');
  assert.equal((record.value as VirtualDeviceRecord).arriving, true);
  passage.arrived();
  passage.taken();
  await pass(10_000);
  assert.equal(world.settledHere, 0);
  passage.madeGood();
  await pass(0);
  assert.equal(world.settledHere, 1);
});

test('the guest is one that stays before the device’s host is told so: an answer that is lost leaves none that goes back', async () => {
  const { world, record, passage, pass } = setUp({ arriving: true });
  world.answer = Promise.reject(new NetbusError('unreachable', 'm3 is away'));
  world.answer.catch(() => undefined);
  passage.vmm(true);
  passage.arrived();
  passage.taken();
  await pass(0);
  assert.deepEqual([world.settled.length, world.settledHere], [1, 1]);
  assert.equal((record.value as VirtualDeviceRecord).arriving, true);
  world.answer = Promise.resolve();
  await pass(1_000);
  assert.equal(world.settled.length, 2);
  assert.equal((record.value as VirtualDeviceRecord).arriving, undefined);
});

test('a guest that is here for good, and the device’s host does not know it: it is told once more, after the flush', async () => {
  const { world, passage, pass } = setUp({ waitsForFlush: true });
  passage.vmm(true);
  passage.untold();
  await pass(1_000);
  assert.deepEqual(world.settled, []);
  passage.madeGood();
  await pass(1_000);
  assert.deepEqual(world.settled, [['a', 7]]);
  passage.madeGood();
  await pass(10_000);
  assert.equal(world.settled.length, 1);
});

test('a guest that goes while the device’s host is told that it stays, which fails: it is looked for all the same', async () => {
  const { world, passage, pass } = setUp({ arriving: true });
  let fail = () => {};
  world.answer = new Promise((_, reject) => {
    fail = () => reject(new NetbusError('unreachable', 'm3 is away'));
  });
  passage.vmm(true);
  passage.arrived();
  passage.taken();
  await pass(0);
  passage.vmm(false);
  await pass(0);
  fail();
  world.where = { ...HERE, host: 'm2', settled: true };
  await pass(0);
  assert.equal(world.moved, 0);
  await pass(1_000);
  assert.equal(world.moved, 1);
});

test('a host that was left unchanged learns that the VM went on to a third one', async () => {
  const { world, passage, pass } = setUp({ arriving: true });
  passage.vmm(true);
  world.where = { ...HERE, host: 'm2', standby: 'm1' };
  passage.vmm(false);
  await pass(0);
  assert.equal(await passage.isHere(), false);
  await pass(100_000);
  assert.deepEqual([world.moved, passage.place, world.unprepared], [0, 'standby', 0]);
  world.where = { ...HERE, host: 'm3', settled: true };
  await pass(5_000);
  assert.equal(world.moved, 1);
});

test('the way back is given up where its VMM has ended, and only then', async () => {
  const { world, passage, pass } = setUp();
  passage.vmm(true);
  world.where = { ...HERE, host: 'm2', previous: 'm1' };
  passage.vmm(false);
  await pass(0);
  await pass(1_000);
  assert.deepEqual([world.moved, world.unprepared], [0, 0]);
  world.isOver = true;
  await pass(1_000);
  assert.deepEqual([world.moved, world.unprepared], [1, 1]);
});

test('a session stands ready while the VMM that waits for the guest is connected', async () => {
  const { world, passage, pass } = setUp({ arriving: true });
  passage.opened();
  await pass(0);
  assert.equal(world.opened, 0);
  passage.vmm(true);
  await pass(0);
  assert.equal(world.opened, 1);
  passage.vmm(false);
  await pass(0);
  assert.equal(world.closed, 1);
});

test('a guest that left again, having taken something, is no longer expected', async () => {
  const { record, passage } = setUp({ arriving: true });
  await passage.left('for good');
  assert.equal((record.value as VirtualDeviceRecord).arriving, undefined);
});
