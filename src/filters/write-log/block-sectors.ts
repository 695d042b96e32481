/** The sectors of a block that a request has, and how an entry of the log says which of them it has. */
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';

export const SECTORS_PER_BLOCK = LOG_BLOCK_BYTES / DISK_SECTOR_BYTES;
export const ALL_SECTORS = 2 ** SECTORS_PER_BLOCK - 1;
/** In an entry's word, beside the sectors: all of them are zeroes, and the data is not looked at. */
export const ZERO = 0x100;

/** Where in the block a request begins that starts at `position`, in bytes. */
export function startIn(block: number, position: number): number {
  return Math.max(0, position - block * LOG_BLOCK_BYTES);
}

/** Where in the block a request ends that goes to the byte before `end`, in bytes. */
export function endIn(block: number, end: number): number {
  return Math.min(LOG_BLOCK_BYTES, end - block * LOG_BLOCK_BYTES);
}

/** One bit for each sector of the block that the request has. */
export function sectorsIn(block: number, position: number, extent: number): number {
  const start = startIn(block, position) / DISK_SECTOR_BYTES;
  const end = endIn(block, position + extent) / DISK_SECTOR_BYTES;
  return (1 << end) - (1 << start);
}

/** An entry's word: its sectors and flag, and a check of everything that it says. */
export function wordOf(entry: number, block: number, sequence: number, content: number): number {
  let hash = Math.imul(entry ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(block % 2 ** 32, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15) ^ Math.floor(block / 2 ** 32), 0x27d4eb2f) ^ Math.imul(sequence % 2 ** 32, 0x165667b1);
  hash = Math.imul(hash ^ (hash >>> 13) ^ Math.floor(sequence / 2 ** 32), 0x85ebca6b) ^ Math.imul(content + 1, 0x9e3779b1);
  return ((((hash ^ (hash >>> 16)) & 0xffff) << 16) | content) >>> 0;
}

/** The first sector from `from` on whose bit is `bit`; the number of sectors where there is none. */
export function nextSector(sectors: number, from: number, bit: 0 | 1): number {
  let sector = from;
  while (sector < SECTORS_PER_BLOCK && ((sectors >> sector) & 1) !== bit) sector++;
  return sector;
}
