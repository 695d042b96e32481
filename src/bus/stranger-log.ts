/** Log lines about connections of nobody in particular. Anyone can make them, so they are limited in number. */
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';

export const STRANGER_LINES_MAX = 10;
export const STRANGER_WINDOW_MS = 60_000;

export class StrangerLog {
  readonly #log: Log;
  readonly #clock: Clock;
  #windowStart = Number.NEGATIVE_INFINITY;
  #lines = 0;
  #suppressed = 0;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  /** One line; beyond STRANGER_LINES_MAX in a window they are counted, and the next window begins with their number. */
  warn(address: string, problem: string): void {
    const now = this.#clock.now();
    if (now - this.#windowStart >= STRANGER_WINDOW_MS) this.#open(now);
    if (this.#lines === STRANGER_LINES_MAX) {
      this.#suppressed++;
      return;
    }
    this.#lines++;
    this.#log.warn({ address }, `the connection from ${address} was refused: ${problem}`);
  }

  #open(now: number): void {
    if (this.#suppressed > 0) {
      this.#log.warn({ count: this.#suppressed }, `${this.#suppressed} more connections were refused and not logged`);
    }
    this.#windowStart = now;
    this.#lines = 0;
    this.#suppressed = 0;
  }
}
