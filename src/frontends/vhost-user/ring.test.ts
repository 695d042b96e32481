/** The life of rings: started, stopped, cut off, moved in memory, broken by their driver. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from '../../../native/index.ts';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { RingFeature } from '../../../test/support/vhost-user/block-request.ts';
import { clockHasTimer, pattern, TestClock, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import { DescriptorFlag } from '../../../test/support/vhost-user/driver-queue.ts';
import { DRIVER_FEATURES, setMemoryTable } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { DiskKind } from '../../device/disk.ts';

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

test('a hostile driver loses its ring alone, and has it back after a reset', () =>
  withFrontend(async ({ connect, complaints, frontend }) => {
    const vm = await connect({ queues: 2 });
    const error = native.createEvent();
    await vm.control.tell({ name: 'setVringErr', index: 0, hasFd: true }, [error], true);
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
