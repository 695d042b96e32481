import { FreeRows, MessageTable } from '../../device/message-table.ts';
import type { Chain, GuestRegion, SplitQueue } from '../../protocols/virtqueue/index.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { MemoryGeneration } from './memory.ts';
import type { Ring } from './ring.ts';

/** The requests of one guest: the rows that the device sees, and beside each where its chain came from. */
export class RequestRows {
  readonly table: MessageTable;
  readonly free: FreeRows;
  readonly ring: Uint8Array;
  readonly head: Uint16Array;
  readonly operation: Uint8Array;
  readonly startedMs: Float64Array;
  /** Rows of each ring that have no answer. */
  readonly inFlight: Uint32Array;
  readonly #dirtyLog: DirtyLog;
  readonly #queue: (SplitQueue | undefined)[];
  /** In the available ring of the queue; a row of an earlier queue has none. */
  readonly #position: Int32Array;
  readonly #statusRegion: (GuestRegion | undefined)[];
  readonly #statusOffset: Float64Array;
  readonly #generation: (MemoryGeneration | undefined)[];

  constructor(depth: number, rings: number, dirtyLog: DirtyLog) {
    this.#dirtyLog = dirtyLog;
    this.table = new MessageTable(depth);
    this.free = new FreeRows(depth);
    this.ring = new Uint8Array(depth);
    this.head = new Uint16Array(depth);
    this.operation = new Uint8Array(depth);
    this.startedMs = new Float64Array(depth);
    this.inFlight = new Uint32Array(rings);
    this.#queue = new Array(depth).fill(undefined);
    this.#position = new Int32Array(depth);
    this.#statusRegion = new Array(depth).fill(undefined);
    this.#statusOffset = new Float64Array(depth);
    this.#generation = new Array(depth).fill(undefined);
  }

  /** Rows without an answer, of all rings. */
  get count(): number {
    return this.table.capacity - this.free.count;
  }

  /** A free row for the chain that was taken last from the ring's queue; there is one. */
  assign(ring: Ring, queue: SplitQueue, chain: Chain, nowMs: number): number {
    const row = this.free.take();
    const part = chain.writablePart(chain.writableBytes - 1);
    this.ring[row] = ring.index;
    this.head[row] = chain.head;
    this.startedMs[row] = nowMs;
    this.inFlight[ring.index]++;
    this.#queue[row] = queue;
    this.#position[row] = queue.takenAt;
    this.#statusRegion[row] = chain.region(part);
    this.#statusOffset[row] = chain.writableOffset(part, chain.writableBytes - 1);
    ring.generation!.retain();
    this.#generation[row] = ring.generation;
    return row;
  }

  /** Answers the guest: status byte, used entry. The driver sees it with the queue's next `publish`. */
  answer(row: number, status: number, usedBytes: number): void {
    this.#statusRegion[row]!.writeU8(this.#statusOffset[row], status);
    if (this.#dirtyLog.logsAll) this.#noteWritten(row);
    this.#queue[row]!.put(this.head[row], usedBytes);
    this.release(row);
  }

  /** Everything that the device may have written, and the status byte. */
  #noteWritten(row: number): void {
    const generation = this.#generation[row]!;
    this.#dirtyLog.markSegments(generation, this.table.segments(row), this.table.outLength[row]);
    this.#dirtyLog.markAt(generation, this.#statusRegion[row]!, this.#statusOffset[row], 1);
  }

  /** Gives the row back without an answer. */
  release(row: number): void {
    this.inFlight[this.ring[row]]--;
    this.#generation[row]!.release();
    this.#generation[row] = undefined;
    this.#statusRegion[row] = undefined;
    this.#queue[row] = undefined;
    this.table.segments(row).clear();
    this.free.give(row);
  }

  /** Gives the row's chain back to the available ring. False where a later one was taken and kept: then it must be answered. */
  untake(row: number): boolean {
    const queue = this.#queue[row]!;
    if (((queue.nextAvailable - 1) & 0xffff) !== this.#position[row]) return false;
    queue.untake(this.head[row]);
    this.release(row);
    return true;
  }
}
