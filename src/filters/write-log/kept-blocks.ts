/**
 * The write log of a guest that has gone to another host, as that host takes it: what no flush covers, in pages. It goes to the device below what the
 * guest has written there since, so it needs no room in the log there.
 */
import { NetbusError } from '../../device/errors.ts';
import type { Region } from '../../device/region.ts';
import { ALL_SECTORS } from './block-sectors.ts';
import type { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';
import type { SentBlocks } from './resend.ts';

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

/** The log that the guest's last host keeps. */
export interface KeptLog {
  /** The page behind the block with number `after`; -1: the first. Rejects where it cannot be had. */
  read(after: number): Promise<KeptPage>;
  /** For the data of a page. Whoever is given the log releases it. */
  readonly staging: Region & { release(): void };
  readonly capacityBytes: number;
  /** It was sent and flushed; the guest's requests go when this has resolved. */
  madeGood?(): Promise<void>;
}

/** Of a checked page what `own` does not have newer. Its data is copied to `staging`. */
export function blocksBelow(own: LogBlocks | undefined, page: KeptPage, staging: Region): SentBlocks {
  if (page.data.length > 0) staging.bytes(0, page.data.length).set(page.data);
  let stored = 0;
  const offsets = page.blocks.map(({ zero }) => (zero ? 0 : stored++ * LOG_BLOCK_BYTES));
  return {
    numbers: page.blocks.map(({ block }) => block),
    region: staging,
    sectors: (index) => {
      const { block, sectors } = page.blocks[index];
      const entry = own?.entry(block) ?? -1;
      return entry < 0 ? sectors : sectors & ~own!.sectors(entry);
    },
    isZero: (index) => page.blocks[index].zero,
    dataOffset: (index) => offsets[index],
  };
}

function wrong(what: string): NetbusError {
  return new NetbusError('protocol', `the write log of the guest's last host is not to be used: ${what}`);
}
