/** VMMs that come and go, what they say, and the socket that they come to. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { clockHasTimer, pattern, TestClock, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor, withDeadline } from '../../../test/support/wait.ts';
import { NetbusError } from '../../device/errors.ts';
import { systemClock } from '../../lib/clock.ts';
import { encodeFrontendMessage, featureBits, ProtocolFeature } from '../../protocols/vhost-user/index.ts';
import { createDiskFrontend } from './disk-frontend.ts';

test('one VMM at a time: a second is sent away, and welcome when the first has gone', () =>
  withFrontend(async ({ connect, open, connections, complaints }) => {
    const first = await connect();
    const second = open();
    await withDeadline('the refusal', 5_000, second.control.closed);
    assert.match(complaints.join(), /is refused: process \d+ is connected/);
    await first.write(0, pattern(512, 0));
    first.close();
    const third = await connect();
    assert.deepEqual(await third.read(0, 512), pattern(512, 0));
    assert.deepEqual(connections, [true, false, true]);
  }));

test('a VMM that comes while the one before is being put in order waits for that', () => {
  const clock = new TestClock();
  return withFrontend(
    async ({ disk, connect, connections }) => {
      const first = await connect();
      disk.holding = true;
      const lost = first.write(0, pattern(512, 0));
      lost.catch(() => {});
      await waitFor('it is held', () => disk.device?.held === 1);
      first.close();
      const second = connect();
      await waitFor('the end to begin', () => clockHasTimer(clock));
      assert.deepEqual(connections, [true]);
      disk.holding = false;
      clock.advance(1_000);
      const vm = await second;
      await vm.read(0, 512);
      assert.deepEqual(connections, [true, false, true]);
    },
    { clock },
  );
});

test('a disk that is lost answers with errors until the guest stops using it', () =>
  withFrontend(async ({ disk, connect, complaints }) => {
    const vm = await connect();
    disk.holding = true;
    const held = vm.write(0, pattern(512, 0));
    await waitFor('it is held', () => disk.device?.held === 1);
    disk.device!.lose(new NetbusError('device', 'pulled out'));
    await assert.rejects(held, { status: 1 });
    await assert.rejects(vm.read(0, 512), { status: 1 });
    assert.match(complaints.join(), /pulled out/);
    disk.holding = false;
    await vm.restart();
    await vm.read(0, 512);
  }));

test('a disk that cannot be opened answers with errors', () =>
  withFrontend(async ({ disk, connect }) => {
    disk.openNow = 1;
    const vm = await connect();
    await assert.rejects(vm.read(0, 512), { status: 1 });
    disk.openNow = 0;
    await vm.restart();
    await vm.read(0, 512);
  }));

test('messages that were not negotiated are refused where that can be said', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect({ protocolFeatures: FRONTEND_PROTOCOL_FEATURES & ~featureBits(ProtocolFeature.inflightShmfd) });
    await assert.rejects(
      vm.control.tell({ name: 'unsupported', request: 99, payload: new Uint8Array(40) }, [], true),
      /refused/,
    );
    assert.match(complaints.join(), /message 99 was not negotiated/);
    // Without an acknowledgement they are passed over; those that the VMM waits for are answered.
    await vm.control.tell({ name: 'unsupported', request: 98, payload: new Uint8Array(0) });
    assert.equal(await vm.control.askNumber({ name: 'setLogBase', logSize: 0n, logOffset: 0n }), 0n);
    const { reply } = await vm.control.ask({
      name: 'getInflightFd',
      inflight: { mmapSize: 0, mmapOffset: 0, queues: 1, queueSize: 128 },
    });
    assert.equal(reply.name === 'getInflightFd' && reply.inflight.mmapSize, 0);
    await vm.write(0, pattern(512, 0));
  }));

test('a running ring is not set up again', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect();
    await vm.read(0, 512); // It has started.
    await assert.rejects(vm.control.tell({ name: 'setVringNum', index: 0, size: 64 }, [], true), /refused/);
    await assert.rejects(vm.control.tell({ name: 'setVringBase', index: 0, base: 9 }, [], true), /refused/);
    await assert.rejects(vm.control.tell({ name: 'setVringKick', index: 0, hasFd: false }, [], true), /refused/);
    await assert.rejects(vm.control.tell({ name: 'setVringEnable', index: 7, enabled: true }, [], true), /refused/);
    await vm.write(0, pattern(512, 0));
  }));

const endings: [string, (vm: VhostUserFrontend) => void, RegExp][] = [
  ['garbage', (vm) => vm.control.sendBytes(new Uint8Array(64).fill(0xee)), /protocol version 2/],
  [
    'an oversized message',
    (vm) => vm.control.sendBytes(Uint8Array.from([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0])),
    /65536 bytes of payload/,
  ],
  [
    'a payload that is too short',
    (vm) => vm.control.sendBytes(Uint8Array.from([2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9])),
    /only 1 bytes/,
  ],
  [
    'features that were never offered',
    (vm) => void vm.control.tell({ name: 'setFeatures', features: 1n << 26n }),
    /bits that were not offered: 0x4000000/,
  ],
  ['a ring that there is not', (vm) => void vm.control.tell({ name: 'getVringBase', index: 200 }), /no ring 200/],
  [
    'half a message',
    (vm) => {
      vm.control.sendBytes(encodeFrontendMessage({ name: 'setFeatures', features: 0n }).subarray(0, 15));
      vm.disconnect();
    },
    /in the middle of a message/,
  ],
];

for (const [name, act, pattern_] of endings) {
  test(`${name} ends that connection alone`, () =>
    withFrontend(async ({ connect, complaints, frontend }) => {
      const vm = await connect();
      act(vm);
      await waitFor('the end', () => complaints.length > 0 && !frontend.status().connected);
      assert.match(complaints.join(), pattern_);
      vm.close();
      const next = await connect();
      await next.write(0, pattern(512, 0));
    }));
}

test('a VMM that disconnects at any step of the set-up leaves nothing behind', () =>
  withFrontend(async ({ open, connect, disk }) => {
    const steps = open();
    const count = steps.handshake().length;
    steps.close();
    for (let upTo = 0; upTo <= count; upTo++) {
      const vm = open();
      for (const step of vm.handshake().slice(0, upTo)) await step.run();
      vm.close();
    }
    const vm = await connect();
    await vm.write(0, pattern(512, 0));
    assert.equal(disk.openNow, 1);
  }));

test('a VMM that connects again goes on with the same guest', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect();
    await vm.write(0, pattern(512, 1));
    await vm.reconnect();
    assert.deepEqual(await vm.read(0, 512), pattern(512, 1));
  }));

test('the socket: permissions, a stale one, a live one, no socket, a path that is too long', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netbus-frontend-'));
  const path = join(directory, 'disk0');
  const make = (at: string) =>
    createDiskFrontend({
      path: at,
      inflightPath: `${at}.inflight`,
      source: new MemoryDisk(),
      depth: 8,
      clock: systemClock,
      log: { debug() {}, info() {}, warn() {}, error() {} },
    });
  native.close(native.listenUnix(path, 0o600));
  assert.ok(existsSync(path), 'as a process that died leaves it');
  const frontend = make(path);
  assert.equal(statSync(path).mode & 0o777, 0o660);
  assert.throws(() => make(path), { code: 'in_use', message: /another process listens/ });
  await frontend.close();
  await frontend.close();
  assert.equal(existsSync(path), false);
  writeFileSync(path, '');
  assert.throws(() => make(path), { code: 'in_use', message: /is no socket/ });
  assert.throws(() => make(join(directory, 'x'.repeat(100))), { code: 'usage', message: /at most 107 bytes/ });
  assert.throws(() => make(join(directory, 'absent', 'disk0')), { code: 'not_found' });
  rmSync(directory, { recursive: true });
});
