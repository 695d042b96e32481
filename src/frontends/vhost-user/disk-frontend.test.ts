/** The frontend on its real socket, with a VMM and a driver of our own, before a disk in memory. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { BlockRequestType, RingFeature } from '../../../test/support/vhost-user/block-request.ts';
import { DescriptorFlag } from '../../../test/support/vhost-user/driver-queue.ts';
import { type FrontendOptions, VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { DRIVER_FEATURES, setMemoryTable } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor, withDeadline } from '../../../test/support/wait.ts';
import { DiskFlag, DiskKind } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { type Clock, ManualClock, systemClock } from '../../lib/clock.ts';
import { encodeFrontendMessage } from '../../protocols/vhost-user/index.ts';
import { createDiskFrontend, type DiskFrontend, type DiskFrontendOptions } from './disk-frontend.ts';

const FLUSH = 1n << 9n;
const DEPTH = 64;

/** A clock of which a test can tell that somebody waits for it. */
class TestClock extends ManualClock {
  waiting = 0;

  override after(delayMs: number, callback: () => void): () => void {
    this.waiting++;
    return super.after(delayMs, callback);
  }
}

const clockHasTimer = (clock: TestClock) => clock.waiting > 0;

interface Bench {
  readonly disk: MemoryDisk;
  readonly frontend: DiskFrontend;
  readonly path: string;
  /** Lines of the log at warn and error. */
  readonly complaints: string[];
  readonly connections: boolean[];
  connect(options?: FrontendOptions): Promise<VhostUserFrontend>;
  open(options?: FrontendOptions): VhostUserFrontend;
}

/** Runs `body` with a frontend, then checks that nothing is left over: device, mappings, socket. */
async function withFrontend(
  body: (bench: Bench) => Promise<void>,
  options: Partial<DiskFrontendOptions> & { disk?: MemoryDisk; clock?: Clock } = {},
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'netbus-frontend-'));
  const path = join(directory, 'disk0');
  const disk = options.disk ?? new MemoryDisk();
  const complaints: string[] = [];
  const connections: boolean[] = [];
  const complain = (_fields: object, message: string) => void complaints.push(message);
  const regions = native.regionCount();
  const frontend = createDiskFrontend({
    path,
    source: disk,
    depth: DEPTH,
    clock: systemClock,
    log: { debug() {}, info() {}, warn: complain, error: complain },
    onConnection: (connected) => connections.push(connected),
    ...options,
  });
  const vms: VhostUserFrontend[] = [];
  const keep = (vm: VhostUserFrontend) => {
    vms.push(vm);
    return vm;
  };
  try {
    await body({
      disk,
      frontend,
      path,
      complaints,
      connections,
      connect: async (vmOptions) => keep(await VhostUserFrontend.connect(path, vmOptions)),
      open: (vmOptions) => keep(VhostUserFrontend.open(path, vmOptions)),
    });
  } finally {
    for (const vm of vms) vm.close();
    await withDeadline('the frontend to close', 5_000, frontend.close());
    rmSync(directory, { recursive: true });
  }
  assert.equal(disk.openNow, 0, 'a device was left open');
  assert.equal(native.regionCount(), regions, 'guest memory was left mapped');
  assert.equal(existsSync(path), false);
}

const pattern = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff);

