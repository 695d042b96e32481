/**
 * A guest without a machine: a few pieces of memory, and a driver's side of one split queue that writes whatever it is told. For the
 * property tests and the fuzzer of the virtqueue.
 */
import type { QueueHandOver } from '../../src/device/hand-over.ts';
import {
  AddressMap,
  availableBytes,
  descriptorBytes,
  type GuestRegion,
  type InflightQueue,
  SplitQueue,
  usedBytes,
} from '../../src/protocols/virtqueue/index.ts';

export class BufferRegion implements GuestRegion {
  readonly handle: number;
  readonly size: number;
  readonly view: DataView;

  constructor(handle: number, size: number) {
    this.handle = handle;
    this.size = size;
    this.view = new DataView(new ArrayBuffer(size));
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.view.buffer, offset, length);
  }

  readU8(offset: number): number {
    return this.view.getUint8(offset);
  }

  readU16(offset: number): number {
    return this.view.getUint16(offset, true);
  }

  readU32(offset: number): number {
    return this.view.getUint32(offset, true);
  }

  writeU8(offset: number, value: number): void {
    this.view.setUint8(offset, value);
  }
}

export interface Descriptor {
  address: number;
  length: number;
  flags: number;
  next: number;
}

/** Flags of a descriptor. */
export const NEXT = 1;
export const WRITE = 2;
export const INDIRECT = 4;

/** Where the data memory of the model begins: two neighbours above 4 GiB, then a hole, then a third. */
export const DATA_START = 0x1_0000_0000;
export const DATA_BYTES = 65536;
export const HOLE_START = DATA_START + 2 * DATA_BYTES;
export const FAR_START = 0x100_0000_0000;

export class ModelGuest {
  readonly size: number;
  readonly table: BufferRegion;
  readonly data: readonly BufferRegion[];
  readonly map: AddressMap;
  /** The device's side; another one after a kill. */
  queue: SplitQueue;
  readonly available: DataView;
  readonly used: DataView;
  readonly #eventIndex: boolean;
  #availableIndex: number;
  #publishedIndex: number;
  #usedIndex: number;

  constructor(
    size: number,
    options: { indirect?: boolean; eventIndex?: boolean; base?: number; inflight?: InflightQueue } = {},
  ) {
    const { indirect = true, eventIndex = true, base = 0, inflight } = options;
    this.size = size;
    this.#eventIndex = eventIndex;
    this.table = new BufferRegion(1, descriptorBytes(size));
    this.data = [2, 3, 4].map((handle) => new BufferRegion(handle, DATA_BYTES));
    this.map = new AddressMap([
      { start: FAR_START, size: DATA_BYTES / 2, region: this.data[2], offset: DATA_BYTES / 2 },
      { start: DATA_START, size: DATA_BYTES, region: this.data[0], offset: 0 },
      { start: DATA_START + DATA_BYTES, size: DATA_BYTES, region: this.data[1], offset: 0 },
    ]);
    const available = new ArrayBuffer(availableBytes(size));
    const used = new ArrayBuffer(usedBytes(size));
    this.available = new DataView(available);
    this.used = new DataView(used);
    this.#availableIndex = base;
    this.#publishedIndex = base;
    this.#usedIndex = base;
    this.available.setUint16(2, base, true);
    this.used.setUint16(2, base, true);
    const memory = { map: this.map, descriptors: { region: this.table, offset: 0 }, available, used };
    this.queue = new SplitQueue({ index: 0, size, base, indirect, eventIndex, inflight, memory });
  }

  /** What the driver has seen of the used ring. */
  get usedIndex(): number {
    return this.#usedIndex;
  }

  /**
   * The device as it is after a kill: a queue that knows the rings and the region alone. Its base is what QEMU 7.2 knows, the used index.
   * `copy` leaves this guest's rings alone.
   */
  recoveredQueue(inflight: InflightQueue, copy: boolean): SplitQueue {
    const base = this.used.getUint16(2, true);
    return new SplitQueue({ ...this.#options(copy), base, inflight });
  }

  /** The device at another host. */
  arrivedQueue(handOver: QueueHandOver | null, base: number, options: { inflight?: InflightQueue; copy: boolean }): SplitQueue {
    return new SplitQueue({ ...this.#options(options.copy), base, handOver, inflight: options.inflight });
  }

  #options(copy: boolean) {
    const [available, used] = [this.available, this.used].map(({ buffer }) => (copy ? buffer.slice(0) : buffer) as ArrayBuffer);
    const memory = { map: this.map, descriptors: { region: this.table, offset: 0 }, available, used };
    return { index: 0, size: this.size, indirect: true, eventIndex: true, memory };
  }

  describe(index: number, { address, length, flags, next }: Descriptor): void {
    writeDescriptor(this.table.view, index * 16, address, length, flags, next);
  }

  /** Writes an indirect table into data memory. */
  describeIndirect(address: number, descriptors: readonly Descriptor[]): void {
    const range = this.map.find(address);
    const view = this.data.find((region) => region === this.map.region(range))!.view;
    descriptors.forEach(({ address: to, length, flags, next }, i) => {
      writeDescriptor(view, this.map.offset(range, address) + i * 16, to, length, flags, next);
    });
  }

  offer(head: number): void {
    this.available.setUint16(4 + 2 * (this.#availableIndex % this.size), head, true);
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
  }

  /** Shows what was offered. True where the device asked for a kick. */
  publish(): boolean {
    const before = this.#publishedIndex;
    const now = this.#availableIndex;
    this.#publishedIndex = now;
    this.available.setUint16(2, now, true);
    if (!this.#eventIndex) return now !== before && this.used.getUint16(0, true) === 0;
    const event = this.used.getUint16(4 + 8 * this.size, true);
    return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
  }

  forceAvailableIndex(index: number): void {
    this.available.setUint16(2, index & 0xffff, true);
  }

  /** Next used chain: [head, length], or undefined. */
  takeUsed(): [number, number] | undefined {
    if (this.used.getUint16(2, true) === this.#usedIndex) return undefined;
    const at = 4 + 8 * (this.#usedIndex % this.size);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    return [this.used.getUint32(at, true), this.used.getUint32(at + 4, true)];
  }

  /** Asks for a call with the next used chain. */
  armCall(): void {
    this.available.setUint16(4 + 2 * this.size, this.#usedIndex, true);
  }
}

function writeDescriptor(view: DataView, at: number, address: number, length: number, flags: number, next: number): void {
  view.setBigUint64(at, BigInt(address), true);
  view.setUint32(at + 8, length, true);
  view.setUint16(at + 12, flags, true);
  view.setUint16(at + 14, next, true);
}
