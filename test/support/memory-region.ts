import type { Region } from '../../src/device/region.ts';

/** A region on JavaScript's heap, for tests of devices that make no system call on it. */
export class MemoryRegion implements Region {
  /** No mapping of the addon has this number: a system call on it fails. */
  readonly handle = -1;
  readonly size: number;
  readonly #bytes: Uint8Array;

  constructor(size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(size);
  }

  bytes(offset: number, length: number): Uint8Array {
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new RangeError(`[${offset}, ${offset} + ${length}) is outside a region of ${this.size} bytes`);
    }
    return this.#bytes.subarray(offset, offset + length);
  }
}
