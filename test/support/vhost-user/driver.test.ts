/** The driver's side of a virtqueue against a device that reads the rings on its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockDriver, type ChainStyle } from './block-driver.ts';
import { BlockRequestType, BlockStatus, parseBlockConfig } from './block-request.ts';
import { DriverQueue } from './driver-queue.ts';
import { EchoDevice } from './echo-device.ts';
import { GuestMemory, UPPER_MEMORY_ADDRESS } from './guest-memory.ts';

async function withDevice(size: number, style: ChainStyle, body: (driver: BlockDriver, device: EchoDevice) => Promise<void>) {
  const memory = new GuestMemory(8 * 1024 * 1024);
  const queue = new DriverQueue(memory, size);
  queue.eventIndex = true;
  const device = new EchoDevice(memory, queue, ({ sector }) => (sector === 13 ? BlockStatus.ioError : BlockStatus.ok));
  const driver = new BlockDriver(memory, queue, style);
  driver.start();
  try {
    await body(driver, device);
  } finally {
    driver.end(new Error('over'));
    device.close();
    queue.close();
    memory.close();
  }
}

test('every request arrives as it was asked for and is answered, whatever the queue and the chain', () =>
  fc.assert(
    fc.asyncProperty(
      fc.constantFrom(4, 8, 64),
      fc.boolean(),
      fc.array(
        fc.record({
          sector: fc.integer({ min: 0, max: 2 ** 40 }),
          bytes: fc.integer({ min: 1, max: 2048 }),
          write: fc.boolean(),
        }),
        {
          minLength: 1,
          maxLength: 100,
        },
      ),
      async (size, indirect, requests) =>
        withDevice(size, { indirect, segmentBytes: 1024 }, async (driver, device) => {
          const replies = await Promise.all(
            requests.map(({ sector, bytes, write }) =>
              write
                ? driver.submit({ type: BlockRequestType.write, sector, out: new Uint8Array(bytes) })
                : driver.submit({ type: BlockRequestType.read, sector, inBytes: bytes }),
            ),
          );
          const expected = requests.map(({ sector, bytes, write }) => ({
            type: write ? BlockRequestType.write : BlockRequestType.read,
            sector,
            dataBytes: bytes,
          }));
          assert.deepEqual(device.requests, expected);
          replies.forEach(({ status, usedLength }, i) => {
            assert.equal(status, requests[i].sector === 13 ? BlockStatus.ioError : BlockStatus.ok);
            assert.equal(usedLength, 1 + (requests[i].write ? 0 : requests[i].bytes));
          });
          assert.deepEqual([driver.pending, driver.strayHeads], [0, []]);
        }),
    ),
    { numRuns: 50 },
  ));

test('indexes wrap at 65536', () =>
  withDevice(256, { indirect: true, segmentBytes: 4096 }, async (driver, device) => {
    for (let i = 0; i < 260; i++) {
      await Promise.all(Array.from({ length: 256 }, () => driver.submit({ type: BlockRequestType.flush })));
    }
    assert.equal(device.requests.length, 260 * 256);
    assert.equal(driver.queue.usedIndex, (260 * 256) & 0xffff);
  }));

test('a driver that ends rejects what it has in flight', async () => {
  const memory = new GuestMemory(1024 * 1024);
  const queue = new DriverQueue(memory, 4);
  const driver = new BlockDriver(memory, queue, { indirect: false, segmentBytes: 4096 });
  const requests = Array.from({ length: 3 }, () => driver.submit({ type: BlockRequestType.flush }));
  driver.end(new Error('gone'));
  for (const request of requests) await assert.rejects(request, /gone/);
  await assert.rejects(driver.submit({ type: BlockRequestType.flush }), /gone/);
  queue.close();
  memory.close();
});

test('guest memory has two regions, and nothing outside them', () => {
  const memory = new GuestMemory(64 * 1024);
  assert.deepEqual(
    memory.regions.map(({ guestAddress, sizeBytes, fileOffset }) => ({ guestAddress, sizeBytes, fileOffset })),
    [
      { guestAddress: 0, sizeBytes: 32768, fileOffset: 0 },
      { guestAddress: UPPER_MEMORY_ADDRESS, sizeBytes: 32768, fileOffset: 32768 },
    ],
  );
  const piece = memory.allocate(100);
  assert.ok(piece > UPPER_MEMORY_ADDRESS);
  memory.bytes(piece, 100).fill(1);
  memory.free(piece, 100);
  assert.equal(memory.allocate(128), piece);
  assert.throws(() => memory.bytes(32768, 1), /no 1 bytes at 0x8000/);
  assert.throws(() => memory.bytes(32760, 16), RangeError);
  assert.throws(() => memory.allocate(65536), /full/);
  memory.close();
});

test('a configuration space that is shorter than ours has zeroes at its end', () => {
  const config = parseBlockConfig(Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0));
  assert.deepEqual([config.capacitySectors, config.queues], [8, 0]);
});
