import type { Region } from './region.ts';

/** Most segments of one message: a virtqueue's 126 data descriptors fit, with room for what a filter splits. */
export const SEGMENTS_PER_MESSAGE_MAX = 256;

const FIRST_CAPACITY = 8;

/**
 * The places of one message's payload, in order. Columns instead of objects, grown to what the busiest message needed and
 * then kept, so that the data path allocates nothing in its steady state.
 */
export class SegmentList {
  count = 0;
  regions: (Region | undefined)[] = new Array(FIRST_CAPACITY).fill(undefined);
  offsets = new Float64Array(FIRST_CAPACITY);
  lengths = new Float64Array(FIRST_CAPACITY);

  /** Appends a place; false where the list is at its bound. Neighbours in memory become one segment. */
  add(region: Region, offset: number, length: number): boolean {
    const last = this.count - 1;
    if (last >= 0 && this.regions[last] === region && this.offsets[last] + this.lengths[last] === offset) {
      this.lengths[last] += length;
      return true;
    }
    return this.addSeparately(region, offset, length);
  }

  /** Appends a place that must not grow together with the one before it: where the out part ends and the in part begins. */
  addSeparately(region: Region, offset: number, length: number): boolean {
    if (this.count === SEGMENTS_PER_MESSAGE_MAX) return false;
    if (this.count === this.offsets.length) this.#grow();
    this.regions[this.count] = region;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.count++;
    return true;
  }

  clear(): void {
    for (let i = 0; i < this.count; i++) this.regions[i] = undefined;
    this.count = 0;
  }

  #grow(): void {
    const capacity = Math.min(this.offsets.length * 2, SEGMENTS_PER_MESSAGE_MAX);
    const offsets = new Float64Array(capacity);
    const lengths = new Float64Array(capacity);
    offsets.set(this.offsets);
    lengths.set(this.lengths);
    for (let i = this.regions.length; i < capacity; i++) this.regions.push(undefined);
    this.offsets = offsets;
    this.lengths = lengths;
  }
}

/**
 * Copies `length` bytes from `source` into the segments, beginning `skip` bytes into them. Returns the bytes copied (fewer where
 * the segments end first).
 */
export function scatter(target: SegmentList, skip: number, source: Uint8Array, sourceOffset: number, length: number): number {
  let copied = 0;
  for (let i = 0; i < target.count && copied < length; i++) {
    const size = target.lengths[i];
    if (skip >= size) {
      skip -= size;
      continue;
    }
    const take = Math.min(size - skip, length - copied);
    const from = sourceOffset + copied;
    target.regions[i]!.bytes(target.offsets[i] + skip, take).set(source.subarray(from, from + take));
    copied += take;
    skip = 0;
  }
  return copied;
}

/** Copies `length` bytes out of the segments, beginning `skip` bytes into them. Returns the bytes copied. */
export function gather(source: SegmentList, skip: number, target: Uint8Array, targetOffset: number, length: number): number {
  let copied = 0;
  for (let i = 0; i < source.count && copied < length; i++) {
    const size = source.lengths[i];
    if (skip >= size) {
      skip -= size;
      continue;
    }
    const take = Math.min(size - skip, length - copied);
    target.set(source.regions[i]!.bytes(source.offsets[i] + skip, take), targetOffset + copied);
    copied += take;
    skip = 0;
  }
  return copied;
}

/** Writes zeroes into `length` bytes of the segments, beginning `skip` bytes into them. */
export function clearBytes(target: SegmentList, skip: number, length: number): void {
  for (let i = 0; i < target.count && length > 0; i++) {
    const size = target.lengths[i];
    if (skip >= size) {
      skip -= size;
      continue;
    }
    const take = Math.min(size - skip, length);
    target.regions[i]!.bytes(target.offsets[i] + skip, take).fill(0);
    length -= take;
    skip = 0;
  }
}
