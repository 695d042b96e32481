/**
 * A guest's memory as the front-end describes it. Each change makes a new generation; a request keeps the one that it was translated with,
 * so that a change never waits for the device. A file stays mapped for as long as a generation that has it is in use.
 */
import { NetbusError } from '../../device/errors.ts';
import type { Region } from '../../device/region.ts';
import type { MemoryRegion } from '../../protocols/vhost-user/index.ts';
import { AddressMap, type MemoryRange } from '../../protocols/virtqueue/index.ts';
import { MappedRegion } from './mapped-region.ts';

/** What GET_MAX_MEM_SLOTS answers. */
export const MEMORY_SLOTS_MAX = 64;

/** One file of the table, and the generations that have it. */
interface Slot {
  readonly description: MemoryRegion;
  readonly mapping: MappedRegion;
  generations: number;
}

export class MemoryGeneration {
  /** Guest addresses, which descriptors speak of. */
  readonly guest: AddressMap;
  /** The front-end's addresses, which SET_VRING_ADDR speaks of. */
  readonly user: AddressMap;
  readonly slots: readonly Slot[];
  /** The table itself, rings, and requests in flight. */
  #users = 1;

  constructor(slots: readonly Slot[]) {
    this.slots = slots;
    this.guest = new AddressMap(slots.map((slot) => range(slot, slot.description.guestAddress)));
    this.user = new AddressMap(slots.map((slot) => range(slot, slot.description.userAddress)));
    for (const slot of slots) slot.generations++;
  }

  /** Of a place in one of its mappings. */
  guestAddress(region: Region, offset: number): number {
    const { description } = this.slots.find(({ mapping }) => mapping === region)!;
    return description.guestAddress + offset - description.mmapOffset;
  }

  retain(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users > 0) return;
    for (const slot of this.slots) if (--slot.generations === 0) slot.mapping.unmap();
  }
}

function range({ description, mapping }: Slot, start: number): MemoryRange {
  return { start, size: description.size, region: mapping, offset: description.mmapOffset };
}

export class GuestMemory {
  #current = new MemoryGeneration([]);

  get current(): MemoryGeneration {
    return this.#current;
  }

  /** SET_MEM_TABLE: replaces everything. One descriptor per region; they stay the caller's. On an error nothing has changed. */
  replace(regions: readonly MemoryRegion[], fds: readonly number[]): void {
    const slots: Slot[] = [];
    try {
      regions.forEach((region, i) => {
        checkOverlap(slots, region);
        slots.push(map(region, fds[i]));
      });
    } catch (error) {
      for (const slot of slots) slot.mapping.unmap();
      throw error;
    }
    this.#become(slots);
  }

  /** ADD_MEM_REG. */
  add(region: MemoryRegion, fd: number): void {
    const { slots } = this.#current;
    if (slots.length >= MEMORY_SLOTS_MAX) throw refused(region, `there are ${MEMORY_SLOTS_MAX} regions already`);
    checkOverlap(slots, region);
    this.#become([...slots, map(region, fd)]);
  }

  /** REM_MEM_REG. */
  remove(region: MemoryRegion): void {
    const { slots } = this.#current;
    const rest = slots.filter(({ description }) => !isSame(description, region));
    if (rest.length === slots.length) throw refused(region, 'there is no such region');
    this.#become(rest);
  }

  close(): void {
    this.#become([]);
  }

  #become(slots: readonly Slot[]): void {
    const before = this.#current;
    this.#current = new MemoryGeneration(slots);
    before.release();
  }
}

function map(description: MemoryRegion, fd: number): Slot {
  const { mmapOffset, size } = description;
  try {
    // From the file's beginning: on hugetlbfs only huge pages may be an offset, and regions do not always begin at one.
    return { description, mapping: new MappedRegion(fd, mmapOffset + size), generations: 0 };
  } catch (error) {
    throw refused(description, `its file cannot be mapped from 0 to ${mmapOffset + size}: ${(error as Error).message}`, error);
  }
}

function checkOverlap(slots: readonly Slot[], region: MemoryRegion): void {
  for (const { description } of slots) {
    if (overlap(description.guestAddress, description.size, region.guestAddress, region.size)) {
      throw refused(region, `it overlaps the region at guest address 0x${description.guestAddress.toString(16)}`);
    }
    if (overlap(description.userAddress, description.size, region.userAddress, region.size)) {
      throw refused(region, `it overlaps the region at user address 0x${description.userAddress.toString(16)}`);
    }
  }
}

function overlap(start: number, size: number, otherStart: number, otherSize: number): boolean {
  return start < otherStart + otherSize && otherStart < start + size;
}

/** The offset in the file is left out: QEMU does not repeat it when it removes a region. */
function isSame(a: MemoryRegion, b: MemoryRegion): boolean {
  return a.guestAddress === b.guestAddress && a.userAddress === b.userAddress && a.size === b.size;
}

function refused(region: MemoryRegion, reason: string, cause?: unknown): NetbusError {
  const place = `${region.size} bytes at guest address 0x${region.guestAddress.toString(16)}`;
  return new NetbusError('protocol', `vhost-user: memory region of ${place}: ${reason}`, { cause });
}