for (const memoryStyle of ['table', 'slots'] as const) {
  for (const indirect of [true, false]) {
    test(`write, read back, flush, id, config (memory by ${memoryStyle}, indirect ${indirect})`, () =>
      withFrontend(async ({ disk, connect, frontend }) => {
        const vm = await connect({ memoryStyle, indirect, queues: 2, segmentBytes: 4096 });
        const data = pattern(200 * 512, 1);
        await vm.write(7, data, { queue: 0 });
        await vm.flush();
        assert.deepEqual(await vm.read(7, data.length, { queue: 1 }), data);
        assert.deepEqual(Uint8Array.from(disk.storage.subarray(7 * 512, 7 * 512 + data.length)), data);
        assert.equal(await vm.getId(), 'netbus-test');
        const config = await vm.config();
        assert.equal(config.capacitySectors, 32768);
        assert.equal(config.queues, 2);
        const { requests, bytes } = frontend.statistics;
        assert.deepEqual([...requests], [1, 1, 1, 0, 0, 1, 0]);
        assert.deepEqual([...bytes], [data.length, data.length, 0, 0, 0, 0, 0]);
        assert.equal(
          frontend.statistics.durationsOf('write').reduce((sum, count) => sum + count),
          1,
        );
      }));
  }
}

test('the bits that are offered are those that are served', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect();
    const blk = 0b111_1110_0100_0110n;
    assert.equal(vm.negotiated.offeredFeatures, blk | (1n << 28n) | (1n << 29n) | (1n << 30n) | (1n << 32n));
    assert.equal(vm.negotiated.offeredProtocolFeatures, (1n << 0n) | (1n << 3n) | (1n << 5n) | (1n << 9n) | (1n << 15n));
    assert.equal(vm.negotiated.queuesMax, 2);
    assert.equal(vm.negotiated.memorySlots, 64);
  }));

test('discard and write zeroes reach the disk, with their flag', () =>
  withFrontend(async ({ disk, connect }) => {
    const vm = await connect();
    await vm.write(0, pattern(8192, 3));
    await vm.writeZeroes({ sector: 1, sectors: 2, unmap: true });
    await vm.discard({ sector: 8, sectors: 8 });
    assert.deepEqual(
      disk.seen.slice(1).map(({ kind, flags, argument, extent }) => [kind, flags, argument, extent]),
      [
        [DiskKind.writeZeroes, DiskFlag.unmap, 512, 1024],
        [DiskKind.discard, 0, 4096, 4096],
      ],
    );
    await assert.rejects(vm.discard({ sector: 8, sectors: 8, unmap: true }), { status: 2 });
    const two = { sector: 0, sectors: 8 };
    await assert.rejects(vm.discard([two, two]), { status: 1 });
  }));

test('requests that cannot be: an answer each, and the disk hears nothing', () =>
  withFrontend(async ({ disk, connect, frontend }) => {
    const vm = await connect();
    await assert.rejects(vm.read(32768, 512), { status: 1 });
    await assert.rejects(vm.read(32767, 1024), { status: 1 });
    await assert.rejects(vm.read(2 ** 52, 512), { status: 1 });
    await assert.rejects(vm.read(0, 100), { status: 1 });
    await assert.rejects(vm.write(0, new Uint8Array(0)), { status: 1 });
    assert.equal((await vm.submit({ type: 99 })).status, 2);
    assert.equal((await vm.submit({ type: BlockRequestType.read, inBytes: 5 * 1024 * 1024, sector: 0 })).status, 1);
    assert.deepEqual(disk.seen, []);
    assert.equal(
      frontend.statistics.errors.reduce((sum, count) => sum + count),
      7,
    );
    await vm.write(0, pattern(512, 0));
  }));

test('what the disk cannot do is the status of that request', () =>
  withFrontend(async ({ disk, connect }) => {
    const vm = await connect();
    disk.status = 1;
    await assert.rejects(vm.write(0, pattern(512, 0)), { status: 1 });
    disk.status = 0;
    await vm.write(0, pattern(512, 0));
  }));

test('a read-only disk says so and takes no write', () =>
  withFrontend(
    async ({ disk, connect }) => {
      const vm = await connect();
      assert.notEqual(vm.negotiated.offeredFeatures & (1n << 5n), 0n);
      assert.equal(vm.negotiated.offeredFeatures & (1n << 13n), 0n);
      await assert.rejects(vm.write(0, pattern(512, 0)), { status: 1 });
      assert.equal((await vm.submit({ type: BlockRequestType.discard, out: new Uint8Array(16) })).status, 2);
      await vm.read(0, 512);
      assert.equal(disk.seen.length, 1);
    },
    { disk: new MemoryDisk({ readOnly: true }) },
  ));

