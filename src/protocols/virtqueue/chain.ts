import type { SegmentList } from '../../device/segments.ts';
import type { GuestRegion } from './memory.ts';

/** Most descriptors of one chain: what other devices accept, and eight times what a disk's driver is told to use. */
export const CHAIN_DESCRIPTORS_MAX = 1024;

/**
 * One descriptor chain, translated: first the parts that the device reads, then those that it writes. Made once and filled again for
 * each chain.
 */
export class Chain {
  head = 0;
  /** Parts in all, and how many of them, from the first, are readable. */
  count = 0;
  readableCount = 0;
  readableBytes = 0;
  writableBytes = 0;
  readonly #regions: GuestRegion[] = [];
  readonly #offsets = new Float64Array(CHAIN_DESCRIPTORS_MAX);
  readonly #lengths = new Float64Array(CHAIN_DESCRIPTORS_MAX);

  begin(head: number): void {
    this.head = head;
    this.count = 0;
    this.readableCount = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /** False where the chain is full. Readable parts come first; the queue has checked that. */
  add(region: GuestRegion, offset: number, length: number, writable: boolean): boolean {
    if (this.count === CHAIN_DESCRIPTORS_MAX) return false;
    this.#regions[this.count] = region;
    this.#offsets[this.count] = offset;
    this.#lengths[this.count] = length;
    this.count++;
    if (writable) this.writableBytes += length;
    else {
      this.readableBytes += length;
      this.readableCount++;
    }
    return true;
  }

  /** Copies readable bytes [skip, skip + length) into the front of `target`. Returns the bytes copied. */
  read(skip: number, target: Uint8Array, length: number): number {
    let copied = 0;
    for (let i = 0; i < this.readableCount && copied < length; i++) {
      const size = this.#lengths[i];
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const take = Math.min(size - skip, length - copied);
      copyBytes(this.#regions[i], this.#offsets[i] + skip, target, copied, take);
      copied += take;
      skip = 0;
    }
    return copied;
  }

  /** The part that holds writable byte `position` (0 is the first writable one). */
  writablePart(position: number): number {
    let part = this.readableCount;
    while (position >= this.#lengths[part]) position -= this.#lengths[part++];
    return part;
  }

  region(part: number): GuestRegion {
    return this.#regions[part];
  }

  /** The offset in `region(part)` of writable byte `position`. */
  writableOffset(part: number, position: number): number {
    for (let i = this.readableCount; i < part; i++) position -= this.#lengths[i];
    return this.#offsets[part] + position;
  }

  /** Appends readable bytes [skip, skip + length) to a message's segments; false where they are full. */
  appendReadable(target: SegmentList, skip: number, length: number): boolean {
    return this.#append(target, 0, this.readableCount, skip, length);
  }

  /** Appends writable bytes [skip, skip + length) to a message's segments, apart from what is there; false where they are full. */
  appendWritable(target: SegmentList, skip: number, length: number): boolean {
    return this.#append(target, this.readableCount, this.count, skip, length);
  }

  #append(target: SegmentList, from: number, to: number, skip: number, length: number): boolean {
    let first = true;
    for (let i = from; i < to && length > 0; i++) {
      const size = this.#lengths[i];
      if (skip >= size) {
        skip -= size;
        continue;
      }
      const take = Math.min(size - skip, length);
      const offset = this.#offsets[i] + skip;
      const region = this.#regions[i];
      if (!(first ? target.addSeparately(region, offset, take) : target.add(region, offset, take))) return false;
      first = false;
      length -= take;
      skip = 0;
    }
    return true;
  }
}

/** A few bytes, field by field: a view for each would be an object for each request. */
function copyBytes(region: GuestRegion, offset: number, target: Uint8Array, at: number, length: number): void {
  let i = 0;
  for (; i + 4 <= length; i += 4) {
    const word = region.readU32(offset + i);
    target[at + i] = word & 0xff;
    target[at + i + 1] = (word >>> 8) & 0xff;
    target[at + i + 2] = (word >>> 16) & 0xff;
    target[at + i + 3] = word >>> 24;
  }
  for (; i < length; i++) target[at + i] = region.readU8(offset + i);
}
