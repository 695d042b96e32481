/** The descriptors of a split queue (virtio 1.2, 2.7.5): from a head to the chain's parts in guest memory, each field read once and checked. */
import { CHAIN_DESCRIPTORS_MAX, type Chain } from './chain.ts';
import type { AddressMap, GuestRegion } from './memory.ts';

export const DESCRIPTOR_BYTES = 16;
/** Flags (2.7.5). */
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

export class DescriptorTable {
  readonly #size: number;
  readonly #indirect: boolean;
  #map!: AddressMap;
  #region!: GuestRegion;
  #offset = 0;

  /** `size`: its entries. `indirect`: whether indirect tables were negotiated. */
  constructor(size: number, indirect: boolean) {
    this.#size = size;
    this.#indirect = indirect;
  }

  /** Where it is: `offset` in `region`; `map` translates the addresses in it. Before the first `walk`, and when the memory table changed. */
  remap(map: AddressMap, region: GuestRegion, offset: number): void {
    this.#map = map;
    this.#region = region;
    this.#offset = offset;
  }

  /** Reads the descriptors from `head` on into `chain`. What is wrong with them, in words for people; undefined where nothing is. */
  walk(head: number, chain: Chain): string | undefined {
    let table = this.#region;
    let tableOffset = this.#offset;
    let entries = this.#size;
    let indirect = false;
    let index = head;
    let seen = 0;
    chain.begin(head);
    for (;;) {
      // More descriptors than the table has means that one comes twice.
      if (seen++ === entries) return refused(head, index, `the chain loops or is longer than ${entries} descriptors`);
      const at = tableOffset + index * DESCRIPTOR_BYTES;
      const address = table.readU32(at) + table.readU32(at + 4) * 0x1_0000_0000;
      const length = table.readU32(at + 8);
      const flags = table.readU16(at + 12);
      const next = table.readU16(at + 14);
      if ((flags & INDIRECT) !== 0) {
        const reason = this.#checkIndirect(indirect, flags, address, length);
        if (reason !== undefined) return refused(head, index, reason);
        const range = this.#map.find(address);
        table = this.#map.region(range);
        tableOffset = this.#map.offset(range, address);
        entries = length / DESCRIPTOR_BYTES;
        indirect = true;
        index = 0;
        seen = 0;
        continue;
      }
      const reason = this.#addPart(chain, address, length, (flags & WRITE) !== 0);
      if (reason !== undefined) return refused(head, index, reason);
      if ((flags & NEXT) === 0) return undefined;
      if (next >= entries) return refused(head, index, `the next descriptor ${next} is not in the table of ${entries}`);
      index = next;
    }
  }

  #checkIndirect(nested: boolean, flags: number, address: number, length: number): string | undefined {
    if (!this.#indirect) return 'it is indirect, which was not negotiated';
    if (nested) return 'it is indirect inside an indirect table';
    if ((flags & NEXT) !== 0) return 'it is indirect and has a next one';
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0)
      return `its indirect table has ${length} bytes, not a multiple of ${DESCRIPTOR_BYTES}`;
    if (length > CHAIN_DESCRIPTORS_MAX * DESCRIPTOR_BYTES)
      return `its indirect table has more than ${CHAIN_DESCRIPTORS_MAX} descriptors`;
    const range = this.#map.find(address);
    if (range < 0 || this.#map.left(range, address) < length)
      return `its indirect table at ${hex(address)} is outside guest memory`;
    return undefined;
  }

  /** A buffer may go on from one range of memory into the next. */
  #addPart(chain: Chain, address: number, length: number, writable: boolean): string | undefined {
    if (length === 0) return 'its buffer is empty';
    if (!writable && chain.writableBytes > 0) return 'its buffer is readable after a writable one';
    while (length > 0) {
      const range = this.#map.find(address);
      if (range < 0) return `its buffer at ${hex(address)} is outside guest memory`;
      const take = Math.min(length, this.#map.left(range, address));
      if (!chain.add(this.#map.region(range), this.#map.offset(range, address), take, writable)) {
        return `the chain has more than ${CHAIN_DESCRIPTORS_MAX} parts`;
      }
      address += take;
      length -= take;
    }
    return undefined;
  }
}

function refused(head: number, descriptor: number, reason: string): string {
  return `head ${head}, descriptor ${descriptor}: ${reason}`;
}

function hex(address: number): string {
  return `0x${address.toString(16)}`;
}
