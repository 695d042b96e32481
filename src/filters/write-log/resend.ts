/** The requests that bring a device's host what it forgot: blocks in the order of the disk, in few large requests. */
import { Batch } from '../../device/batch.ts';
import type { Device } from '../../device/device.ts';
import { DiskKind } from '../../device/disk.ts';
import { type MessageTable, SPARE_ROWS } from '../../device/message-table.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import type { Region } from '../../device/region.ts';
import { nextSector, SECTORS_PER_BLOCK } from './block-sectors.ts';
import type { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';

/** Most bytes of one request; as many blocks fit the places of one message. */
const RESEND_BYTES_MAX = 1024 * 1024;

/** What is sent. It stays as it is until all is answered. */
export interface SentBlocks {
  /** Ascending. */
  readonly numbers: ArrayLike<number>;
  readonly region: Region;
  /** Of the block at `index` in `numbers`: one bit for each sector that is sent. */
  sectors(index: number): number;
  isZero(index: number): boolean;
  /** Where its data is in the region. */
  dataOffset(index: number): number;
}

/** The content of a log. */
export function blocksOf(log: LogBlocks): SentBlocks {
  const numbers = log.blocks();
  const entryAt = (index: number) => log.entry(numbers[index]);
  return {
    numbers,
    region: log.file.region,
    sectors: (index) => log.sectors(entryAt(index)),
    isZero: (index) => log.isZero(entryAt(index)),
    dataOffset: (index) => log.dataOffset(entryAt(index)),
  };
}

/** Sends them to a device, as many at a time as it holds. */
export class Resend {
  readonly #device: Device;
  readonly #table: MessageTable;
  readonly #content: Requests;
  readonly #freeRows: number[] = [];
  /** A request that is filled in and that the device has not taken. */
  readonly #next: Batch;
  #inFlight = 0;

  /** The rows from `firstRow` on are its own. */
  constructor(blocks: SentBlocks, device: Device, table: MessageTable, firstRow: number) {
    this.#device = device;
    this.#table = table;
    this.#content = new Requests(blocks);
    this.#next = new Batch(table);
    for (let i = Math.min(SPARE_ROWS, device.depth) - 1; i >= 0; i--) this.#freeRows.push(firstRow + i);
  }

  /** Blocks that have been put into requests. */
  get sent(): number {
    return this.#content.sent;
  }

  /** Sends what the device takes now; true when all was sent and answered. */
  more(): boolean {
    for (;;) {
      if (this.#next.count === 0) {
        const row = this.#freeRows[this.#freeRows.length - 1];
        if (row === undefined || !this.#content.fill(this.#table, row)) return this.#inFlight === 0;
        this.#next.add(row);
        this.#freeRows.pop();
      }
      if (this.#device.push(this.#next) === 0) return false;
      this.#next.clear();
      this.#inFlight++;
    }
  }

  answered(row: number): void {
    this.#inFlight--;
    this.#freeRows.push(row);
  }
}

class Requests {
  readonly #blocks: SentBlocks;
  #at = 0;
  /** The first sector of the present block that was not sent. */
  #sector = 0;

  constructor(blocks: SentBlocks) {
    this.#blocks = blocks;
  }

  get sent(): number {
    return this.#at;
  }

  /** Fills a row with the next request; false where all is in requests. The payload stays where it is, and is lent until the reply. */
  fill(table: MessageTable, row: number): boolean {
    const blocks = this.#blocks;
    const segments = table.segments(row);
    segments.clear();
    let position = -1;
    let extent = 0;
    let zero = false;
    while (this.#at < blocks.numbers.length && extent < RESEND_BYTES_MAX) {
      const at = this.#at;
      const sectors = blocks.sectors(at);
      const first = nextSector(sectors, this.#sector, 1);
      if (first === SECTORS_PER_BLOCK) {
        this.#at++;
        this.#sector = 0;
        continue;
      }
      const from = blocks.numbers[at] * LOG_BLOCK_BYTES + first * DISK_SECTOR_BYTES;
      if (position < 0) {
        position = from;
        zero = blocks.isZero(at);
      } else if (from !== position + extent || zero !== blocks.isZero(at)) {
        break;
      }
      const end = nextSector(sectors, first, 0);
      const length = (end - first) * DISK_SECTOR_BYTES;
      if (!zero) segments.add(blocks.region, blocks.dataOffset(at) + first * DISK_SECTOR_BYTES, length);
      extent += length;
      this.#sector = end;
    }
    if (position < 0) return false;
    table.kind[row] = zero ? DiskKind.writeZeroes : DiskKind.write;
    table.flags[row] = 0;
    table.argument[row] = position;
    table.extent[row] = extent;
    table.outLength[row] = zero ? 0 : extent;
    table.inLength[row] = 0;
    return true;
  }
}
