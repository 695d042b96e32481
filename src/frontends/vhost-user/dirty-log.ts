/**
 * The dirty log of a live migration (vhost-user, "Migration"): a bitmap of the VMM's, one bit for each 4 KiB page of guest memory, in which we
 * note what we have written. The VMM takes bits out while we put others in, so each is stored atomically, and after its page was written.
 */
import type { Region } from '../../device/region.ts';
import type { SegmentList } from '../../device/segments.ts';
import { MappedRegion } from './mapped-region.ts';
import type { MemoryGeneration } from './memory.ts';
import { refused } from './ring-messages.ts';

/** VHOST_LOG_PAGE. */
const PAGE_BYTES = 4096;
/** Of a guest of 32 TiB. */
const LOG_BYTES_MAX = 2 ** 30;

export class DirtyLog {
  /** VHOST_F_LOG_ALL: what requests write is noted. The rings say for themselves whether their used ring is. */
  logsAll = false;
  #mapping: MappedRegion | undefined;
  #bits = new Uint8Array(0);

  /** SET_LOG_BASE: `bytes` from `offset` in `fd`, which stays the caller's, in place of the one before. Throws `protocol` for what cannot be. */
  use(fd: number, bytes: number, offset: number): void {
    if (!(bytes <= LOG_BYTES_MAX && offset <= LOG_BYTES_MAX))
      throw refused(`a dirty log of ${bytes} bytes from byte ${offset} is larger than ${LOG_BYTES_MAX}`);
    let mapping: MappedRegion;
    try {
      mapping = new MappedRegion(fd, offset + bytes);
    } catch (error) {
      throw refused(`the dirty log cannot be mapped: ${(error as Error).message}`);
    }
    this.close();
    this.#mapping = mapping;
    this.#bits = new Uint8Array(mapping.window(offset, bytes));
  }

  /** Notes `length` bytes from guest address `address` on. What is beyond the log's end is the VMM's own loss. */
  mark(address: number, length: number): void {
    if (length === 0) return;
    const end = Math.min(Math.ceil((address + length) / PAGE_BYTES), this.#bits.length * 8);
    for (let page = Math.floor(address / PAGE_BYTES); page < end; page++)
      Atomics.or(this.#bits, Math.floor(page / 8), 1 << (page % 8));
  }

  /** Notes a place in memory. */
  markAt(memory: MemoryGeneration, region: Region, offset: number, length: number): void {
    this.mark(memory.guestAddress(region, offset), length);
  }

  /** Notes all bytes of a payload behind the first `skip`. */
  markSegments(memory: MemoryGeneration, { count, regions, offsets, lengths }: SegmentList, skip: number): void {
    for (let i = 0; i < count; i++) {
      const before = Math.min(skip, lengths[i]);
      skip -= before;
      this.markAt(memory, regions[i]!, offsets[i] + before, lengths[i] - before);
    }
  }

  close(): void {
    this.#bits = new Uint8Array(0);
    this.#mapping?.unmap();
    this.#mapping = undefined;
  }
}
