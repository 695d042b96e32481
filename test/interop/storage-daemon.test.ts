/**
 * The test front-end against a back-end that is not ours: QEMU's storage daemon. What it does here is what the tests of our own
 * back-end then rely on.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { pattern } from '../support/pattern.ts';
import { startStorageDaemon } from '../support/storage-daemon.ts';
import { BlockFeature, BlockRequestType, BlockStatus, RingFeature } from '../support/vhost-user/block-request.ts';
import { BlockError, type FrontendOptions, VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { DRIVER_FEATURES } from '../support/vhost-user/handshake.ts';

const DISK_BYTES = 16 * 1024 * 1024;
const SECTOR_BYTES = 512;
const QUEUES = 4;

const installed = existsSync('/usr/bin/qemu-storage-daemon');

describe('the test front-end against qemu-storage-daemon', { skip: installed ? false : 'apt-get install qemu-utils' }, () => {
  const cleanup = new Cleanup();
  const directory = mkdtempSync(join(tmpdir(), 'netbus-interop-'));
  const imagePath = join(directory, 'disk.img');
  const socketPath = join(directory, 'disk.sock');

  before(async () => {
    cleanup.add(directory, () => rmSync(directory, { recursive: true }));
    await startStorageDaemon({
      cleanup,
      socketPath,
      queues: QUEUES,
      backend: { kind: 'file', imagePath, sizeBytes: DISK_BYTES },
    });
  });
  after(() => cleanup.run());

  /** Runs `body` with a machine that is connected, and closes it. */
  async function withFrontend(options: FrontendOptions, body: (vm: VhostUserFrontend) => Promise<void>): Promise<void> {
    const vm = await VhostUserFrontend.connect(socketPath, options);
    try {
      await body(vm);
    } finally {
      vm.close();
    }
  }

  test('the configuration says what the image is', () =>
    withFrontend({}, async (vm) => {
      const config = await vm.config();
      assert.equal(config.capacitySectors, DISK_BYTES / SECTOR_BYTES);
      assert.equal(config.blockBytes, 512);
      assert.equal(config.queues, QUEUES);
      assert.equal(vm.negotiated.queuesMax, QUEUES);
      assert.notEqual(vm.negotiated.features & BlockFeature.flush, 0n);
    }));

  const ways: Record<string, FrontendOptions> = {
    'indirect descriptors and EVENT_IDX, memory in slots': { memoryStyle: 'slots' },
    'direct descriptors, memory in a table': { memoryStyle: 'table', indirect: false, segmentBytes: 3 * SECTOR_BYTES },
    'no indirect descriptors and no EVENT_IDX negotiated': {
      features: DRIVER_FEATURES & ~(RingFeature.indirect | RingFeature.eventIndex),
    },
    'a queue that is too small for all requests at once': { queueSize: 8, indirect: false },
  };
  for (const [way, options] of Object.entries(ways)) {
    test(`what is written is read, and is in the image: ${way}`, () =>
      withFrontend(options, async (vm) => {
        const sizes = [SECTOR_BYTES, 4096, 7 * SECTOR_BYTES, 65536, 8192, 24 * SECTOR_BYTES];
        const places = sizes.map((bytes, i) => ({ sector: 256 * i, data: pattern(bytes, i + 1) }));
        await Promise.all(places.map(({ sector, data }) => vm.write(sector, data, { segmentBytes: 16384 })));
        await vm.flush();
        const image = readFileSync(imagePath);
        for (const { sector, data } of places) {
          const at = sector * SECTOR_BYTES;
          assert.ok(image.subarray(at, at + data.length).equals(data), `image at sector ${sector}`);
          assert.ok(Buffer.from(await vm.read(sector, data.length)).equals(data), `read at sector ${sector}`);
        }
      }));
  }

  test('several queues at once', () =>
    withFrontend({ queues: QUEUES }, async (vm) => {
      const tasks = Array.from({ length: 64 }, async (_, i) => {
        const data = pattern(8192, 100 + i);
        await vm.write(1024 + 16 * i, data, { queue: i % QUEUES });
        assert.ok(Buffer.from(await vm.read(1024 + 16 * i, 8192, { queue: (i + 1) % QUEUES })).equals(data));
      });
      await Promise.all(tasks);
      for (const driver of vm.drivers) assert.deepEqual([driver.pending, driver.strayHeads], [0, []]);
    }));

  test('discard and write zeroes leave zeroes', () =>
    withFrontend({}, async (vm) => {
      await vm.write(4096, pattern(65536, 7));
      await vm.writeZeroes({ sector: 4096, sectors: 8, unmap: false });
      await vm.writeZeroes({ sector: 4112, sectors: 8, unmap: true });
      await vm.discard({ sector: 4128, sectors: 8 });
      const data = Buffer.from(await vm.read(4096, 65536));
      const expected = pattern(65536, 7);
      for (const sector of [0, 16, 32]) expected.fill(0, sector * SECTOR_BYTES, (sector + 8) * SECTOR_BYTES);
      assert.ok(data.equals(expected));
    }));

  test('a request beyond the end fails, an unknown one is unsupported, and the next one works', () =>
    withFrontend({}, async (vm) => {
      const end = DISK_BYTES / SECTOR_BYTES;
      await assert.rejects(
        vm.read(end, SECTOR_BYTES),
        (error) => error instanceof BlockError && error.status === BlockStatus.ioError,
      );
      assert.equal((await vm.submit({ type: 99 })).status, BlockStatus.unsupported);
      assert.equal((await vm.submit({ type: BlockRequestType.read, inBytes: SECTOR_BYTES })).status, BlockStatus.ok);
      assert.ok((await vm.getId()).length > 0);
    }));

  test('a ring that was stopped goes on where it was', () =>
    withFrontend({ queues: 2 }, async (vm) => {
      for (let i = 0; i < 5; i++) await vm.write(i, pattern(SECTOR_BYTES, i));
      assert.equal(await vm.stopRing(0), 5);
      const data = pattern(SECTOR_BYTES, 50);
      const late = vm.write(50, data); // Waits in the ring.
      await vm.write(51, data, { queue: 1 });
      await vm.startRing(0);
      await late;
      assert.ok(Buffer.from(await vm.read(50, SECTOR_BYTES)).equals(data));
    }));

  test('a machine that starts anew negotiates anew', () =>
    withFrontend({}, async (vm) => {
      await vm.write(0, pattern(4096, 1));
      await vm.restart(DRIVER_FEATURES & ~RingFeature.eventIndex);
      assert.equal(vm.negotiated.features & RingFeature.eventIndex, 0n);
      assert.ok(Buffer.from(await vm.read(0, 4096)).equals(pattern(4096, 1)));
    }));

  test('a machine that connects after one that died at any step finds the disk', async () => {
    const steps = VhostUserFrontend.open(socketPath, { queues: 2 });
    const count = steps.handshake().length;
    steps.close();
    for (let done = 0; done < count; done++) {
      const vm = VhostUserFrontend.open(socketPath, { queues: 2 });
      for (const step of vm.handshake().slice(0, done)) await step.run();
      vm.close();
    }
    await withFrontend({}, async (vm) => assert.equal((await vm.read(0, SECTOR_BYTES)).length, SECTOR_BYTES));
  });
});
