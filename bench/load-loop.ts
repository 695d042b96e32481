/**
 * A closed loop of disk requests on one virtqueue, as fast as a driver can be: `depth` requests are always in flight, each
 * completion is sent again at once, and one kick goes out for all that a call brought. Nothing is allocated per request: a request is a
 * slot whose descriptors, buffers and header stay where they are.
 */
import { native } from '../native/index.ts';
import { BLOCK_HEADER_BYTES, BlockRequestType, BlockStatus } from '../test/support/vhost-user/block-request.ts';
import {
  DESCRIPTOR_BYTES,
  DescriptorFlag,
  type DriverQueue,
  indirectTable,
  writeDescriptor,
} from '../test/support/vhost-user/driver-queue.ts';
import type { GuestMemory } from '../test/support/vhost-user/guest-memory.ts';
import type { Load } from './disk-loads.ts';
import type { LatencyHistogram } from './latency-histogram.ts';

const SECTOR_BYTES = 512;
/** Passes over the used ring in one turn of the event loop; then other queues and timers get theirs. */
const PASSES_MAX = 64;
/** No device writes this: a status that still has it was never written. */
const STATUS_UNWRITTEN = 0xff;
/** header, data, status */
const DESCRIPTORS_PER_REQUEST = 3;

export interface LoadLoopOptions {
  readonly memory: GuestMemory;
  readonly queue: DriverQueue;
  readonly load: Load;
  /** Requests go to the first so many bytes of the disk. */
  readonly workingSetBytes: number;
  readonly seed: number;
  /** Where latencies are added; several loops may share one. */
  readonly histogram: LatencyHistogram;
  /** Milliseconds of a clock that only goes forward; the machine's by default. */
  readonly now?: () => number;
}

/** What a loop reports when it has stopped. */
export interface LoopTotals {
  /** Completions between the end of the warm-up and the end of the time. */
  completed: number;
  /** All completions, the warm-up's included. */
  total: number;
  /** Those of all whose status was not OK. */
  errors: number;
}

export class LoadLoop {
  readonly #memory: GuestMemory;
  readonly #queue: DriverQueue;
  readonly #load: Load;
  readonly #histogram: LatencyHistogram;
  readonly #now: () => number;
  readonly #blocks: number;
  /** Guest memory of all slots, and its views. */
  readonly #bufferBytes: number;
  readonly #bufferAddress: number;
  readonly #controlBytes: number;
  readonly #controlAddress: number;
  readonly #headers: Uint32Array;
  readonly #status: Uint8Array;
  readonly #tables: Uint32Array[] = [];
  readonly #startedAt: Float64Array;
  #random: number;
  #nextBlock = 0;
  #inFlight = 0;
  #measureFrom = 0;
  #measureUntil = 0;
  #totals: LoopTotals = { completed: 0, total: 0, errors: 0 };
  #watch = -1;
  #finished: ((totals: LoopTotals) => void) | undefined;

