/** How long a guest waited for us, by our clock, when its rings last stopped and when they last began. Over all connections. */
import type { Clock } from '../../lib/clock.ts';

export interface RingsStop {
  /** Wall time of the last ring's answer. */
  readonly atMs: number;
  /** `cut`: requests are unfinished. */
  readonly outcome: 'clean' | 'cut';
  /** From the first stop to the last reply; where the rest was cut off, to there. */
  readonly drainMs: number;
  /** From there, or from the last stop where that came later, to its answer. */
  readonly stallMs: number;
}

export interface RingsStart {
  /** Wall time of the first ring's first kick. */
  readonly atMs: number;
  /** From there to the first request that the device took, or to where it would have taken one: a guest may have none for long. */
  readonly stallMs?: number;
}

export class RingTimes {
  /** All rings were stopped by a VMM that stayed, and none has begun since. */
  lastStop: RingsStop | undefined;
  lastStart: RingsStart | undefined;
  readonly #clock: Clock;
  #startedMs = 0;
  /** Of the stops since a ring began last. */
  #firstStopMs: number | undefined;
  #lastStopMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A ring was kicked, and begins or waits; `first`: no other had begun. */
  started(first: boolean): void {
    this.lastStop = undefined;
    this.#firstStopMs = undefined;
    if (!first) return;
    this.#startedMs = this.#clock.now();
    this.lastStart = { atMs: this.#clock.wallTime() };
  }

  /** The device took the first request, or there was none. */
  served(nowMs: number): void {
    if (this.lastStart !== undefined && this.lastStart.stallMs === undefined)
      this.lastStart = { ...this.lastStart, stallMs: Math.max(0, nowMs - this.#startedMs) };
  }

  /** The VMM stops a ring. */
  stopAsked(): void {
    this.#lastStopMs = this.#clock.now();
    this.#firstStopMs ??= this.#lastStopMs;
  }

  /** It has the answer for the last ring that was running. */
  stopAnswered(drainedMs: number, outcome: 'clean' | 'cut'): void {
    if (this.#firstStopMs === undefined) return;
    this.lastStop = {
      atMs: this.#clock.wallTime(),
      outcome,
      drainMs: Math.max(0, drainedMs - this.#firstStopMs),
      stallMs: this.#clock.now() - Math.max(drainedMs, this.#lastStopMs),
    };
  }
}
