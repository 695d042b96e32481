import { Batch } from '../../device/batch.ts';
import type { MessageTable } from '../../device/message-table.ts';

/**
 * The rows that want a flush, in two groups: those that the flush under way covers, and those that came later and share the
 * next one. One at a time, because the kernel tells only one of two flushes at the same time about a page that it lost.
 */
export class FlushGroup {
  #waiting: Batch;
  #underWay: Batch;
  #busy = false;
  #covers = 0;

  constructor(table: MessageTable) {
    this.#waiting = new Batch(table);
    this.#underWay = new Batch(table);
  }

  get canBegin(): boolean {
    return !this.#busy && this.#waiting.count > 0;
  }

  /** What the last flush covers, as given to `begin`. */
  get covers(): number {
    return this.#covers;
  }

  add(row: number): void {
    this.#waiting.add(row);
  }

  /** The flush was handed over; it covers all that waited. */
  begin(covers: number): void {
    const done = this.#underWay;
    this.#underWay = this.#waiting;
    this.#waiting = done;
    this.#waiting.clear();
    this.#covers = covers;
    this.#busy = true;
  }

  /** The flush is over; gives its rows, valid until the next `begin`. */
  end(): Batch {
    this.#busy = false;
    return this.#underWay;
  }
}
