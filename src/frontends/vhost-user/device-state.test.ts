/** The state of the device over a descriptor of the VMM's, in both directions, with a VMM that does its part and with one that does not. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import { pattern, TestClock, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor, withDeadline } from '../../../test/support/wait.ts';
import { DeviceState, featureBits, ProtocolFeature } from '../../protocols/vhost-user/index.ts';

const ACCEPTED = { protocolFeatures: FRONTEND_PROTOCOL_FEATURES | featureBits(ProtocolFeature.deviceState) };
const STATE = Buffer.from('netbus disk state 1\n');
/** Success, and no descriptor comes back; refused. */
const [TAKEN, REFUSED] = [0x100n, 0x101n];

const withVm = (body: (vm: VhostUserFrontend, clock: TestClock, complaints: string[]) => Promise<void>) => {
  const clock = new TestClock();
  return withFrontend(
    async ({ connect, complaints }) => {
      const vm = await connect(ACCEPTED);
      await vm.write(0, pattern(512, 0));
      await vm.stopRing(0);
      await body(vm, clock, complaints);
    },
    { clock, migratable: true },
  );
};

const give = (vm: VhostUserFrontend, direction: number, fd: number, phase: number = DeviceState.stopped) =>
  vm.control.askNumber({ name: 'setDeviceStateFd', direction, phase }, [fd]);
const check = (vm: VhostUserFrontend) => vm.control.askNumber({ name: 'checkDeviceState' });

/** A pipe as a VMM makes it: Node has none of its own. */
async function withPipe(body: (ends: { read: number; write: number }) => Promise<void>): Promise<void> {
  const owner = spawn('bash', ['-c', 'exec 3< <(:); wait $!; echo ready; read -r'], { stdio: ['pipe', 'pipe', 'ignore'] });
  try {
    await withDeadline('the pipe', 10_000, once(owner.stdout, 'data'));
    const path = `/proc/${owner.pid}/fd/3`;
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const write = openSync(path, constants.O_WRONLY);
    await body({ read, write });
  } finally {
    owner.kill();
  }
}

test('saved through a pipe, up to its end, and loaded from one', () =>
  withVm(async (vm) => {
    await withPipe(async ({ read, write }) => {
      assert.equal(await give(vm, DeviceState.save, write), TAKEN);
      closeSync(write);
      assert.equal(await check(vm), 0n);
      assert.deepEqual(readFileSync(read), STATE);
      closeSync(read);
    });
    await withPipe(async ({ read, write }) => {
      assert.equal(await give(vm, DeviceState.load, read), TAKEN);
      closeSync(read);
      // The VMM asks before all of it is there.
      const checked = check(vm);
      writeSync(write, STATE.subarray(0, 7));
      await new Promise((resolve) => setImmediate(resolve));
      writeSync(write, STATE.subarray(7));
      closeSync(write);
      assert.equal(await checked, 0n);
    });
    await vm.startRing(0);
    assert.deepEqual(await vm.read(0, 512), pattern(512, 0));
  }));

for (const [what, bytes] of [
  ['another state', Buffer.from('netbus disk state 2\n')],
  ['too much', Buffer.alloc(100_000, STATE)],
  ['too little', STATE.subarray(0, 5)],
  ['nothing', Buffer.alloc(0)],
] as const) {
  test(`${what} is not loaded`, () =>
    withVm(async (vm, _clock, complaints) => {
      const [ours, theirs] = native.socketPair();
      assert.equal(await give(vm, DeviceState.load, theirs), TAKEN);
      native.close(theirs);
      if (bytes.length > 0) native.sendMessage(ours, bytes, 0, bytes.length, []);
      native.close(ours);
      assert.equal(await check(vm), 1n);
      assert.match(complaints.join(), /not transferred: it is not of a disk of Netbus/);
      await vm.config();
    }));
}

test('a pipe that nobody writes to, and one that nobody reads, hold nobody up for longer than the bound', () =>
  withVm(async (vm, clock, complaints) => {
    const [ours, theirs] = native.socketPair();
    assert.equal(await give(vm, DeviceState.load, theirs), TAKEN);
    const checked = check(vm);
    await waitFor('the question', () => {
      clock.advance(1_000);
      return complaints.length > 0;
    });
    assert.equal(await checked, 1n);
    assert.match(complaints.join(), /it took longer than 5000 ms/);
    const full = new Uint8Array(65536);
    while (native.sendMessage(theirs, full, 0, full.length, []) > 0);
    assert.equal(await give(vm, DeviceState.save, theirs), TAKEN);
    const again = check(vm);
    await waitFor('the question', () => {
      clock.advance(1_000);
      return complaints.length > 1;
    });
    assert.equal(await again, 1n);
    native.close(ours);
    native.close(theirs);
  }));

test('a reader that has gone is a failure, not the end', () =>
  withVm(async (vm) => {
    const [ours, theirs] = native.socketPair();
    native.close(ours);
    assert.equal(await give(vm, DeviceState.save, theirs), TAKEN);
    native.close(theirs);
    assert.equal(await check(vm), 1n);
  }));

test('what cannot be is refused in the answer', () =>
  withVm(async (vm, _clock, complaints) => {
    const [ours, theirs] = native.socketPair();
    assert.equal(await check(vm), 1n, 'there was no transfer');
    assert.equal(await give(vm, 7, theirs), REFUSED);
    assert.equal(await give(vm, DeviceState.save, theirs, 1), REFUSED);
    assert.equal(await give(vm, DeviceState.save, vm.memory.regions[0].fd), REFUSED);
    await vm.startRing(0);
    await vm.read(0, 512);
    assert.equal(await give(vm, DeviceState.save, theirs), REFUSED);
    native.close(ours);
    native.close(theirs);
    assert.match(complaints.join(), /no direction 7.*no phase 1.*neither pipe nor socket.*while ring 0 is running/);
    await vm.write(0, pattern(512, 0));
  }));

test('a VMM that goes in the middle of a transfer, and one that begins another', () =>
  withVm(async (vm) => {
    const [ours, theirs] = native.socketPair();
    const [others, other] = native.socketPair();
    assert.equal(await give(vm, DeviceState.load, theirs), TAKEN);
    assert.equal(await give(vm, DeviceState.save, other), TAKEN);
    assert.equal(await check(vm), 0n);
    assert.equal(await give(vm, DeviceState.load, theirs), TAKEN);
    const checked = check(vm);
    vm.disconnect();
    await assert.rejects(checked, /closed/);
    for (const fd of [ours, theirs, others, other]) native.close(fd);
  }));

test('without migration it is not offered, and both messages are answered all the same', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect(ACCEPTED);
    assert.equal(vm.negotiated.offeredProtocolFeatures & featureBits(ProtocolFeature.deviceState), 0n);
    const [ours, theirs] = native.socketPair();
    assert.equal(await give(vm, DeviceState.save, theirs), REFUSED);
    assert.equal(await check(vm), 1n);
    native.close(ours);
    native.close(theirs);
  }));
