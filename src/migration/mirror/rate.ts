/** A bound in bytes per second that may be changed at any time, and how fast it really goes. */
import type { Clock } from '../../lib/clock.ts';

/** What may go at once after a rest, as a time at full speed. */
const BURST_MS = 100;
/** How far back the measured speed looks. */
const MEASURE_MS = 2_000;

export class Rate {
  readonly #clock: Clock;
  #limit: number | undefined;
  /** When all that went would have gone at the limit. */
  #paidUntil = 0;
  /** Bytes of the part of time that is measured now, since when, and what the part before it gave. */
  #bytes = 0;
  #since: number;
  #before = 0;

  constructor(clock: Clock, limit: number | undefined) {
    this.#clock = clock;
    this.#limit = limit;
    this.#since = clock.now();
  }

  /** Bytes per second; undefined: no bound. */
  get limit(): number | undefined {
    return this.#limit;
  }

  set limit(limit: number | undefined) {
    this.#limit = limit;
    this.#paidUntil = this.#clock.now();
  }

  /** Milliseconds until more may go; 0: now. */
  get waitMs(): number {
    if (this.#limit === undefined) return 0;
    return Math.max(0, this.#paidUntil - this.#clock.now());
  }

  /** So many bytes go. */
  take(bytes: number): void {
    if (this.#limit === undefined) return;
    this.#paidUntil = Math.max(this.#paidUntil, this.#clock.now() - BURST_MS) + (bytes / this.#limit) * 1000;
  }

  /** So many bytes arrived. */
  done(bytes: number): void {
    this.#turn();
    this.#bytes += bytes;
  }

  /** As measured over the last seconds. */
  get bytesPerSecond(): number {
    this.#turn();
    const elapsed = this.#clock.now() - this.#since;
    const share = Math.max(0, 1 - elapsed / MEASURE_MS);
    return Math.round(((this.#before * share + this.#bytes) / (MEASURE_MS * share + elapsed)) * 1000);
  }

  #turn(): void {
    const elapsed = this.#clock.now() - this.#since;
    if (elapsed < MEASURE_MS) return;
    this.#before = elapsed < 2 * MEASURE_MS ? (this.#bytes * MEASURE_MS) / elapsed : 0;
    this.#bytes = 0;
    this.#since = this.#clock.now();
  }
}
