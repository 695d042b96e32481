/** The ranges of writes, zeroes and discards that a device holds, and the entries of the log that are reserved for each. */
export class InFlightWrites {
  readonly #rows: Uint16Array;
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #reserved: Int32Array;
  /** Row to its place in the columns. */
  readonly #placeOf: Uint16Array;
  #count = 0;

  constructor(rows: number) {
    this.#rows = new Uint16Array(rows);
    this.#starts = new Float64Array(rows);
    this.#ends = new Float64Array(rows);
    this.#reserved = new Int32Array(rows);
    this.#placeOf = new Uint16Array(rows);
  }

  overlaps(start: number, extent: number): boolean {
    const end = start + extent;
    for (let i = 0; i < this.#count; i++) if (this.#starts[i] < end && start < this.#ends[i]) return true;
    return false;
  }

  add(row: number, start: number, extent: number, reserved: number): void {
    const place = this.#count++;
    this.#rows[place] = row;
    this.#starts[place] = start;
    this.#ends[place] = start + extent;
    this.#reserved[place] = reserved;
    this.#placeOf[row] = place;
  }

  /** Returns what was reserved for it. */
  remove(row: number): number {
    const place = this.#placeOf[row];
    const reserved = this.#reserved[place];
    const last = --this.#count;
    this.#rows[place] = this.#rows[last];
    this.#starts[place] = this.#starts[last];
    this.#ends[place] = this.#ends[last];
    this.#reserved[place] = this.#reserved[last];
    this.#placeOf[this.#rows[place]] = place;
    return reserved;
  }
}
