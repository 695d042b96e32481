import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { openNullSource } from '../backends/null/null.ts';
import { ManualClock } from '../lib/clock.ts';
import { DiskKind, DiskStatus } from './disk.ts';
import { NetbusError } from './errors.ts';
import type { DiskProfile } from './profile.ts';
import { VirtualDevice, type VirtualDeviceState } from './virtual-device.ts';

const MIB = 1024 * 1024;
const GONE = new NetbusError('unreachable', 'the host of the device is away');
const profile = openNullSource({ capacityBytes: MIB }).profile as DiskProfile;

function setUp(holdMs: number | undefined) {
  const clock = new ManualClock();
  const host = {
    reachable: true,
    devices: [] as HeldDevice[],
    end: (_cause: NetbusError) => {},
    /** The lease is granted when the test says so. */
    granting: Promise.resolve(),
    /** Nothing is answered before the test says so, not even no. */
    answering: Promise.resolve(),
  };
  const states: VirtualDeviceState[] = [];
  const virtual = new VirtualDevice({
    profile,
    depth: 16,
    holdMs,
    openSession: async (onEnded) => {
      await host.answering;
      if (!host.reachable) throw GONE;
      host.end = onEnded;
      const device = new HeldDevice(profile, 16);
      return {
        activate: async () => {
          await host.granting;
          host.devices.push(device);
          return { epoch: host.devices.length, bootId: 'boot', instance: 'one', device };
        },
        quiesced: async () => {},
        close: () => {},
      };
    },
    clock,
    onState: (state) => states.push(state),
  });
  const guest = new TestGuest(virtual.open(), new MemoryRegion(MIB), 32);
  const lose = async () => {
    host.reachable = false;
    clock.advance(1000);
    host.end(GONE);
    await settle();
  };
  const comeBack = async () => {
    host.reachable = true;
    for (let i = 0; i < 3; i++) {
      clock.advance(2000);
      await settle();
    }
  };
  return { clock, host, states, virtual, guest, lose, comeBack };
}

async function settle(): Promise<void> {
  for (let i = 0; i < 8; i++) await turn();
}

async function ask(guest: TestGuest): Promise<number> {
  guest.add({ kind: DiskKind.write, outBytes: 4096 });
  guest.pushAll();
  await guest.answered();
  return guest.answers.at(-1)!.status;
}