  /** Prepares the slots in guest memory. The ring is idle, and its indirect descriptors are negotiated. */
  constructor(options: LoadLoopOptions) {
    const { memory, queue, load, seed } = options;
    if (load.depth > queue.size) throw new RangeError(`depth ${load.depth} does not fit a queue of ${queue.size}`);
    this.#memory = memory;
    this.#queue = queue;
    this.#load = load;
    this.#histogram = options.histogram;
    this.#now = options.now ?? (() => performance.now());
    this.#blocks = Math.floor(options.workingSetBytes / load.blockBytes);
    this.#random = (seed | 0) === 0 ? 1 : seed | 0;
    this.#startedAt = new Float64Array(load.depth);
    this.#bufferBytes = load.depth * load.blockBytes;
    this.#bufferAddress = memory.allocate(this.#bufferBytes);
    memory.bytes(this.#bufferAddress, this.#bufferBytes).fill(0x5a);

    // All headers, then all indirect tables, then all status bytes.
    const tableBytes = DESCRIPTORS_PER_REQUEST * DESCRIPTOR_BYTES;
    this.#controlBytes = load.depth * (BLOCK_HEADER_BYTES + tableBytes + 1);
    this.#controlAddress = memory.allocate(this.#controlBytes);
    const tablesAddress = this.#controlAddress + load.depth * BLOCK_HEADER_BYTES;
    const statusAddress = tablesAddress + load.depth * tableBytes;
    const headers = memory.place(this.#controlAddress, load.depth * BLOCK_HEADER_BYTES);
    this.#headers = new Uint32Array(headers.buffer, headers.offset, (load.depth * BLOCK_HEADER_BYTES) / 4);
    this.#status = memory.bytes(statusAddress, load.depth);
    for (let slot = 0; slot < load.depth; slot++) {
      const tableAddress = tablesAddress + slot * tableBytes;
      const table = indirectTable(memory, tableAddress, DESCRIPTORS_PER_REQUEST);
      writeDescriptor(table, 0, this.#controlAddress + slot * BLOCK_HEADER_BYTES, BLOCK_HEADER_BYTES, DescriptorFlag.next, 1);
      writeDescriptor(table, 1, this.#bufferAddress + slot * load.blockBytes, load.blockBytes, DescriptorFlag.next, 2);
      writeDescriptor(table, 2, statusAddress + slot, 1, DescriptorFlag.write, 0);
      this.#tables.push(table);
      queue.writeDescriptor(slot, tableAddress, tableBytes, DescriptorFlag.indirect, 0);
    }
  }

  /**
   * Runs for `warmupMs`, then for `measureMs`, and resolves when the last request is answered. A device that answers nothing keeps it
   * waiting: the caller has a deadline.
   */
  run(warmupMs: number, measureMs: number): Promise<LoopTotals> {
    this.#measureFrom = this.#now() + warmupMs;
    this.#measureUntil = this.#measureFrom + measureMs;
    this.#watch = native.watch(this.#queue.callFd, { readable: true, writable: false }, this.#onCall);
    return new Promise((resolve) => {
      this.#finished = resolve;
      const now = this.#now();
      for (let slot = 0; slot < this.#load.depth; slot++) this.#submit(slot, now);
      this.#queue.armCall();
      this.#queue.notify();
    });
  }

  readonly #onCall = (): void => {
    native.drainEvent(this.#queue.callFd);
    for (let pass = 0; pass < PASSES_MAX; pass++) {
      this.#takeAll();
      this.#queue.notify();
      if (this.#inFlight === 0) {
        this.#finish();
        return;
      }
      if (!this.#queue.armCall()) return;
    }
    // There is more already; come again after the others.
    native.signalEvent(this.#queue.callFd);
  };

  /** Takes what the device has finished and sends each slot again, with one look at the clock for all. */
  #takeAll(): void {
    const now = this.#now();
    const measuring = now >= this.#measureFrom && now < this.#measureUntil;
    const running = now < this.#measureUntil;
    for (let slot = this.#queue.takeUsed(); slot !== -1; slot = this.#queue.takeUsed()) {
      this.#inFlight--;
      this.#totals.total++;
      if (this.#status[slot] !== BlockStatus.ok) this.#totals.errors++;
      if (measuring) {
        this.#totals.completed++;
        this.#histogram.add(now - this.#startedAt[slot]);
      }
      if (running) this.#submit(slot, now);
    }
  }

  #submit(slot: number, now: number): void {
    const block = this.#load.random ? Math.floor((this.#nextRandom() / 2 ** 32) * this.#blocks) : this.#nextSequential();
    const read =
      this.#load.readPercent === 100 || (this.#load.readPercent > 0 && this.#nextRandom() % 100 < this.#load.readPercent);
    const sector = block * (this.#load.blockBytes / SECTOR_BYTES);
    const header = slot * (BLOCK_HEADER_BYTES / 4);
    this.#headers[header] = read ? BlockRequestType.read : BlockRequestType.write;
    this.#headers[header + 2] = sector; // Typed arrays take the value modulo 2^32.
    this.#headers[header + 3] = Math.floor(sector / 2 ** 32);
    // The data descriptor's flags and next.
    this.#tables[slot][7] = (DescriptorFlag.next | (read ? DescriptorFlag.write : 0)) + (2 << 16);
    this.#status[slot] = STATUS_UNWRITTEN;
    this.#startedAt[slot] = now;
    this.#inFlight++;
    this.#queue.offer(slot);
  }

  #finish(): void {
    native.unwatch(this.#watch);
    this.#memory.free(this.#bufferAddress, this.#bufferBytes);
    this.#memory.free(this.#controlAddress, this.#controlBytes);
    this.#finished?.(this.#totals);
  }

  #nextSequential(): number {
    const block = this.#nextBlock;
    this.#nextBlock = block + 1 === this.#blocks ? 0 : block + 1;
    return block;
  }

  /** xorshift32: 32 random bits. */
  #nextRandom(): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return x >>> 0;
  }
}
