/** Time, injected, so that tests own it. */
export interface Clock {
  /** Milliseconds on a clock that only goes forward; the origin means nothing. */
  now(): number;
  /** Milliseconds since 1970, for people and records. */
  wallTime(): number;
  /** Calls back once after `delayMs`; the result cancels. Does not keep the process alive. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A signal that aborts after `delayMs` of `clock`; `cancel` releases the timer. */
export function abortAfter(clock: Clock, delayMs: number): { signal: AbortSignal; cancel: () => void } {
  const controller = new AbortController();
  const cancel = clock.after(delayMs, () => controller.abort());
  return { signal: controller.signal, cancel };
}

/** A clock that stands still until it is advanced, for tests. Due callbacks run in the order of their time. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #timers: { at: number; callback: () => void }[] = [];

  now(): number {
    return this.#nowMs;
  }

  wallTime(): number {
    return Date.UTC(2026, 0, 1) + this.#nowMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { at: this.#nowMs + delayMs, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  advance(milliseconds: number): void {
    const end = this.#nowMs + milliseconds;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowMs = due.at;
      due.callback();
    }
    this.#nowMs = end;
  }
}