test('within the hold time requests wait; at its end what is kept fails, and what comes; then the device serves again', async () => {
  const { clock, host, states, virtual, guest, lose, comeBack } = setUp(60_000);
  assert.equal(await ask(guest), DiskStatus.ok);
  host.devices[0].hold();
  guest.add({ kind: DiskKind.write, outBytes: 4096 });
  guest.pushAll();
  await lose();
  guest.add({ kind: DiskKind.read, inBytes: 4096 });
  guest.pushAll();
  const lostAt = clock.wallTime();
  const waiting = virtual.state;
  assert.equal(waiting.name === 'connecting' && waiting.errorsAt, lostAt + 60_000);
  clock.advance(59_999);
  await settle();
  assert.equal(guest.answers.length, 1);
  clock.advance(1);
  await guest.answered();
  assert.deepEqual(
    guest.answers.slice(1).map(({ status }) => status),
    [DiskStatus.ioError, DiskStatus.ioError],
  );
  const failed = virtual.state;
  assert.ok(failed.name === 'failed' && failed.returns === true);
  assert.match(failed.cause.message, /hold time of 1 min is over.*is away/);
  assert.equal(await ask(guest), DiskStatus.ioError);
  await comeBack();
  assert.equal(virtual.state.name, 'active');
  assert.deepEqual(host.devices[1].taken, [], 'what failed is not sent again');
  assert.equal(await ask(guest), DiskStatus.ok);
  assert.equal(states.filter(({ name }) => name === 'failed').length, 1);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('each absence has the whole hold time', async () => {
  const { clock, guest, lose, comeBack } = setUp(10_000);
  for (let i = 0; i < 3; i++) {
    assert.equal(await ask(guest), DiskStatus.ok);
    await lose();
    clock.advance(9_000);
    await settle();
    await comeBack();
  }
  assert.equal(await ask(guest), DiskStatus.ok);
  await guest.close();
});

test('without hold time a loss is an error at once, but a guest that starts gets the device', async () => {
  const { guest, virtual, lose, comeBack } = setUp(0);
  assert.equal(await ask(guest), DiskStatus.ok);
  await lose();
  assert.equal(await ask(guest), DiskStatus.ioError);
  assert.equal(virtual.state.name, 'failed');
  await comeBack();
  assert.equal(await ask(guest), DiskStatus.ok);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('without hold time a guest that starts does not wait for a host that says nothing', async () => {
  const clock = new ManualClock();
  const virtual = new VirtualDevice({
    ...{ profile, depth: 16, holdMs: 0, clock },
    openSession: () => new Promise<never>(() => {}),
    onState: () => {},
  });
  const guest = new TestGuest(virtual.open(), new MemoryRegion(MIB), 32);
  guest.add({ kind: DiskKind.write, outBytes: 4096 });
  guest.pushAll();
  await settle();
  clock.advance(999);
  await settle();
  assert.equal(guest.answers.length, 0);
  clock.advance(1);
  await guest.answered();
  assert.equal(guest.answers[0].status, DiskStatus.ioError);
  const failed = virtual.state;
  assert.ok(failed.name === 'failed' && failed.returns === true);
  assert.match(failed.cause.message, /it has no hold time, and the device is away: its host did not answer yet/);
  await guest.close();
});

test('for ever is for ever', async () => {
  const { clock, guest, virtual, lose, comeBack } = setUp(undefined);
  await ask(guest);
  await lose();
  clock.advance(7 * 24 * 3_600_000);
  await settle();
  assert.equal(virtual.state.name, 'connecting');
  await comeBack();
  assert.equal(await ask(guest), DiskStatus.ok);
  await guest.close();
});

test('a guest that starts while the last use still waits for an answer has its own hold time, from its start', async () => {
  const { clock, host, guest, virtual, states } = setUp(1000);
  await ask(guest);
  let answer = () => {};
  host.answering = new Promise<void>((resolve) => {
    answer = resolve;
  });
  host.reachable = false;
  clock.advance(1000);
  host.end(GONE);
  await settle();
  await guest.close();
  const next = new TestGuest(virtual.open(), new MemoryRegion(MIB), 32);
  next.add({ kind: DiskKind.write, outBytes: 4096 });
  next.pushAll();
  clock.advance(999);
  await settle();
  assert.equal(next.answers.length, 0);
  clock.advance(1);
  await next.answered();
  assert.equal(next.answers[0].status, DiskStatus.ioError);
  assert.equal(virtual.state.name, 'failed');
  answer();
  await settle();
  assert.equal(states.at(-1)?.name, 'failed', 'the end of the last use says nothing of this one');
  host.reachable = true;
  for (let i = 0; i < 3; i++) {
    clock.advance(2000);
    await settle();
  }
  assert.equal(await ask(next), DiskStatus.ok);
  await next.close();
  assert.deepEqual([...guest.breaches, ...next.breaches], []);
});

test('the device comes back and is lost again before it is in place: errors go on', async () => {
  const { host, clock, guest, virtual, lose } = setUp(1000);
  await ask(guest);
  await lose();
  clock.advance(1000);
  assert.equal(await ask(guest), DiskStatus.ioError);
  let grant = () => {};
  host.granting = new Promise<void>((resolve) => {
    grant = resolve;
  });
  host.reachable = true;
  clock.advance(2000);
  await settle();
  grant();
  host.end(GONE);
  host.reachable = false;
  await settle();
  assert.equal(virtual.state.name, 'failed');
  assert.equal(await ask(guest), DiskStatus.ioError);
  await guest.close();
  await virtual.close();
  assert.deepEqual(guest.breaches, []);
});
