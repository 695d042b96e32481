/** EVENTs that came in: kept in order, in bounded memory, until their taker takes them; then the sender gets its credit back. */
import { Batch } from '../device/batch.ts';
import { NetbusError } from '../device/errors.ts';
import { MessageTable } from '../device/message-table.ts';
import { scatter } from '../device/segments.ts';
import type { FrameHeader } from '../protocols/netbus/frame.ts';
import { EVENT_BYTES_MAX, EVENTS_MAX } from '../protocols/netbus/limits.ts';
import type { AllocateStaging, StagingRegion } from './staging.ts';

export class EventReceiver {
  readonly #allocate: AllocateStaging;
  readonly #table = new MessageTable(EVENTS_MAX);
  /** Complete ones that were not taken. */
  readonly #batch = new Batch(this.#table);
  /** Rows are used in turn, and so is the memory: events leave in the order in which they came. */
  #next = 0;
  #messages = 0;
  #bytes = 0;
  #memory: StagingRegion | undefined;
  #memoryEnd = 0;

  constructor(allocate: AllocateStaging) {
    this.#allocate = allocate;
  }

  /** An EVENT's header. Throws `protocol` where it exceeds the credit. */
  begin(frame: FrameHeader): void {
    const length = frame.payloadLength;
    if (this.#messages === EVENTS_MAX || this.#bytes + length > EVENT_BYTES_MAX) {
      throw new NetbusError('protocol', 'EVENT beyond the credit');
    }
    const row = this.#next;
    const table = this.#table;
    table.kind[row] = frame.kind;
    table.flags[row] = frame.flags;
    table.argument[row] = frame.argument;
    table.extent[row] = frame.extent;
    table.outLength[row] = length;
    table.inLength[row] = 0;
    this.#messages++;
    this.#bytes += length;
    if (length > 0) this.#place(row, length);
  }

  payload(bytes: Uint8Array, offset: number, length: number, position: number): void {
    scatter(this.#table.segments(this.#next), position, bytes, offset, length);
  }

  end(): void {
    this.#batch.add(this.#next);
    this.#next = (this.#next + 1) % EVENTS_MAX;
  }

  /** Offers what waits to `push`, and tells `credit` what was taken. What is left waits for the next call. */
  deliver(push: (events: Batch) => number, credit: (messages: number, bytes: number) => void): void {
    if (this.#batch.count === 0) return;
    const taken = push(this.#batch);
    if (taken === 0) return;
    let bytes = 0;
    for (let i = 0; i < taken; i++) {
      const row = this.#batch.rows[i];
      bytes += this.#table.outLength[row];
      this.#table.segments(row).clear();
    }
    this.#batch.drop(taken);
    this.#messages -= taken;
    this.#bytes -= bytes;
    credit(taken, bytes);
  }

  /** Frees the memory; the taker has none of it any more. */
  release(): void {
    this.#batch.clear();
    this.#memory?.release();
    this.#memory = undefined;
  }

  #place(row: number, length: number): void {
    this.#memory ??= this.#allocate(EVENT_BYTES_MAX);
    const segments = this.#table.segments(row);
    const first = Math.min(length, EVENT_BYTES_MAX - this.#memoryEnd);
    segments.add(this.#memory, this.#memoryEnd, first);
    if (first < length) segments.addSeparately(this.#memory, 0, length - first);
    this.#memoryEnd = (this.#memoryEnd + length) % EVENT_BYTES_MAX;
  }
}