test('write-through where the driver knows no flush, or chose so; the choice outlives a reset and a connection', () => {
  const chosen: boolean[] = [];
  return withFrontend(
    async ({ disk, connect, frontend }) => {
      const durable = () => disk.seen[disk.seen.length - 1].flags === DiskFlag.durable;
      const vm = await connect({ features: DRIVER_FEATURES & ~FLUSH });
      await vm.write(0, pattern(512, 0));
      assert.ok(durable(), 'no FLUSH');
      await vm.restart(DRIVER_FEATURES);
      await vm.write(0, pattern(512, 0));
      assert.ok(!durable(), 'with FLUSH');
      await vm.setWriteCache(false);
      await vm.setWriteCache(false);
      await vm.write(0, pattern(512, 0));
      assert.ok(durable(), 'chosen');
      assert.equal((await vm.config()).writeCache, 0);
      await vm.restart();
      await vm.write(0, pattern(512, 0));
      assert.ok(durable(), 'after a reset');
      vm.close();
      const next = await connect();
      await next.write(0, pattern(512, 0));
      assert.ok(durable(), 'after a new connection');
      assert.equal(frontend.status().writeCache, false);
      await next.setWriteCache(true);
      await next.write(0, pattern(512, 0));
      assert.ok(!durable());
      assert.deepEqual(chosen, [false, true]);
    },
    { onWriteCache: (enabled) => void chosen.push(enabled) },
  );
});

test('a new capacity is told, and answered from then on', () =>
  withFrontend(async ({ disk, connect, frontend }) => {
    const vm = await connect();
    const told = new Promise<void>((resolve) => vm.events.once('configChange', () => resolve()));
    disk.profile = { ...disk.profile, capacityBytes: 32 * 1024 * 1024 };
    frontend.profileChanged();
    await withDeadline('the news', 5_000, told);
    assert.equal((await vm.config()).capacitySectors, 65536);
  }));

test('many requests on all queues, beyond rows and room of the device', () =>
  withFrontend(
    async ({ disk, connect, frontend }) => {
      const vm = await connect({ queues: 2, queueSize: 256 });
      const work = Array.from({ length: 600 }, (_, i) => vm.write(i, pattern(512, i), { queue: i % 2 }));
      await withDeadline('600 writes', 10_000, Promise.all(work));
      for (let i = 0; i < 600; i += 37) assert.deepEqual(await vm.read(i, 512), pattern(512, i));
      assert.equal(disk.seen.filter(({ kind }) => kind === DiskKind.write).length, 600);
      assert.equal(frontend.status().inFlight, 0);
    },
    { disk: new MemoryDisk({}, 5), depth: 16 },
  ));

for (const eventIndex of [true, false]) {
  test(`answers in any order, with calls ${eventIndex ? 'by event index' : 'by flag'}`, () =>
    withFrontend(async ({ disk, connect }) => {
      const vm = await connect({ features: eventIndex ? DRIVER_FEATURES : DRIVER_FEATURES & ~RingFeature.eventIndex });
      disk.holding = true;
      const order: number[] = [];
      const work = Array.from({ length: 8 }, (_, i) => vm.write(i, pattern(512, i)).then(() => order.push(i)));
      await waitFor('all held', () => disk.device?.held === 8);
      for (let i = 0; i < 8; i++) {
        disk.device!.releaseLast();
        await waitFor('one more', () => order.length === i + 1);
      }
      await Promise.all(work);
      assert.deepEqual(order, [7, 6, 5, 4, 3, 2, 1, 0]);
    }));
}

