/** The numbers of virtio-blk (virtio 1.2, 5.2) and the limits that a Netbus disk tells its driver. */
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';

/** Bit numbers of the features that are used here (5.2.3). */
export const BlockFeature = {
  sizeMax: 1,
  segMax: 2,
  readOnly: 5,
  blockSize: 6,
  flush: 9,
  topology: 10,
  configWce: 11,
  multiQueue: 12,
  discard: 13,
  writeZeroes: 14,
} as const;

/** Request types (5.2.6). */
export const BlockRequest = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;

/** Most data segments of a request, and bytes of each: 126 x 32 KiB fit into DISK_TRANSFER_BYTES_MAX. */
export const BLOCK_SEGMENTS_MAX = 126;
export const BLOCK_SEGMENT_BYTES_MAX = 32768;
/** One range a request, so that a request has one status. */
export const BLOCK_RANGES_MAX = 1;
export const BLOCK_RANGE_BYTES = 16;
/** 2 GiB: giving space back takes no time by its size. */
export const BLOCK_DISCARD_SECTORS_MAX = 2 ** 31 / DISK_SECTOR_BYTES;
/** 32 MiB: on a filesystem that cannot do better, zeroes are written. */
export const BLOCK_WRITE_ZEROES_SECTORS_MAX = 2 ** 25 / DISK_SECTOR_BYTES;

export const BLOCK_HEADER_BYTES = 16;
/** Flag of a discard or write-zeroes range. */
export const RANGE_FLAG_UNMAP = 1;
