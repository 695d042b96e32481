import type { Region } from './region.ts';
import { SEGMENTS_PER_MESSAGE_MAX, type SegmentList } from './segments.ts';

/**
 * Staging for payloads: a region cut into chunks of one size. The region's size is the bound on what is staged at a time. The
 * last chunk given back is the first one taken again, so that pages which were never needed are never touched.
 */
export class ChunkPool {
  readonly region: Region;
  /** Bytes. */
  readonly chunkBytes: number;
  /** Free chunks as a stack, by their number in the region. */
  readonly #free: Uint32Array;
  #count: number;

  /** Uses as many whole chunks as `region` has room for; `region` belongs to the caller and outlives the pool. */
  constructor(region: Region, chunkBytes: number) {
    const chunks = Math.floor(region.size / chunkBytes);
    if (!Number.isInteger(chunkBytes) || chunkBytes < 1 || chunks < 1) {
      throw new RangeError(`a region of ${region.size} bytes cannot be cut into chunks of ${chunkBytes}`);
    }
    this.region = region;
    this.chunkBytes = chunkBytes;
    this.#free = new Uint32Array(chunks);
    this.#count = chunks;
    for (let i = 0; i < chunks; i++) this.#free[i] = chunks - 1 - i;
  }

  /** Chunks that `take` can still give. */
  get free(): number {
    return this.#count;
  }

  /** Chunks in all. */
  get capacity(): number {
    return this.#free.length;
  }

  /** Chunks that `bytes` need. */
  chunks(bytes: number): number {
    return Math.ceil(bytes / this.chunkBytes);
  }

  /**
   * Appends `bytes` of staging to `list`; the last chunk may be used in part. All or nothing: false, and nothing taken, where the pool or
   * the list has no room. Chunks that are neighbours in memory become one segment.
   */
  take(list: SegmentList, bytes: number): boolean {
    const chunks = this.chunks(bytes);
    if (chunks > this.#count || list.count + chunks > SEGMENTS_PER_MESSAGE_MAX) return false;
    for (let left = bytes; left > 0; left -= this.chunkBytes) {
      const chunk = this.#free[--this.#count];
      list.add(this.region, chunk * this.chunkBytes, Math.min(left, this.chunkBytes));
    }
    return true;
  }

  /** Takes back everything in `list`, which came from `take` alone, and clears it. */
  give(list: SegmentList): void {
    // From the end, so that the next one who takes gets them in the same order, and neighbours stay neighbours.
    for (let i = list.count - 1; i >= 0; i--) {
      if (list.regions[i] !== this.region) throw new Error('a segment that is not of this pool was given back');
      const first = Math.floor(list.offsets[i] / this.chunkBytes);
      const end = Math.ceil((list.offsets[i] + list.lengths[i]) / this.chunkBytes);
      if (this.#count + end - first > this.#free.length) throw new Error('a chunk was given back twice');
      for (let chunk = end - 1; chunk >= first; chunk--) this.#free[this.#count++] = chunk;
    }
    list.clear();
  }
}
