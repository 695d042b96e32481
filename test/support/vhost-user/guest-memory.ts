/**
 * A guest's RAM, as QEMU lays it out with `memory-backend-memfd`: one memfd, seen by the guest as two regions, of which the second
 * begins at 4 GiB. So every test has addresses that do not fit 32 bits, and a region with an offset into its descriptor.
 */
import { native } from '../../../native/index.ts';

/** Guest physical address of the upper region. */
export const UPPER_MEMORY_ADDRESS = 2 ** 32;

/** Where the regions would lie in the VMM's own address space; unlike the guest's addresses, so that a mix-up shows. */
const USER_ADDRESS_BASE = 0x7f10_0000_0000;

const PAGE_BYTES = 4096;
/** Smallest piece that `allocate` hands out: keeps every piece aligned for any virtqueue structure. */
const PIECE_BYTES_MIN = 64;

/** One region of the memory table. */
export interface GuestRegion {
  readonly guestAddress: number;
  readonly userAddress: number;
  readonly sizeBytes: number;
  /** Where the region begins in the descriptor. */
  readonly fileOffset: number;
  readonly fd: number;
}

interface MappedRegion extends GuestRegion {
  readonly handle: number;
  readonly window: ArrayBuffer;
  /** First byte that was never allocated. */
  top: number;
}

export class GuestMemory {
  readonly #fd: number;
  readonly #regions: MappedRegion[];
  /** Pieces that were given back, by size. */
  readonly #free = new Map<number, number[]>();

  /** Two regions of half of `sizeBytes` each, zeroed. `sizeBytes` is a multiple of two pages. */
  constructor(sizeBytes: number) {
    const half = sizeBytes / 2;
    if (half < PAGE_BYTES || half % PAGE_BYTES !== 0)
      throw new RangeError(`guest memory of ${sizeBytes} bytes is not two regions of pages`);
    this.#fd = native.createMemoryFile('guest-memory', sizeBytes);
    this.#regions = [0, UPPER_MEMORY_ADDRESS].map((guestAddress, i) => {
      const handle = native.mapRegion(this.#fd, i * half, half);
      const window = native.regionWindow(handle, 0, half);
      const place = { guestAddress, userAddress: USER_ADDRESS_BASE + i * half, sizeBytes: half, fileOffset: i * half };
      // Page 0 is left alone: an address that was forgotten is 0, and then nobody's data is hit.
      return { ...place, fd: this.#fd, handle, window, top: guestAddress + PAGE_BYTES };
    });
  }

  get regions(): readonly GuestRegion[] {
    return this.#regions;
  }

  /**
   * A piece of guest memory; its guest physical address. Not zeroed. Pieces come from the upper region, which holds data, or from
   * the lower one, which holds rings. Throws where the region is full: take more memory for the test.
   */
  allocate(bytes: number, where: 'lower' | 'upper' = 'upper'): number {
    const size = pieceBytes(bytes);
    const region = this.#regions[where === 'lower' ? 0 : 1];
    if (where === 'upper') {
      const reused = this.#free.get(size)?.pop();
      if (reused !== undefined) return reused;
    }
    const alignment = Math.min(size, PAGE_BYTES);
    const address = Math.ceil(region.top / alignment) * alignment;
    if (address + size > region.guestAddress + region.sizeBytes)
      throw new RangeError(`guest memory is full: no ${size} bytes left in the ${where} region`);
    region.top = address + size;
    return address;
  }

  /** Gives back a piece of the upper region, with the size that it was asked for with. */
  free(address: number, bytes: number): void {
    const size = pieceBytes(bytes);
    const pieces = this.#free.get(size);
    if (pieces === undefined) this.#free.set(size, [address]);
    else pieces.push(address);
  }

  /** A view over guest memory: the very bytes that the backend sees. Throws outside memory. */
  bytes(address: number, length: number): Uint8Array {
    const region = this.#find(address, length);
    return new Uint8Array(region.window, address - region.guestAddress, length);
  }

  /** As `bytes`, for typed arrays. */
  place(address: number, length: number): { buffer: ArrayBuffer; offset: number } {
    const region = this.#find(address, length);
    return { buffer: region.window, offset: address - region.guestAddress };
  }

  /** The VMM's address of a guest address, which is what SET_VRING_ADDR speaks of. */
  userAddress(address: number): number {
    const region = this.#find(address, 1);
    return region.userAddress + (address - region.guestAddress);
  }

  /** Unmaps and closes. Views become empty. */
  close(): void {
    for (const region of this.#regions) native.unmapRegion(region.handle);
    native.close(this.#fd);
  }

  #find(address: number, length: number): MappedRegion {
    for (const region of this.#regions) {
      if (address >= region.guestAddress && address + length <= region.guestAddress + region.sizeBytes) return region;
    }
    throw new RangeError(`guest memory has no ${length} bytes at 0x${address.toString(16)}`);
  }
}

/** Sizes are powers of two, so that a piece that was given back fits the next of its kind. */
function pieceBytes(bytes: number): number {
  return Math.max(PIECE_BYTES_MIN, 2 ** Math.ceil(Math.log2(bytes)));
}
