import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DATA_START, ModelGuest, NEXT, WRITE } from '../../../test/fuzz/model-guest.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { MessageTable } from '../../device/message-table.ts';
import { DISK_TRANSFER_BYTES_MAX, type DiskProfile, diskFeatures } from '../../device/profile.ts';
import { Chain } from '../virtqueue/index.ts';
import {
  BLOCK_CONFIG_BYTES,
  BLOCK_SEGMENT_BYTES_MAX,
  BLOCK_SEGMENTS_MAX,
  type BlockConfig,
  BlockFeature,
  BlockRequest,
  BlockRequestReader,
  blockConfigOf,
  blockFeatureBits,
  decodeBlockConfig,
  diskFeatureNames,
  encodeBlockConfig,
  encodeBlockHeader,
  encodeBlockRange,
  isBlockRequest,
} from './index.ts';

const profile: DiskProfile = {
  class: 'disk',
  capacityBytes: 64 * 1024 * 1024,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  optimalIoBytes: 65536,
  readOnly: false,
  queues: 4,
  discardAlignmentBytes: 4096,
  serial: 'serial',
  features: [...diskFeatures],
};

test('a request by the limits that the driver is told fits one message', () => {
  assert.ok(BLOCK_SEGMENTS_MAX * BLOCK_SEGMENT_BYTES_MAX <= DISK_TRANSFER_BYTES_MAX);
});

test('the bits follow from the profile', () => {
  assert.equal(blockFeatureBits(profile), 0b111_1110_0100_0110n);
  const plain = { ...profile, features: [] };
  assert.equal(blockFeatureBits(plain), 0b100_0100_0110n);
  const readOnly = blockFeatureBits({ ...profile, readOnly: true });
  assert.deepEqual(diskFeatureNames(readOnly), ['flush', 'write-cache-control', 'multi-queue']);
  assert.notEqual(readOnly & (1n << BigInt(BlockFeature.readOnly)), 0n);
  fc.assert(
    fc.property(fc.subarray([...diskFeatures]), (features) => {
      assert.deepEqual(new Set(diskFeatureNames(blockFeatureBits({ ...profile, features }))), new Set(features));
    }),
  );
});

test('the configuration space comes back as it went', () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  const u16 = fc.integer({ min: 0, max: 0xffff });
  const u8 = fc.integer({ min: 0, max: 0xff });
  const config: fc.Arbitrary<BlockConfig> = fc.record(
    {
      capacity: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      sizeMax: u32,
      segMax: u32,
      blockSize: u32,
      physicalBlockExponent: u8,
      alignmentOffset: u8,
      minIoSize: u16,
      optimalIoSize: u32,
      writeCache: fc.boolean(),
      queues: u16,
      discardSectorsMax: u32,
      discardRangesMax: u32,
      discardSectorAlignment: u32,
      writeZeroesSectorsMax: u32,
      writeZeroesRangesMax: u32,
      writeZeroesMayUnmap: fc.boolean(),
    },
    { noNullPrototype: true },
  );
  fc.assert(fc.property(config, (value) => assert.deepEqual(decodeBlockConfig(encodeBlockConfig(value)), value)));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => void decodeBlockConfig(bytes)));
});

test('the configuration space of a disk, byte for byte', () => {
  const bytes = encodeBlockConfig(blockConfigOf(profile, true));
  assert.equal(bytes.length, BLOCK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  assert.equal(view.getBigUint64(0, true), 131072n);
  assert.equal(view.getUint32(12, true), 126);
  assert.equal(view.getUint32(20, true), 512);
  assert.equal(bytes[24], 3);
  assert.equal(view.getUint16(26, true), 8);
  assert.equal(view.getUint32(28, true), 128);
  assert.equal(bytes[32], 1);
  assert.equal(view.getUint16(34, true), 4);
  assert.equal(view.getUint32(36, true), 2 ** 22);
  assert.equal(view.getUint32(44, true), 8);
  assert.equal(bytes[56], 1);
});

/** A request laid out in pieces, taken from a queue and read into row 0. */
function read(
  header: Uint8Array,
  out: number,
  room: number,
  options: { cut?: number; payload?: Uint8Array; durable?: boolean } = {},
) {
  const guest = new ModelGuest(8);
  const memory = guest.data[0].bytes(0, 65536);
  memory.set(header, 0);
  memory.set(options.payload ?? new Uint8Array(0), header.length);
  const readable = header.length + out;
  const cut = options.cut ?? header.length;
  const pieces: [number, number, number][] = [[0, Math.min(cut, readable), 0]];
  if (readable > cut) pieces.push([cut, readable - cut, 0]);
  if (room > 0) pieces.push([32768, room, WRITE]);
  pieces.push([60000, 1, WRITE]);
  pieces.forEach(([at, length, flags], i) => {
    const last = i === pieces.length - 1;
    guest.describe(i, { address: DATA_START + at, length, flags: flags | (last ? 0 : NEXT), next: last ? 0 : i + 1 });
  });
  guest.offer(0);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain), guest.queue.fault);
  assert.ok(isBlockRequest(chain));
  const table = new MessageTable(1);
  const reader = new BlockRequestReader();
  const status = reader.read(chain, table, 0, options.durable ?? false);
  return { status, table, segments: table.segments(0), type: reader.type };
}

