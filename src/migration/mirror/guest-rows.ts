/** The guest's requests that a mirror holds, as columns: what each is, where it is on its way to, and since when it waits. */
import { FreeRows, type MessageTable } from '../../device/message-table.ts';
import { InFlightWrites } from '../../filters/write-log/in-flight-writes.ts';

/** Most requests of the guest. */
export const GUEST_ROWS = 1024;

/** Where a request is on its way to, or that it waits for a copy or for another write. */
export const Place = { old: 1, target: 2, waiting: 4 } as const;

export class GuestRows {
  /** Writes, zeroes and discards that are on their way to a disk. */
  readonly writes: InFlightWrites;
  /** The guest's number of it. */
  readonly guestRow: Uint16Array;
  /** Places that it is at. */
  readonly places: Uint8Array;
  /** It changes the disk, and is one that the disk can do. */
  readonly isChange: Uint8Array;
  /** Where the piece that is on its way begins, and the bytes of it: large zeroes and discards go one after the other. */
  readonly position: Float64Array;
  readonly extent: Float64Array;
  /** What the old disk answered. */
  readonly status: Uint8Array;
  readonly length: Float64Array;
  /** When it began to wait for the new disk alone, or for a copy. */
  readonly since: Float64Array;
  /** Those that wait for a copy or for another write, oldest first. */
  readonly waiting: Uint16Array;
  waitingCount = 0;
  /** Rows that are in use. */
  held = 0;
  readonly #free: FreeRows;
  /** 1, 2, 3 … in the order in which they were taken; 0: not in use. */
  readonly #order: Float64Array;
  #taken = 0;

  constructor(rows: number) {
    this.writes = new InFlightWrites(rows);
    this.guestRow = new Uint16Array(rows);
    this.places = new Uint8Array(rows);
    this.isChange = new Uint8Array(rows);
    this.position = new Float64Array(rows);
    this.extent = new Float64Array(rows);
    this.status = new Uint8Array(rows);
    this.length = new Float64Array(rows);
    this.since = new Float64Array(rows);
    this.waiting = new Uint16Array(rows);
    this.#order = new Float64Array(rows);
    this.#free = new FreeRows(rows);
  }

  /** There must be one: no more than `rows` are held. */
  take(guestRow: number): number {
    const row = this.#free.take();
    this.guestRow[row] = guestRow;
    this.places[row] = 0;
    this.isChange[row] = 0;
    this.#order[row] = ++this.#taken;
    this.held++;
    return row;
  }

  give(row: number): void {
    this.#order[row] = 0;
    this.#free.give(row);
    this.held--;
  }

  isHeld(row: number): boolean {
    return this.#order[row] > 0;
  }

  /** It waits from `now` on. */
  wait(row: number, now: number): void {
    this.places[row] = Place.waiting;
    this.since[row] = now;
    this.waiting[this.waitingCount++] = row;
  }

  /** The guest's numbers of all, in the order in which they were taken. */
  unfinished(): number[] {
    const rows: number[] = [];
    for (let row = 0; row < this.#order.length && rows.length < this.held; row++) if (this.isHeld(row)) rows.push(row);
    return rows.sort((a, b) => this.#order[a] - this.#order[b]).map((row) => this.guestRow[row]);
  }
}

/** Makes a row the same request as one of another table, with the same payload. */
export function copyRequest(to: MessageTable, row: number, from: MessageTable, source: number): void {
  to.kind[row] = from.kind[source];
  to.flags[row] = from.flags[source];
  to.argument[row] = from.argument[source];
  to.extent[row] = from.extent[source];
  to.outLength[row] = from.outLength[source];
  to.inLength[row] = from.inLength[source];
  const places = from.segments(source);
  const segments = to.segments(row);
  segments.clear();
  for (let i = 0; i < places.count; i++) segments.addSeparately(places.regions[i]!, places.offsets[i], places.lengths[i]);
}
