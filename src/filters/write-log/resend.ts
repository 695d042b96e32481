/** The requests that bring a device's host what it forgot: the content of the log, in the order of the disk, in few large requests. */
import { Batch } from '../../device/batch.ts';
import type { Device } from '../../device/device.ts';
import { DiskKind } from '../../device/disk.ts';
import { type MessageTable, SPARE_ROWS } from '../../device/message-table.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import { nextSector, SECTORS_PER_BLOCK } from './block-sectors.ts';
import type { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';

/** Most bytes of one request; as many blocks fit the places of one message. */
const RESEND_BYTES_MAX = 1024 * 1024;

/** Sends them to a device, as many at a time as it holds. */
export class Resend {
  readonly #device: Device;
  readonly #table: MessageTable;
  readonly #content: LogContent | undefined;
  readonly #freeRows: number[] = [];
  /** A request that is filled in and that the device has not taken. */
  readonly #next: Batch;
  #inFlight = 0;

  /** `blocks`: undefined where there is no log, and so nothing to send. The rows from `firstRow` on are its own. */
  constructor(blocks: LogBlocks | undefined, device: Device, table: MessageTable, firstRow: number) {
    this.#device = device;
    this.#table = table;
    this.#content = blocks && new LogContent(blocks);
    this.#next = new Batch(table);
    for (let i = Math.min(SPARE_ROWS, device.depth) - 1; i >= 0; i--) this.#freeRows.push(firstRow + i);
  }

  /** Blocks that have been put into requests, and all of them. */
  get sent(): number {
    return this.#content?.sent ?? 0;
  }

  get total(): number {
    return this.#content?.total ?? 0;
  }

  /** Sends what the device takes now; true when all was sent and answered. */
  more(): boolean {
    for (;;) {
      if (this.#next.count === 0) {
        const row = this.#freeRows[this.#freeRows.length - 1];
        if (row === undefined || !(this.#content?.fill(this.#table, row) ?? false)) return this.#inFlight === 0;
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

class LogContent {
  readonly #blocks: LogBlocks;
  readonly #numbers: Float64Array;
  #at = 0;
  /** The first sector of the present block that was not sent. */
  #sector = 0;

  constructor(blocks: LogBlocks) {
    this.#blocks = blocks;
    this.#numbers = blocks.blocks();
  }

  get sent(): number {
    return this.#at;
  }

  get total(): number {
    return this.#numbers.length;
  }

  /** Fills a row with the next request; false where all is in requests. The payload is in the log, and is lent until the reply. */
  fill(table: MessageTable, row: number): boolean {
    const segments = table.segments(row);
    segments.clear();
    let position = -1;
    let extent = 0;
    let zero = false;
    while (this.#at < this.#numbers.length && extent < RESEND_BYTES_MAX) {
      const block = this.#numbers[this.#at];
      const entry = this.#blocks.entry(block);
      const sectors = this.#blocks.sectors(entry);
      const first = nextSector(sectors, this.#sector, 1);
      if (first === SECTORS_PER_BLOCK) {
        this.#at++;
        this.#sector = 0;
        continue;
      }
      const from = block * LOG_BLOCK_BYTES + first * DISK_SECTOR_BYTES;
      if (position < 0) {
        position = from;
        zero = this.#blocks.isZero(entry);
      } else if (from !== position + extent || zero !== this.#blocks.isZero(entry)) {
        break;
      }
      const end = nextSector(sectors, first, 0);
      const length = (end - first) * DISK_SECTOR_BYTES;
      if (!zero) segments.add(this.#blocks.file.region, this.#blocks.dataOffset(entry) + first * DISK_SECTOR_BYTES, length);
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