test('read and write, however the header is cut', () => {
  for (const cut of [1, 7, 15, 16, 20, 600]) {
    const write = read(encodeBlockHeader(BlockRequest.out, 0x1_0000_0001n), 1024, 0, { cut, durable: true });
    assert.equal(write.status, DiskStatus.ok);
    assert.equal(write.table.kind[0], DiskKind.write);
    assert.equal(write.table.flags[0], DiskFlag.durable);
    assert.equal(write.table.argument[0], 0x1_0000_0001 * 512);
    assert.equal(write.table.extent[0], 1024);
    assert.equal(write.table.outLength[0], 1024);
    assert.deepEqual([write.segments.count, write.segments.offsets[0], write.segments.lengths[0]], [1, 16, 1024]);
  }
  const request = read(encodeBlockHeader(BlockRequest.in, 3n), 0, 4096);
  assert.equal(request.status, DiskStatus.ok);
  assert.equal(request.table.kind[0], DiskKind.read);
  assert.equal(request.table.inLength[0], 4096);
  assert.deepEqual([request.segments.count, request.segments.offsets[0], request.segments.lengths[0]], [1, 32768, 4096]);
});

test('wrong direction, unknown type, get id', () => {
  assert.equal(read(encodeBlockHeader(BlockRequest.in, 0n), 512, 512).status, DiskStatus.ioError);
  assert.equal(read(encodeBlockHeader(BlockRequest.out, 0n), 512, 512).status, DiskStatus.ioError);
  assert.equal(read(encodeBlockHeader(BlockRequest.flush, 0n), 512, 0).status, DiskStatus.ioError);
  assert.equal(read(encodeBlockHeader(BlockRequest.flush, 99n), 0, 0).status, DiskStatus.ok);
  assert.equal(read(encodeBlockHeader(77, 0n), 0, 0).status, DiskStatus.unsupported);
  assert.equal(read(encodeBlockHeader(BlockRequest.getId, 0n), 0, 20).type, BlockRequest.getId);
});

test('discard and write zeroes carry one range', () => {
  const range = (type: number, sectors: number, unmap: boolean, out = 16) =>
    read(encodeBlockHeader(type, 0n), out, 0, { payload: encodeBlockRange(5n, sectors, unmap) });
  const zeroes = range(BlockRequest.writeZeroes, 8, true);
  assert.equal(zeroes.status, DiskStatus.ok);
  assert.deepEqual(
    [zeroes.table.kind[0], zeroes.table.flags[0], zeroes.table.argument[0], zeroes.table.extent[0]],
    [DiskKind.writeZeroes, DiskFlag.unmap, 5 * 512, 8 * 512],
  );
  assert.equal(range(BlockRequest.discard, 8, false).status, DiskStatus.ok);
  assert.equal(range(BlockRequest.discard, 8, true).status, DiskStatus.unsupported);
  assert.equal(range(BlockRequest.discard, 2 ** 22 + 1, false).status, DiskStatus.ioError);
  assert.equal(range(BlockRequest.writeZeroes, 65537, false).status, DiskStatus.ioError);
  assert.equal(range(BlockRequest.discard, 8, false, 32).status, DiskStatus.ioError);
  assert.equal(range(BlockRequest.discard, 8, false, 8).status, DiskStatus.ioError);
});

test('more segments than a message has is an error of that request alone', () => {
  const guest = new ModelGuest(512);
  for (let i = 0; i < 400; i++) {
    const flags = (i > 0 ? WRITE : 0) | (i < 399 ? NEXT : 0);
    guest.describe(i, { address: DATA_START + i * 64, length: 16, flags, next: i + 1 });
  }
  guest.data[0].bytes(0, 16).set(encodeBlockHeader(BlockRequest.in, 0n));
  guest.offer(0);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain), guest.queue.fault);
  assert.equal(new BlockRequestReader().read(chain, new MessageTable(1), 0, false), DiskStatus.ioError);
});
