/**
 * The driver's side of a split virtqueue (virtio 1.2, 2.7): what a guest's virtio_ring does. Nothing is checked on the way into
 * shared memory, so that a test can also play the hostile guest: any descriptor, any index.
 */
import { native } from '../../../native/index.ts';
import type { GuestMemory } from './guest-memory.ts';

/** virtio 1.2, 2.7.5. */
export const DescriptorFlag = { next: 1, write: 2, indirect: 4 } as const;

export const DESCRIPTOR_BYTES = 16;
const WORDS_PER_DESCRIPTOR = 4;

/** virtio 1.2, 2.7.6 and 2.7.8: what a side that does not want to be woken says, where EVENT_IDX was not negotiated. */
const NO_WAKE_FLAG = 1;

export interface Descriptor {
  /** Guest physical. */
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

export class DriverQueue {
  readonly size: number;
  /** Guest physical addresses of the three parts. */
  readonly descriptorAddress: number;
  readonly availableAddress: number;
  readonly usedAddress: number;
  /** Eventfds: kick wakes the device, call wakes the driver. */
  readonly kickFd: number;
  readonly callFd: number;
  /** Whether EVENT_IDX was negotiated. */
  eventIndex = false;
  /** Bytes that the device says it has written: of the chain that `takeUsed` returned last. */
  usedLength = 0;

  readonly #descriptors: Uint32Array;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  /** Next entries to write and to read: free-running, 16 bits (virtio 1.2, 2.7.6). */
  #availableIndex = 0;
  #usedIndex = 0;
  /** What `publish` made visible last. */
  #publishedIndex = 0;

  /** Allocates the rings in `memory`. `size` is a power of two, 32768 at most. */
  constructor(memory: GuestMemory, size: number) {
    this.size = size;
    // Available ring: flags, index, entries, used_event. Used ring: flags, index, entries of two words, avail_event.
    const availableBytes = 2 * (3 + size);
    const usedBytes = 6 + 8 * size;
    this.descriptorAddress = memory.allocate(DESCRIPTOR_BYTES * size, 'lower');
    this.availableAddress = memory.allocate(availableBytes, 'lower');
    this.usedAddress = memory.allocate(usedBytes, 'lower');
    const table = memory.place(this.descriptorAddress, DESCRIPTOR_BYTES * size);
    const available = memory.place(this.availableAddress, availableBytes);
    const used = memory.place(this.usedAddress, usedBytes);
    this.#descriptors = new Uint32Array(table.buffer, table.offset, WORDS_PER_DESCRIPTOR * size);
    this.#available = new Uint16Array(available.buffer, available.offset, 3 + size);
    this.#used = new Uint16Array(used.buffer, used.offset, 3 + 4 * size);
    this.#usedElements = new Uint32Array(used.buffer, used.offset + 4, 2 * size);
    this.kickFd = native.createEvent();
    this.callFd = native.createEvent();
  }

  /** Fills one descriptor of the table. */
  writeDescriptor(index: number, address: number, length: number, flags: number, next: number): void {
    writeDescriptor(this.#descriptors, index, address, length, flags, next);
  }

  readDescriptor(index: number): Descriptor {
    const at = index * WORDS_PER_DESCRIPTOR;
    const [low, high, length, rest] = this.#descriptors.subarray(at, at + WORDS_PER_DESCRIPTOR);
    return { address: high * 2 ** 32 + low, length, flags: rest & 0xffff, next: rest >>> 16 };
  }

  /** Puts a chain's head into the available ring. The device sees it at the next `publish`. */
  offer(head: number): void {
    this.#available[2 + (this.#availableIndex & (this.size - 1))] = head;
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
  }

  /** Makes everything that was offered visible to the device. Returns whether the device wants a kick (virtio 1.2, 2.7.10.1). */
  publish(): boolean {
    const before = this.#publishedIndex;
    const now = this.#availableIndex;
    this.#publishedIndex = now;
    // The store must be visible before the device's wish is looked at: Atomics are sequentially consistent.
    Atomics.store(this.#available, 1, now);
    if (!this.eventIndex) return (Atomics.load(this.#used, 0) & NO_WAKE_FLAG) === 0 && before !== now;
    const event = Atomics.load(this.#used, 2 + 4 * this.size);
    return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  kick(): void {
    native.signalEvent(this.kickFd);
  }

  /** Publishes, and kicks where the device asks for it. */
  notify(): void {
    if (this.publish()) this.kick();
  }

  /** The head of the next chain that the device is done with, and its written bytes in `usedLength`; -1 where there is none. */
  takeUsed(): number {
    if (Atomics.load(this.#used, 1) === this.#usedIndex) return -1;
    const at = (this.#usedIndex & (this.size - 1)) * 2;
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    this.usedLength = this.#usedElements[at + 1];
    return this.#usedElements[at];
  }

  /** Asks for a call at the next completion. Returns whether one is there already: take it, then ask again. */
  armCall(): boolean {
    if (this.eventIndex) Atomics.store(this.#available, 2 + this.size, this.#usedIndex);
    return Atomics.load(this.#used, 1) !== this.#usedIndex;
  }

  /** Without EVENT_IDX: says whether calls are wanted. */
  setCallsWanted(wanted: boolean): void {
    Atomics.store(this.#available, 0, wanted ? 0 : NO_WAKE_FLAG);
  }

  /** Next entries: of the available ring to write, of the used ring to read. */
  get availableIndex(): number {
    return this.#availableIndex;
  }

  get usedIndex(): number {
    return this.#usedIndex;
  }

  /** What the device has published of the used ring: its index as it stands in memory. */
  get deviceUsedIndex(): number {
    return Atomics.load(this.#used, 1);
  }

  /** Hostile: writes the available index as it is, whatever was offered. */
  forceAvailableIndex(index: number): void {
    this.#availableIndex = index & 0xffff;
    this.#publishedIndex = this.#availableIndex;
    Atomics.store(this.#available, 1, this.#availableIndex);
  }

  /** Hostile: writes one entry of the available ring. */
  forceAvailableEntry(position: number, head: number): void {
    this.#available[2 + (position & (this.size - 1))] = head;
  }

  /** As after a reset of the device: empty rings, indexes 0. */
  reset(): void {
    this.#available.fill(0);
    this.#used.fill(0);
    this.#descriptors.fill(0);
    this.#availableIndex = 0;
    this.#publishedIndex = 0;
    this.#usedIndex = 0;
  }

  close(): void {
    native.close(this.kickFd);
    native.close(this.callFd);
  }
}

/** Fills descriptor `index` of a table given as 32-bit words: a queue's own, or an indirect one. */
export function writeDescriptor(
  table: Uint32Array,
  index: number,
  address: number,
  length: number,
  flags: number,
  next: number,
): void {
  const at = index * WORDS_PER_DESCRIPTOR;
  table[at] = address; // Typed arrays take the value modulo 2^32.
  table[at + 1] = Math.floor(address / 2 ** 32);
  table[at + 2] = length;
  table[at + 3] = (flags & 0xffff) | (next << 16);
}

/** An indirect table in guest memory, as `writeDescriptor` takes it. */
export function indirectTable(memory: GuestMemory, address: number, entries: number): Uint32Array {
  const { buffer, offset } = memory.place(address, entries * DESCRIPTOR_BYTES);
  return new Uint32Array(buffer, offset, entries * WORDS_PER_DESCRIPTOR);
}
