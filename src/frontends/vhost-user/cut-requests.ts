/** Rows that a device was cut off from: no device holds them, oldest first. What becomes of them is their ring's affair. */
import type { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';
import type { RingPump } from './ring-pump.ts';

export class CutRequests {
  readonly #table: RequestRows;
  readonly #rings: readonly Ring[];
  #rows: number[] = [];
  /** Rows of rings that have stopped, as long as a device that is not closed may use their memory. */
  #buried = 0;

  constructor(table: RequestRows, rings: readonly Ring[]) {
    this.#table = table;
    this.#rings = rings;
  }

  /** Requests without an answer: with a device, cut off, and those that rings have stopped with. */
  get inFlight(): number {
    const stopped = this.#rings.map(({ queue, left }) => (queue === undefined ? (left?.heads.length ?? 0) : 0));
    return stopped.reduce((sum, count) => sum + count, this.#table.count - this.#buried);
  }

  add(rows: readonly number[]): void {
    this.#rows.push(...rows);
  }

  /** The heads of a ring, in the order in which they were taken. */
  headsOf(ring: Ring): number[] {
    return this.#rows.filter((row) => this.#table.ring[row] === ring.index).map((row) => this.#table.head[row]);
  }

  /** The next device gets those of rings that run; the others are being stopped. */
  resume(pump: RingPump): void {
    const goesOn = (row: number) => this.#rings[this.#table.ring[row]].started;
    for (const row of this.#rows) if (goesOn(row)) pump.add(row);
    this.#rows = this.#rows.filter((row) => !goesOn(row));
  }

  /** These rows, of one ring or of all, go nowhere any more; once the device is `closed` they are free. Resolves then. */
  bury(ring: Ring | undefined, closed: Promise<void>): Promise<void> {
    const isBuried = (row: number) => ring === undefined || this.#table.ring[row] === ring.index;
    const buried = this.#rows.filter(isBuried);
    this.#rows = this.#rows.filter((row) => !isBuried(row));
    this.#buried += buried.length;
    return closed.then(() => {
      this.#buried -= buried.length;
      for (const row of buried) this.#table.release(row);
    });
  }
}