test('a ring that is disabled is not taken from, and goes on when it is enabled', () =>
  withFrontend(async ({ disk, connect }) => {
    const vm = await connect({ queues: 2 });
    disk.holding = true;
    const first = vm.write(0, pattern(512, 0));
    await waitFor('the first', () => disk.device?.held === 1);
    await vm.enableRing(0, false);
    await vm.config(); // Answered after the message before it.
    const second = vm.write(1, pattern(512, 1));
    await vm.control.askNumber({ name: 'getFeatures' });
    disk.device!.release(1);
    await first;
    assert.equal(disk.seen.length, 1);
    disk.holding = false;
    await vm.enableRing(0, true);
    await second;
  }));

test('without bit 30 rings are enabled from the start', () =>
  withFrontend(async ({ connect }) => {
    const vm = await connect({ features: DRIVER_FEATURES & ~RingFeature.protocolFeatures });
    await vm.write(0, pattern(512, 0));
  }));

test('stopping waits for what was taken; the device is closed with the last ring and opened with the next start', () =>
  withFrontend(async ({ disk, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0), { queue: 1 });
    disk.holding = true;
    const held = vm.write(1, pattern(512, 1), { queue: 0 });
    await waitFor('it is held', () => disk.device?.held === 1);
    assert.equal(await vm.stopRing(1), 1);
    let stopped = false;
    const stop = vm.stopRing(0).then((base) => {
      stopped = true;
      return base;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(stopped, false);
    disk.device!.release();
    assert.equal(await stop, 1);
    await held;
    await waitFor('the device to be closed', () => disk.openNow === 0);
    disk.holding = false;
    await vm.startRing(0);
    assert.deepEqual(await vm.read(1, 512), pattern(512, 1));
    assert.equal(disk.opened, 2);
  }));

test('at its bound a stop is answered, and what is unfinished goes first when the rings start again', () => {
  const clock = new TestClock();
  return withFrontend(
    async ({ disk, connect, complaints }) => {
      const vm = await connect();
      disk.holding = true;
      const work = [0, 1, 2].map((i) => vm.write(i, pattern(512, i)));
      await waitFor('they are held', () => disk.device?.held === 3);
      disk.device!.releaseLast();
      await work[2];
      const stop = vm.stopRing(0);
      await waitFor('the stop to begin', () => clockHasTimer(clock));
      clock.advance(10_000);
      assert.equal(await stop, 3, 'all three were taken');
      assert.match(complaints.join(), /stopped with 2 requests unfinished/);
      disk.seen.length = 0;
      disk.holding = false;
      const before = disk.storage.readUInt8(512);
      await vm.startRing(0);
      await Promise.all(work);
      assert.deepEqual(
        disk.seen.map(({ argument }) => argument),
        [0, 512],
      );
      assert.notEqual(disk.storage.readUInt8(512), before);
    },
    { clock },
  );
});

test('after a reset of the guest what was unfinished is dropped', () => {
  const clock = new TestClock();
  return withFrontend(
    async ({ disk, connect, frontend }) => {
      const vm = await connect();
      disk.holding = true;
      const lost = vm.write(0, pattern(512, 9));
      await waitFor('it is held', () => disk.device?.held === 1);
      const restart = vm.restart();
      await waitFor('the stop to begin', () => clockHasTimer(clock));
      clock.advance(10_000);
      disk.holding = false;
      disk.seen.length = 0;
      await assert.rejects(lost, /reset/);
      await restart;
      await vm.read(0, 512);
      assert.deepEqual(
        disk.seen.map(({ kind }) => kind),
        [DiskKind.read],
      );
      assert.equal(frontend.status().inFlight, 0);
    },
    { clock },
  );
});

test('one ring at its bound cuts the device, and the other rings go on with a new one', () => {
  const clock = new TestClock();
  return withFrontend(
    async ({ disk, connect }) => {
      const vm = await connect({ queues: 2 });
      disk.holding = true;
      const stuck = vm.write(0, pattern(512, 1), { queue: 0 });
      const other = vm.write(8, pattern(512, 2), { queue: 1 });
      await waitFor('both are held', () => disk.device?.held === 2);
      const stop = vm.stopRing(0);
      await waitFor('the stop to begin', () => clockHasTimer(clock));
      disk.holding = false;
      clock.advance(10_000);
      assert.equal(await stop, 1);
      await other;
      assert.equal(disk.opened, 2);
      assert.deepEqual(
        disk.seen.map(({ argument }) => argument),
        [0, 4096, 4096],
      );
      await vm.startRing(0);
      await stuck;
    },
    { clock },
  );
});

test('what the device has not taken yet goes back to the ring when it stops', () => {
  const disk = new MemoryDisk({}, 1);
  const clock = new TestClock();
  return withFrontend(
    async ({ connect }) => {
      const vm = await connect();
      disk.holding = true;
      const work = [0, 1, 2, 3].map((i) => vm.write(i, pattern(512, i)));
      await waitFor('one is held', () => disk.device?.held === 1);
      const stop = vm.stopRing(0);
      await waitFor('the stop to begin', () => clockHasTimer(clock));
      disk.device!.release(1);
      assert.equal(await stop, 1);
      disk.holding = false;
      await vm.startRing(0);
      await Promise.all(work);
      assert.deepEqual(
        disk.seen.map(({ argument }) => argument),
        [0, 512, 1024, 1536],
      );
    },
    { disk, clock },
  );
});

test('what cannot go back to the ring is pushed and answered before the stop is', () => {
  const disk = new MemoryDisk({}, 1);
  const clock = new TestClock();
  return withFrontend(
    async ({ connect }) => {
      const vm = await connect();
      disk.holding = true;
      const work = [vm.write(0, pattern(512, 0)), vm.write(1, pattern(512, 1)), vm.getId()];
      // It is answered at once, and lies behind a write that the device has not taken.
      await work[2];
      const stop = vm.stopRing(0);
      await waitFor('the stop to begin', () => clockHasTimer(clock));
      disk.holding = false;
      disk.device!.release(1);
      assert.equal(await stop, 3);
      await Promise.all(work);
    },
    { disk, clock },
  );
});

test('a ring that is kicked before its memory is there starts when that comes', () =>
  withFrontend(async ({ open, complaints }) => {
    const vm = open({ memoryStyle: 'table' });
    for (const step of vm.handshake()) if (step.name !== 'setMemTable') await step.run();
    const write = vm.write(0, pattern(512, 0));
    await waitFor('the kick', () => complaints.length > 0);
    assert.match(complaints[0], /ring 0 is not inside one region of guest memory and waits for one/);
    await setMemoryTable(vm.control, vm.memory);
    await write;
  }));

test('kick and call must be eventfds', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect();
    const [one, other] = native.socketPair();
    for (const name of ['setVringKick', 'setVringCall', 'setVringErr'] as const) {
      await assert.rejects(vm.control.tell({ name, index: 0, hasFd: true }, [one], true), /refused/);
    }
    native.close(one);
    native.close(other);
    assert.match(complaints[0], /ring 0 was given a descriptor that is no eventfd: socket/);
    await vm.write(0, pattern(512, 0));
  }));

