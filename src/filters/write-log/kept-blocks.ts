/**
 * The write log of a guest that has gone to another host, as that host takes it: what no flush covers, in pages. It goes below what the guest has
 * written there since.
 */
import { NetbusError } from '../../device/errors.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import type { Region } from '../../device/region.ts';
import { SegmentList } from '../../device/segments.ts';
import { ALL_SECTORS, nextSector, SECTORS_PER_BLOCK } from './block-sectors.ts';
import type { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';

/** Their data, and what is said of them, fit one answer on a control link. */
export const KEPT_BLOCKS_PAGE_MAX = 128;

export interface KeptPage {
  /** By block number, which grows. `sectors`: one bit for each that it has. */
  readonly blocks: readonly { readonly block: number; readonly sectors: number; readonly zero: boolean }[];
  /** LOG_BLOCK_BYTES for each of them that is not zeroes. */
  readonly data: Uint8Array;
  /** There are more, behind the last one. */
  readonly more: boolean;
}

/** Those with a number above `after`, as many as a page has. */
export function readKeptPage(log: LogBlocks, after: number): KeptPage {
  const numbers = log.blocks().filter((block) => block > after);
  const blocks = [...numbers.subarray(0, KEPT_BLOCKS_PAGE_MAX)].map((block) => {
    const entry = log.entry(block);
    return { block, sectors: log.sectors(entry), zero: log.isZero(entry) };
  });
  const stored = blocks.filter(({ zero }) => !zero);
  const data = new Uint8Array(stored.length * LOG_BLOCK_BYTES);
  for (const [index, { block }] of stored.entries()) {
    const content = log.file.region.bytes(log.dataOffset(log.entry(block)), LOG_BLOCK_BYTES);
    data.set(content, index * LOG_BLOCK_BYTES);
  }
  return { blocks, data, more: numbers.length > blocks.length };
}

/** Throws `protocol` for a page that cannot be the one after `after`. */
export function checkKeptPage({ blocks, data, more }: KeptPage, after: number, capacityBytes: number): void {
  let before = after;
  for (const { block, sectors } of blocks) {
    const end = Math.ceil(capacityBytes / LOG_BLOCK_BYTES);
    if (!(Number.isSafeInteger(block) && block > before && block < end && sectors >= 1 && sectors <= ALL_SECTORS))
      throw wrong(`block ${block} comes after ${before} of ${end}`);
    before = block;
  }
  const stored = blocks.filter(({ zero }) => !zero).length;
  if (data.length !== stored * LOG_BLOCK_BYTES) throw wrong(`${data.length} bytes for ${stored} blocks`);
  if (more && blocks.length === 0) throw wrong('there is more, and nothing in it');
}

/** Puts the sectors of a checked page into the log that it does not have. `staging`: as long as the page's data at least. False where there is no room. */
export function mergeKeptPage(log: LogBlocks, page: KeptPage, staging: Region, now: number): boolean {
  const segments = new SegmentList();
  let offset = 0;
  if (page.data.length > 0) staging.bytes(0, page.data.length).set(page.data);
  for (const { block, sectors, zero } of page.blocks) {
    const own = log.entry(block);
    const missing = own < 0 ? sectors : sectors & ~log.sectors(own);
    for (let first = nextSector(missing, 0, 1); first < SECTORS_PER_BLOCK; ) {
      const end = nextSector(missing, first, 0);
      if (!log.hasRoom(1)) return false;
      const position = block * LOG_BLOCK_BYTES + first * DISK_SECTOR_BYTES;
      const extent = (end - first) * DISK_SECTOR_BYTES;
      if (zero) {
        log.writeZeroes(position, extent, now);
      } else {
        segments.clear();
        segments.add(staging, offset + first * DISK_SECTOR_BYTES, extent);
        log.write(position, extent, segments, now);
      }
      first = nextSector(missing, end, 1);
    }
    if (!zero) offset += LOG_BLOCK_BYTES;
  }
  return true;
}

function wrong(what: string): NetbusError {
  return new NetbusError('protocol', `the write log of the guest's last host is not to be used: ${what}`);
}
