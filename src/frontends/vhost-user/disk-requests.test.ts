/** What a driver asks of a disk, through the frontend on its real socket. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDisk } from '../../../test/support/memory-disk.ts';
import { BlockRequestType, RingFeature } from '../../../test/support/vhost-user/block-request.ts';
import { pattern, withFrontend } from '../../../test/support/vhost-user/disk-bench.ts';
import { DRIVER_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { waitFor, withDeadline } from '../../../test/support/wait.ts';
import { DiskFlag, DiskKind } from '../../device/disk.ts';

const FLUSH = 1n << 9n;

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
    assert.equal(
      vm.negotiated.offeredProtocolFeatures,
      (1n << 0n) | (1n << 3n) | (1n << 5n) | (1n << 9n) | (1n << 12n) | (1n << 15n),
    );
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
      frontend.chooseWriteCache(false);
      await next.write(0, pattern(512, 1));
      assert.ok(durable(), 'chosen at another host');
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
