/** virtio-blk as a driver speaks it (virtio 1.2, 5.2): written from the specification, apart from the code under test. */

/** virtio 1.2, 5.2.6: the request header is type, reserved, sector (64 bits). */
export const BLOCK_HEADER_BYTES = 16;
export const BlockRequestType = { read: 0, write: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;
export const BlockStatus = { ok: 0, ioError: 1, unsupported: 2 } as const;
/** virtio 1.2, 5.2.6: the answer to GET_ID. */
export const ID_BYTES = 20;

/** virtio 1.2, 5.2.3: feature bits of the disk. */
export const BlockFeature = {
  sizeMax: 1n << 1n,
  segmentsMax: 1n << 2n,
  geometry: 1n << 4n,
  readOnly: 1n << 5n,
  blockSize: 1n << 6n,
  flush: 1n << 9n,
  topology: 1n << 10n,
  configWriteCache: 1n << 11n,
  multiQueue: 1n << 12n,
  discard: 1n << 13n,
  writeZeroes: 1n << 14n,
} as const;

/** virtio 1.2, 6: feature bits of every device; and vhost-user's own bit 30. */
export const RingFeature = {
  logAll: 1n << 26n,
  indirect: 1n << 28n,
  eventIndex: 1n << 29n,
  protocolFeatures: 1n << 30n,
  version1: 1n << 32n,
} as const;

/** virtio 1.2, 5.2.4: the configuration space, as far as drivers use it. Fields beyond what the device sent are 0. */
export interface BlockConfig {
  capacitySectors: number;
  sizeMax: number;
  segmentsMax: number;
  blockBytes: number;
  /** log2 of logical blocks per physical one. */
  physicalBlockExponent: number;
  minimumIoBlocks: number;
  optimalIoBlocks: number;
  /** 1 = write-back. */
  writeCache: number;
  queues: number;
  discardSectorsMax: number;
  discardSegmentsMax: number;
  discardSectorAlignment: number;
  writeZeroesSectorsMax: number;
  writeZeroesSegmentsMax: number;
  writeZeroesMayUnmap: number;
}

/** Bytes of the configuration space up to and with write_zeroes_may_unmap: what QEMU 7.2 asks for. */
export const CONFIG_BYTES = 57;
/** Where `writeback` is: the one field that a driver may write. */
export const CONFIG_WRITE_CACHE_OFFSET = 32;

export function parseBlockConfig(space: Uint8Array): BlockConfig {
  const bytes = new Uint8Array(CONFIG_BYTES);
  bytes.set(space.subarray(0, CONFIG_BYTES));
  const view = new DataView(bytes.buffer);
  return {
    capacitySectors: Number(view.getBigUint64(0, true)),
    sizeMax: view.getUint32(8, true),
    segmentsMax: view.getUint32(12, true),
    blockBytes: view.getUint32(20, true),
    physicalBlockExponent: view.getUint8(24),
    minimumIoBlocks: view.getUint16(26, true),
    optimalIoBlocks: view.getUint32(28, true),
    writeCache: view.getUint8(CONFIG_WRITE_CACHE_OFFSET),
    queues: view.getUint16(34, true),
    discardSectorsMax: view.getUint32(36, true),
    discardSegmentsMax: view.getUint32(40, true),
    discardSectorAlignment: view.getUint32(44, true),
    writeZeroesSectorsMax: view.getUint32(48, true),
    writeZeroesSegmentsMax: view.getUint32(52, true),
    writeZeroesMayUnmap: view.getUint8(56),
  };
}

/** The request header. */
export function encodeHeader(target: Uint8Array, type: number, sector: number): void {
  const view = new DataView(target.buffer, target.byteOffset, BLOCK_HEADER_BYTES);
  view.setUint32(0, type, true);
  view.setUint32(4, 0, true);
  view.setBigUint64(8, BigInt(sector), true);
}

/** virtio 1.2, 5.2.6: one range of a discard or of write zeroes. */
export interface BlockRange {
  sector: number;
  sectors: number;
  /** Write zeroes alone: the space may be given back. */
  unmap?: boolean;
}

/** The payload of discard and write zeroes: 16 bytes a range. */
export function encodeRanges(ranges: readonly BlockRange[]): Uint8Array {
  const bytes = new Uint8Array(16 * ranges.length);
  const view = new DataView(bytes.buffer);
  ranges.forEach((range, i) => {
    view.setBigUint64(16 * i, BigInt(range.sector), true);
    view.setUint32(16 * i + 8, range.sectors, true);
    view.setUint32(16 * i + 12, range.unmap === true ? 1 : 0, true);
  });
  return bytes;
}
