/**
 * What a disk does about a device host that forgot: writes that were acknowledged and not flushed die with the memory of the
 * device's host while the guest lives on. Unanswered requests of a disk may always go again, in order; only this decides
 * whether the guest may go on at all.
 */
import { DiskFlag, DiskKind, DiskStatus } from './disk.ts';
import type { MessageTable } from './message-table.ts';
import type { ReplayPolicy } from './slot.ts';

export class DiskReplay implements ReplayPolicy {
  /** Writes acknowledged so far, and how many of them are known to be on stable storage. */
  #acknowledged = 0;
  #flushed = 0;
  /** Per row of a flush: the writes that were acknowledged when it was taken, which are what it covers. */
  #covers = new Float64Array(0);

  /** `before`: acknowledged writes that may be unflushed, of which nothing else is known, until a flush covers them. */
  constructor(before: 'nothing' | 'unknown' = 'nothing') {
    if (before === 'unknown') this.#acknowledged = 1;
  }

  /** True while an acknowledged write may exist in the memory of the device's host only. */
  get unflushed(): boolean {
    return this.#acknowledged > this.#flushed;
  }

  taken(table: MessageTable, row: number): void {
    if (table.kind[row] !== DiskKind.flush) return;
    // Each use by the guest has a table of its own, and a later one may have more rows.
    if (this.#covers.length < table.capacity) this.#covers = new Float64Array(table.capacity);
    this.#covers[row] = this.#acknowledged;
  }

  answered(table: MessageTable, row: number, status: number): void {
    if (status !== DiskStatus.ok) return;
    switch (table.kind[row]) {
      case DiskKind.write:
      case DiskKind.writeZeroes:
        if ((table.flags[row] & DiskFlag.durable) === 0) this.#acknowledged++;
        break;
      case DiskKind.flush:
        this.#flushed = Math.max(this.#flushed, this.#covers[row]);
        break;
    }
  }
}