test('a memory table that changes does not wait for the device, and the old mapping serves what is in flight', () =>
  withFrontend(async ({ disk, connect, frontend }) => {
    const vm = await connect({ memoryStyle: 'table' });
    const regions = native.regionCount();
    disk.holding = true;
    const held = vm.read(0, 4096);
    disk.storage.set(pattern(4096, 5));
    await waitFor('it is held', () => disk.device?.held === 1);
    await setMemoryTable(vm.control, vm.memory);
    assert.ok(native.regionCount() > regions, 'old and new are mapped');
    disk.device!.release();
    assert.deepEqual(await held, pattern(4096, 5));
    disk.holding = false;
    assert.deepEqual(await vm.read(0, 512), pattern(512, 5));
    assert.equal(native.regionCount(), regions);
    assert.equal(frontend.status().memoryRegions, 2);
  }));

test('a ring whose own memory is taken out pauses until it is put back', () =>
  withFrontend(async ({ connect, frontend }) => {
    const vm = await connect({ memoryStyle: 'slots' });
    const [{ guestAddress, userAddress, sizeBytes, fileOffset, fd }] = vm.memory.regions;
    const region = { guestAddress, userAddress, size: sizeBytes, mmapOffset: fileOffset };
    await vm.control.tell({ name: 'remMemReg', region }, [], true);
    assert.equal(frontend.status().memoryRegions, 1);
    const write = vm.write(0, pattern(512, 0));
    await vm.control.askNumber({ name: 'getFeatures' });
    await vm.control.tell({ name: 'addMemReg', region }, [fd], true);
    await write;
    // An old mistake of front-ends: a descriptor comes along, and is closed.
    await vm.control.tell({ name: 'remMemReg', region }, [fd], true);
    await assert.rejects(vm.control.tell({ name: 'remMemReg', region }, [], true), /refused/);
    await vm.control.tell({ name: 'addMemReg', region }, [fd], true);
    await assert.rejects(vm.control.tell({ name: 'addMemReg', region }, [fd], true), /refused/);
    await vm.read(0, 512);
  }));

