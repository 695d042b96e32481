/** The configuration space of virtio-blk (virtio 1.2, 5.2.4): encode for a device, decode for its user. */
import { DISK_SECTOR_BYTES, type DiskProfile } from '../../device/profile.ts';
import {
  BLOCK_DISCARD_SECTORS_MAX,
  BLOCK_RANGES_MAX,
  BLOCK_SEGMENT_BYTES_MAX,
  BLOCK_SEGMENTS_MAX,
  BLOCK_WRITE_ZEROES_SECTORS_MAX,
} from './numbers.ts';

export interface BlockConfig {
  /** In sectors of 512 bytes. */
  readonly capacity: bigint;
  readonly sizeMax: number;
  readonly segMax: number;
  readonly blockSize: number;
  /** Physical block = blockSize << this. */
  readonly physicalBlockExponent: number;
  readonly alignmentOffset: number;
  /** In blocks of blockSize. */
  readonly minIoSize: number;
  readonly optimalIoSize: number;
  readonly writeCache: boolean;
  readonly queues: number;
  readonly discardSectorsMax: number;
  readonly discardRangesMax: number;
  readonly discardSectorAlignment: number;
  readonly writeZeroesSectorsMax: number;
  readonly writeZeroesRangesMax: number;
  readonly writeZeroesMayUnmap: boolean;
}

/** Up to and with the write-zeroes fields; what later versions add reads as zeroes. */
export const BLOCK_CONFIG_BYTES = 60;
/** The one field that a driver may write. */
export const BLOCK_CONFIG_WRITEBACK_OFFSET = 32;

/** What a disk of this profile says of itself. */
export function blockConfigOf(profile: DiskProfile, writeCache: boolean): BlockConfig {
  const has = (name: DiskProfile['features'][number]) => profile.features.includes(name);
  const perBlock = (bytes: number) => Math.floor(bytes / profile.logicalBlockBytes);
  const discard = has('discard') && !profile.readOnly;
  const writeZeroes = has('write-zeroes') && !profile.readOnly;
  const physicalBlock = Math.max(profile.physicalBlockBytes, profile.logicalBlockBytes);
  return {
    capacity: BigInt(Math.floor(profile.capacityBytes / DISK_SECTOR_BYTES)),
    sizeMax: BLOCK_SEGMENT_BYTES_MAX,
    segMax: BLOCK_SEGMENTS_MAX,
    blockSize: profile.logicalBlockBytes,
    physicalBlockExponent: Math.log2(perBlock(physicalBlock)),
    alignmentOffset: 0,
    minIoSize: perBlock(physicalBlock),
    optimalIoSize: perBlock(profile.optimalIoBytes),
    writeCache,
    queues: profile.queues,
    discardSectorsMax: discard ? BLOCK_DISCARD_SECTORS_MAX : 0,
    discardRangesMax: discard ? BLOCK_RANGES_MAX : 0,
    discardSectorAlignment: discard ? Math.floor(profile.discardAlignmentBytes / DISK_SECTOR_BYTES) : 0,
    writeZeroesSectorsMax: writeZeroes ? BLOCK_WRITE_ZEROES_SECTORS_MAX : 0,
    writeZeroesRangesMax: writeZeroes ? BLOCK_RANGES_MAX : 0,
    // A write-zeroes with unmap may give space back where a discard can, too.
    writeZeroesMayUnmap: writeZeroes && discard,
  };
}

export function encodeBlockConfig(config: BlockConfig): Uint8Array {
  const bytes = new Uint8Array(BLOCK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, config.capacity, true);
  view.setUint32(8, config.sizeMax, true);
  view.setUint32(12, config.segMax, true);
  view.setUint32(20, config.blockSize, true);
  view.setUint8(24, config.physicalBlockExponent);
  view.setUint8(25, config.alignmentOffset);
  view.setUint16(26, config.minIoSize, true);
  view.setUint32(28, config.optimalIoSize, true);
  view.setUint8(BLOCK_CONFIG_WRITEBACK_OFFSET, config.writeCache ? 1 : 0);
  view.setUint16(34, config.queues, true);
  view.setUint32(36, config.discardSectorsMax, true);
  view.setUint32(40, config.discardRangesMax, true);
  view.setUint32(44, config.discardSectorAlignment, true);
  view.setUint32(48, config.writeZeroesSectorsMax, true);
  view.setUint32(52, config.writeZeroesRangesMax, true);
  view.setUint8(56, config.writeZeroesMayUnmap ? 1 : 0);
  return bytes;
}

/** Reads a configuration space; fields beyond the bytes that are there read as zeroes. */
export function decodeBlockConfig(bytes: Uint8Array): BlockConfig {
  const whole = new Uint8Array(BLOCK_CONFIG_BYTES);
  whole.set(bytes.subarray(0, BLOCK_CONFIG_BYTES));
  const view = new DataView(whole.buffer);
  return {
    capacity: view.getBigUint64(0, true),
    sizeMax: view.getUint32(8, true),
    segMax: view.getUint32(12, true),
    blockSize: view.getUint32(20, true),
    physicalBlockExponent: view.getUint8(24),
    alignmentOffset: view.getUint8(25),
    minIoSize: view.getUint16(26, true),
    optimalIoSize: view.getUint32(28, true),
    writeCache: view.getUint8(BLOCK_CONFIG_WRITEBACK_OFFSET) !== 0,
    queues: view.getUint16(34, true),
    discardSectorsMax: view.getUint32(36, true),
    discardRangesMax: view.getUint32(40, true),
    discardSectorAlignment: view.getUint32(44, true),
    writeZeroesSectorsMax: view.getUint32(48, true),
    writeZeroesRangesMax: view.getUint32(52, true),
    writeZeroesMayUnmap: view.getUint8(56) !== 0,
  };
}
