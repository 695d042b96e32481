import { SegmentList } from './segments.ts';

/** Most rows of a table: requests in flight of one attachment. */
export const TABLE_ROWS_MAX = 4096;

/** Rows behind those of a table's owner, for the requests of a filter's own. */
export const SPARE_ROWS = 16;

/**
 * The messages that one side has lent to the other, as columns. A message is a row; a row's number is its id for as long as
 * it is lent. The owner fills a row, pushes its number, and leaves it alone until the reply comes back (or until `push`
 * returns, for messages that have no reply). Every layer below reads the same columns: nothing is copied on the way.
 *
 * What `kind`, `flags`, `argument` and `extent` mean is the class's business (see `disk.ts`): they are enough for a disk's
 * request, a network frame, a USB packet, serial bytes and a virtio descriptor chain (docs/decisions/0002).
 */
export class MessageTable {
  readonly capacity: number;
  readonly kind: Uint8Array;
  readonly flags: Uint16Array;
  /** Disk: byte position. An integer below 2^53. */
  readonly argument: Float64Array;
  /** Disk: bytes that the request is about, with or without payload. An integer below 2^53. */
  readonly extent: Float64Array;
  /** Payload bytes that go with the message: the first so many bytes of its segments. */
  readonly outLength: Float64Array;
  /** Room for the reply's payload: the bytes of the segments after the first `outLength`. */
  readonly inLength: Float64Array;
  /** Sparse until a row is used for the first time, so that an idle attachment costs little. */
  readonly #segments: (SegmentList | undefined)[];

  /** `base`: see `extended`. */
  constructor(capacity: number, base?: MessageTable) {
    const most = base === undefined ? TABLE_ROWS_MAX : TABLE_ROWS_MAX + SPARE_ROWS;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > most) {
      throw new RangeError(`a message table has 1 to ${TABLE_ROWS_MAX} rows, not ${capacity}`);
    }
    const rows = base === undefined ? capacity + SPARE_ROWS : capacity;
    this.capacity = capacity;
    this.kind = new Uint8Array(base?.kind.buffer ?? new ArrayBuffer(rows), 0, capacity);
    this.flags = new Uint16Array(base?.flags.buffer ?? new ArrayBuffer(2 * rows), 0, capacity);
    this.argument = new Float64Array(base?.argument.buffer ?? new ArrayBuffer(8 * rows), 0, capacity);
    this.extent = new Float64Array(base?.extent.buffer ?? new ArrayBuffer(8 * rows), 0, capacity);
    this.outLength = new Float64Array(base?.outLength.buffer ?? new ArrayBuffer(8 * rows), 0, capacity);
    this.inLength = new Float64Array(base?.inLength.buffer ?? new ArrayBuffer(8 * rows), 0, capacity);
    this.#segments = base === undefined ? new Array(rows).fill(undefined) : base.#segments;
  }

  /**
   * The same rows and SPARE_ROWS more behind them: what a filter shows the device below, so that the guest's requests go on as they are,
   * and its own travel beside them. For one filter in a chain.
   */
  extended(): MessageTable {
    return new MessageTable(this.capacity + SPARE_ROWS, this);
  }

  /** The payload's places: out part first, then in part. */
  segments(row: number): SegmentList {
    let list = this.#segments[row];
    if (list === undefined) {
      list = new SegmentList();
      this.#segments[row] = list;
    }
    return list;
  }
}

/** The free rows of a table, last returned first handed out: a shallow queue touches few rows. */
export class FreeRows {
  readonly #rows: Uint16Array;
  #count: number;

  constructor(capacity: number) {
    this.#rows = new Uint16Array(capacity);
    this.#count = capacity;
    for (let i = 0; i < capacity; i++) this.#rows[i] = capacity - 1 - i;
  }

  get count(): number {
    return this.#count;
  }

  /** A row, or -1 where all are lent. */
  take(): number {
    return this.#count === 0 ? -1 : this.#rows[--this.#count];
  }

  give(row: number): void {
    this.#rows[this.#count++] = row;
  }
}