test('a file that is shorter than its region is refused', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect();
    const region = { guestAddress: 2 ** 40, size: 8192, userAddress: 2 ** 40, mmapOffset: 0 };
    const fd = native.createMemoryFile('short', 4096);
    await assert.rejects(vm.control.tell({ name: 'addMemReg', region }, [fd], true), /refused addMemReg/);
    assert.match(
      complaints.join(),
      /ADD_MEM_REG is refused.*8192 bytes at guest address 0x10000000000: its file cannot be mapped/,
    );
    await assert.rejects(vm.control.tell({ name: 'addMemReg', region: { ...region, guestAddress: 0 } }, [fd], true));
    native.close(fd);
    await vm.write(0, pattern(512, 0));
  }));

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

test('a hostile driver loses its ring alone, and has it back after a reset', () =>
  withFrontend(async ({ connect, complaints, frontend }) => {
    const vm = await connect({ queues: 2 });
    const error = native.createEvent();
    await vm.control.tell({ name: 'setVringErr', index: 0, hasFd: true }, [error]);
    const queue = vm.queues[0];
    queue.writeDescriptor(0, 2 ** 50, 16, DescriptorFlag.next, 1);
    queue.writeDescriptor(1, 2 ** 50, 16, DescriptorFlag.write, 0);
    queue.offer(0);
    queue.notify();
    await waitFor('the complaint', () => complaints.length > 0);
    assert.match(complaints[0], /broke ring 0.*queue 0, head 0, descriptor 0: its buffer at 0x4000000000000 is outside/);
    assert.equal(frontend.status().rings![0].state, 'broken');
    assert.match(frontend.status().rings![0].reason!, /outside guest memory/);
    assert.equal(native.drainEvent(error), 1);
    native.close(error);
    await vm.write(0, pattern(512, 0), { queue: 1 });
    await vm.restart();
    assert.deepEqual(await vm.read(0, 512, { queue: 0 }), pattern(512, 0));
  }));

test('a chain without room for header or status breaks its ring', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect();
    const address = vm.memory.allocate(64);
    vm.drivers[0]
      .submitChain([
        { address, length: 15, writable: false },
        { address, length: 1, writable: true },
      ])
      .catch(() => {});
    await waitFor('the complaint', () => complaints.length > 0);
    assert.match(complaints[0], /no room for a header and a status \(15 readable, 1 writable bytes\)/);
    assert.equal(await vm.stopRing(0), 0);
  }));

test('messages that were not negotiated are refused where that can be said', () =>
  withFrontend(async ({ connect, complaints }) => {
    const vm = await connect();
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
