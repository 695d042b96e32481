import type { MessageTable } from './message-table.ts';

/** Rows of one table, in order: what `push` hands over. Owned by the caller, read during the call only. */
export class Batch {
  readonly table: MessageTable;
  readonly rows: Uint16Array;
  count = 0;

  constructor(table: MessageTable) {
    this.table = table;
    this.rows = new Uint16Array(table.capacity);
  }

  add(row: number): void {
    this.rows[this.count++] = row;
  }

  clear(): void {
    this.count = 0;
  }

  /** Drops the first `taken` rows; the rest moves to the front and keeps its order. */
  drop(taken: number): void {
    this.rows.copyWithin(0, taken, this.count);
    this.count -= taken;
  }
}

/** Answers to rows that the guest's side lent. Owned by the caller, read during `reply` only. */
export class Replies {
  readonly rows: Uint16Array;
  /** Of the class; 0 is success in each of them. */
  readonly statuses: Uint8Array;
  /** Bytes that were put into the in part of the row's segments. */
  readonly lengths: Float64Array;
  count = 0;

  constructor(capacity: number) {
    this.rows = new Uint16Array(capacity);
    this.statuses = new Uint8Array(capacity);
    this.lengths = new Float64Array(capacity);
  }

  add(row: number, status: number, length: number): void {
    this.rows[this.count] = row;
    this.statuses[this.count] = status;
    this.lengths[this.count] = length;
    this.count++;
  }

  clear(): void {
    this.count = 0;
  }
}
