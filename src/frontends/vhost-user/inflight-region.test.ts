/**
 * The in-flight region through the frontend's socket. A frontend that is cut off from its disk and replaced stands for a process that was killed:
 * the next one has the socket, the region that the VMM kept, and the record, which says `unknown`.
 */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readFileSync, statSync, truncateSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import type { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { type DiskBench, pattern, TestClock, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { DiskKind } from '../../device/disk.ts';
import { featureBits, type InflightRegion, ProtocolFeature } from '../../protocols/vhost-user/index.ts';

const WITHOUT_REGION = FRONTEND_PROTOCOL_FEATURES & ~featureBits(ProtocolFeature.inflightShmfd);

function withKills(
  body: (bench: DiskBench) => Promise<void>,
  options: { disk?: MemoryDisk; depth?: number } = {},
): Promise<void> {
  return withFrontend(body, { ...options, clock: new TestClock() });
}

/** The process ends with what the disk holds; nobody answers the guest any more. */
async function kill({ disk, restart }: DiskBench, vm: VhostUserFrontend): Promise<void> {
  vm.disconnect();
  await restart({ left: 'unknown' });
  disk.seen.length = 0;
  disk.holding = false;
  disk.device = undefined;
}

/** Places of the requests that the disk has seen, in sectors. */
const sectors = ({ disk }: DiskBench) => disk.seen.map(({ argument }) => argument / 512);

async function hold({ disk }: DiskBench, count: number): Promise<void> {
  await waitFor(`${count} requests to be held`, () => disk.device?.held === count);
}

for (const indirect of [true, false]) {
  test(`what was in flight goes again after a kill, once, in order, before what is new (indirect ${indirect})`, () =>
    withKills(async (bench) => {
      const vm = await bench.connect({ reconnects: true, indirect, segmentBytes: 512 });
      bench.disk.holding = true;
      const work = [0, 10, 20, 30, 40, 50].map((sector) => vm.write(sector, pattern(1536, sector)));
      await hold(bench, 6);
      // The used index alone would have the first two forgotten, and these two repeated.
      for (const i of [5, 4]) {
        bench.disk.device!.releaseLast();
        await work[i];
      }
      await kill(bench, vm);
      const later = vm.write(60, pattern(1536, 60));
      await vm.reconnect();
      await Promise.all([...work, later]);
      assert.deepEqual(sectors(bench), [0, 10, 20, 30, 60]);
      for (const sector of [0, 10, 20, 30, 40, 50, 60]) assert.deepEqual(await vm.read(sector, 1536), pattern(1536, sector));
      assert.equal(bench.frontend.status().tracked, true);
      assert.deepEqual(
        bench.complaints.filter((line) => !line.includes('the virtual device is closed')),
        [],
      );
    }));
}

test('every kind of request goes again', () =>
  withKills(async (bench) => {
    const { disk } = bench;
    const vm = await bench.connect({ reconnects: true });
    disk.storage.fill(7);
    disk.holding = true;
    const zeroes = vm.writeZeroes({ sector: 8, sectors: 8, unmap: true });
    const discard = vm.discard({ sector: 16, sectors: 8 });
    const read = vm.read(24, 512);
    const flush = vm.flush();
    await hold(bench, 4);
    await kill(bench, vm);
    await vm.reconnect();
    await Promise.all([zeroes, discard, flush]);
    assert.deepEqual(
      disk.seen.map(({ kind }) => kind),
      [DiskKind.writeZeroes, DiskKind.discard, DiskKind.read, DiskKind.flush],
    );
    assert.deepEqual(await read, new Uint8Array(512).fill(7));
    assert.equal(disk.storage[8 * 512], 0);
    assert.equal(await vm.getId(), 'netbus-test');
  }));

test('again and again, on several queues, with fewer rows than requests', () =>
  withKills(
    async (bench) => {
      const vm = await bench.connect({ reconnects: true, queues: 2, queueSize: 32 });
      const work: Promise<void>[] = [];
      bench.disk.holding = true;
      for (let kills = 0; kills < 4; kills++) {
        for (let i = 0; i < 12; i++) work.push(vm.write(work.length, pattern(512, work.length), { queue: i % 2 }));
        await hold(bench, 8);
        const answered = bench.disk.seen.length;
        for (let i = 1; i <= 3; i++) {
          bench.disk.device!.releaseLast();
          await waitFor('the next to be taken', () => bench.disk.seen.length === answered + i);
        }
        await kill(bench, vm);
        bench.disk.holding = true;
        await vm.reconnect();
      }
      await hold(bench, 8);
      bench.disk.holding = false;
      bench.disk.device!.release();
      await Promise.all(work);
      for (let i = 0; i < work.length; i++) assert.deepEqual(await vm.read(i, 512), pattern(512, i));
      assert.equal(bench.frontend.status().inFlight, 0);
    },
    { depth: 8 },
  ));

test('an answer that was put and not called is seen after a kill', () =>
  withKills(async (bench) => {
    const vm = await bench.connect({ reconnects: true });
    await vm.write(0, pattern(512, 1));
    bench.disk.holding = true;
    const work = vm.write(1, pattern(512, 1));
    await hold(bench, 1);
    // A call that never came: it went into a descriptor that nobody listens to.
    const elsewhere = native.createEvent();
    await vm.control.tell({ name: 'setVringCall', index: 0, hasFd: true }, [elsewhere], true);
    native.close(elsewhere);
    bench.disk.device!.release();
    await waitFor('the answer', () => bench.frontend.status().inFlight === 0);
    await kill(bench, vm);
    await vm.reconnect();
    await work;
    assert.deepEqual(sectors(bench), []);
  }));

test('a VM that is paused at the bound of a stop goes on from the region on the same connection', () => {
  const clock = new TestClock();
  return withFrontend(
    async (bench) => {
      const vm = await bench.connect();
      bench.disk.holding = true;
      const work = [0, 1, 2].map((i) => vm.write(i, pattern(512, i)));
      await hold(bench, 3);
      const stop = vm.stopRing(0);
      await waitFor('the stop to begin', () => clock.waiting > 0);
      clock.advance(10_000);
      assert.equal(await stop, 3);
      bench.disk.seen.length = 0;
      bench.disk.holding = false;
      const { region, fd } = vm.negotiated.inflight!;
      await vm.control.tell({ name: 'setInflightFd', inflight: region }, [fd], true);
      // QEMU knows no better after a stop that failed.
      await vm.startRing(0, 0);
      await Promise.all(work);
      assert.deepEqual(sectors(bench), [0, 1, 2]);
    },
    { clock },
  );
});

test("a reset is told apart from a kill: what was in flight is nobody's", () =>
  withKills(async (bench) => {
    const vm = await bench.connect({ reconnects: true });
    await vm.write(5, pattern(512, 5));
    bench.disk.holding = true;
    const lost = vm.write(0, pattern(512, 9));
    lost.catch(() => {});
    await hold(bench, 1);
    const before = statSync(bench.inflightPath).ino;
    await kill(bench, vm);
    // The guest was reset meanwhile: QEMU lets the region go, and the driver begins anew.
    vm.forgetInflight();
    for (const driver of vm.drivers) driver.reset();
    await vm.reconnect();
    await assert.rejects(lost, /reset/);
    assert.deepEqual(await vm.read(5, 512), pattern(512, 5));
    assert.deepEqual(sectors(bench), [5]);
    assert.notEqual(statSync(bench.inflightPath).ino, before);
  }));

test('a driver that begins anew while its VMM keeps the region', () =>
  withKills(async (bench) => {
    const vm = await bench.connect({ reconnects: true });
    for (let i = 0; i < 200; i++) await vm.write(i, pattern(512, i));
    for (const driver of vm.drivers) driver.reset();
    vm.disconnect();
    await vm.reconnect();
    assert.deepEqual(await vm.read(5, 512), pattern(512, 5));
    assert.equal(bench.frontend.status().rings![0].state, 'running');
  }));

test('a VMM without a region: after a kill its guest waits until it is reset', () =>
  withKills(async (bench) => {
    const vm = await bench.connect({ reconnects: true, protocolFeatures: WITHOUT_REGION });
    assert.equal(bench.frontend.status().tracked, false);
    await vm.write(5, pattern(512, 5));
    bench.disk.holding = true;
    const lost = vm.write(0, pattern(512, 9));
    await hold(bench, 1);
    await kill(bench, vm);
    await vm.reconnect();
    await waitFor('the ring to be refused', () => bench.frontend.status().rings![0].state === 'broken');
    assert.match(bench.frontend.status().rings![0].reason!, /without an in-flight region of its VMM it is not known/);
    assert.deepEqual(sectors(bench), []);
    const restarted = vm.restart();
    await assert.rejects(lost, /reset/);
    await restarted;
    assert.deepEqual(await vm.read(5, 512), pattern(512, 5));
  }));

test("a region that begins in the middle of a guest's life knows nothing of what was before it", () =>
  withKills(async (bench) => {
    const vm = await bench.connect({ reconnects: true, protocolFeatures: WITHOUT_REGION });
    await vm.write(5, pattern(512, 5));
    bench.disk.holding = true;
    vm.write(0, pattern(512, 9)).catch(() => {});
    await hold(bench, 1);
    await kill(bench, vm);
    vm.agreeTo(FRONTEND_PROTOCOL_FEATURES);
    await vm.reconnect();
    await waitFor('the ring to be refused', () => bench.frontend.status().rings![0].state === 'broken');
    // Nor does it after one more start: the region was not begun.
    vm.disconnect();
    await bench.restart({ left: bench.frontend.left });
    await vm.reconnect();
    await waitFor('the ring to be refused again', () => bench.frontend.status().rings?.[0].state === 'broken');
    assert.deepEqual(sectors(bench), []);
  }));

const garbage: [string, (bytes: Buffer) => void][] = [
  ['noise', (bytes) => bytes.set(pattern(bytes.length, 7))],
  ['another version', (bytes) => bytes.writeUInt16LE(7, 8)],
  ['another size', (bytes) => bytes.writeUInt16LE(77, 10)],
  [
    'more in flight than the driver waits for',
    (bytes) => {
      for (let head = 0; head < 6; head++) bytes.writeUInt8(1, 16 + 16 * head);
    },
  ],
  ['another used index', (bytes) => bytes.writeUInt16LE(40_000, 14)],
];

for (const [what, spoil] of garbage) {
  test(`a region with ${what} is not believed, and a reset is the way out`, () =>
    withKills(async (bench) => {
      const vm = await bench.connect({ reconnects: true });
      await vm.write(5, pattern(512, 5));
      bench.disk.holding = true;
      const lost = vm.write(0, pattern(512, 9));
      lost.catch(() => {});
      await hold(bench, 1);
      await kill(bench, vm);
      const bytes = readFileSync(bench.inflightPath);
      spoil(bytes);
      const file = openSync(bench.inflightPath, 'r+');
      writeSync(file, bytes, 0, bytes.length, 0);
      closeSync(file);
      await vm.reconnect();
      await waitFor('the ring to be refused', () => bench.frontend.status().rings![0].state === 'broken');
      assert.match(bench.frontend.status().rings![0].reason!, /the in-flight region and the ring do not fit together \(.+\)/);
      assert.deepEqual(sectors(bench), []);
      await vm.restart();
      assert.deepEqual(await vm.read(5, 512), pattern(512, 5));
    }));
}

test('wrong sizes and wrong files are refused', () =>
  withFrontend(async ({ open, path, inflightPath }) => {
    const vm = open();
    for (const step of vm.handshake()) {
      if (step.name === 'setInflightFd') break;
      await step.run();
    }
    const ask = async (inflight: Partial<InflightRegion>) => {
      const asked = { mmapSize: 0, mmapOffset: 0, queues: 1, queueSize: 128, ...inflight };
      return vm.control.ask({ name: 'getInflightFd', inflight: asked });
    };
    const { reply, fds } = await ask({ queues: 2 });
    assert.ok(reply.name === 'getInflightFd');
    assert.deepEqual(reply.inflight, { mmapSize: 2 * 2112, mmapOffset: 0, queues: 2, queueSize: 128 });
    assert.equal(statSync(inflightPath).mode & 0o777, 0o600);
    const good = reply.inflight;
    const give = (inflight: Partial<InflightRegion>, fd = fds[0]) =>
      vm.control.tell({ name: 'setInflightFd', inflight: { ...good, ...inflight } }, [fd], true);
    await give({});
    await assert.rejects(give({ queues: 3 }), /refused/);
    await assert.rejects(give({ queues: 0 }), /refused/);
    await assert.rejects(give({ queues: 300, mmapSize: 2 ** 30 }), /refused/);
    await assert.rejects(give({ queueSize: 100 }), /refused/);
    await assert.rejects(give({ queueSize: 2048, mmapSize: 2 ** 30 }), /refused/);
    await assert.rejects(give({ mmapOffset: 4096, mmapSize: 2 ** 52 }), /refused/);
    await assert.rejects(give({}, vm.queues[0].kickFd), /refused/);
    truncateSync(inflightPath, 100);
    await assert.rejects(give({}), /refused/);
    native.close(fds[0]);
    const directory = openSync(path.slice(0, path.lastIndexOf('/')), 'r');
    await assert.rejects(give({}, directory), /refused/);
    closeSync(directory);
    // It has no acknowledgement, so a wrong one is the end.
    await assert.rejects(ask({ queueSize: 3 }), /closed the connection/);
  }));

test('neither message while a ring runs', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect();
    await vm.read(0, 512);
    const { region, fd } = vm.negotiated.inflight!;
    await assert.rejects(vm.control.tell({ name: 'setInflightFd', inflight: region }, [fd], true), /refused/);
    await assert.rejects(vm.control.ask({ name: 'getInflightFd', inflight: region }), /closed the connection/);
    assert.match(complaints.join(), /SET_INFLIGHT_FD while ring 0 is running.*GET_INFLIGHT_FD while ring 0 is running/);
  }));

test('a file that its VMM truncates does not end the process', () =>
  withFrontend(async ({ connect, inflightPath }) => {
    const vm = await connect();
    await vm.write(0, pattern(512, 0));
    ftruncateSync(vm.negotiated.inflight!.fd, 0);
    assert.equal(statSync(inflightPath).size, 0);
    await vm.write(1, pattern(512, 1));
    assert.deepEqual(await vm.read(1, 512), pattern(512, 1));
  }));

test('where the file cannot be made there is no region, and the disk works', () =>
  withFrontend(
    async ({ connect, complaints, frontend }) => {
      const vm = await connect({ protocolFeatures: WITHOUT_REGION });
      vm.close();
      const next = await connect();
      await next.write(0, pattern(512, 0));
      assert.equal(frontend.status().tracked, false);
      assert.match(
        complaints.join(),
        /\/absent\/region: the in-flight region cannot be made: .*guest waits until its VM is reset/,
      );
    },
    { inflightPath: '/absent/region' },
  ));

test('a ring that the region has no part for is served without one', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect({ queues: 2, inflightQueues: 1 });
    await vm.write(0, pattern(512, 0), { queue: 1 });
    assert.deepEqual(await vm.read(0, 512, { queue: 0 }), pattern(512, 0));
  }));
