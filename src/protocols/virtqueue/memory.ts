import type { Region } from '../../device/region.ts';

/** A piece of guest memory: a region whose single fields can be reached without making an object for each. */
export interface GuestRegion extends Region {
  readU8(offset: number): number;
  readU16(offset: number): number;
  readU32(offset: number): number;
  writeU8(offset: number, value: number): void;
}

/** Where one piece of guest memory is: guest addresses [start, start + size) are the region's bytes from `offset` on. */
export interface MemoryRange {
  readonly start: number;
  readonly size: number;
  readonly region: GuestRegion;
  readonly offset: number;
}

/**
 * Guest addresses to places: an unchanging list of ranges that do not overlap. Addresses are exact doubles (below 2^53), never
 * the 32-bit integers that JavaScript's bit operations would make of them.
 */
export class AddressMap {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  /** What to add to an address to get the offset in its region. */
  readonly #shifts: Float64Array;
  readonly #regions: readonly GuestRegion[];
  /** The range of the last look-up: the next address is most often in the same one. */
  #last = 0;

  /** Throws a RangeError where ranges overlap: whoever makes a map has checked that. */
  constructor(ranges: readonly MemoryRange[]) {
    const sorted = [...ranges].sort((a, b) => a.start - b.start);
    this.#starts = Float64Array.from(sorted, (range) => range.start);
    this.#ends = Float64Array.from(sorted, (range) => range.start + range.size);
    this.#shifts = Float64Array.from(sorted, (range) => range.offset - range.start);
    this.#regions = sorted.map((range) => range.region);
    for (let i = 1; i < sorted.length; i++) {
      if (this.#starts[i] < this.#ends[i - 1]) throw new RangeError('the ranges of an address map overlap');
    }
  }

  /** The index of the range that holds `address`, or -1. */
  find(address: number): number {
    const last = this.#last;
    if (address >= this.#starts[last] && address < this.#ends[last]) return last;
    let low = 0;
    let high = this.#starts.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (address < this.#starts[middle]) high = middle - 1;
      else if (address >= this.#ends[middle]) low = middle + 1;
      else {
        this.#last = middle;
        return middle;
      }
    }
    return -1;
  }

  region(range: number): GuestRegion {
    return this.#regions[range];
  }

  /** The offset of `address` in the region of the range that holds it. */
  offset(range: number, address: number): number {
    return address + this.#shifts[range];
  }

  /** Bytes from `address` to the end of the range that holds it. */
  left(range: number, address: number): number {
    return this.#ends[range] - address;
  }
}
