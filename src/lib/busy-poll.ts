/**
 * How to wait for something that mostly comes within microseconds: not asleep, because going to sleep and being woken takes longer. The
 * window adapts itself, as KVM's halt polling does: it grows while what is awaited comes a little after its end, and shrinks to nothing
 * where that takes much longer, as with a slow device, a distant host, a guest with nothing to do, or no processor to spare.
 */
import type { Clock } from './clock.ts';

/** Longest time awake for one wait, unless the config says otherwise. */
export const BUSY_POLL_US_DEFAULT = 200;
const WINDOW_US_MIN = 12;

export interface BusyPollOptions {
  readonly clock: Clock;
  /** Keeps this thread's event loop awake for so many microseconds from now; 0 lets it sleep again. */
  readonly stayAwake: (microseconds: number) => void;
  /** 0: never awake. */
  readonly maxUs: number;
}

/** One thing that is awaited again and again: the next reply of a device, the next request of a guest. */
export class BusyPoll {
  readonly #options: BusyPollOptions;
  #windowUs: number;
  /** When the wait began, in the clock's milliseconds; negative: nothing is awaited. */
  #since = -1;

  constructor(options: BusyPollOptions) {
    this.#options = options;
    this.#windowUs = Math.min(WINDOW_US_MIN, options.maxUs);
  }

  /** From now on it is awaited, if it was not before. */
  begin(): void {
    const { clock, stayAwake, maxUs } = this.#options;
    if (maxUs === 0 || this.#since >= 0) return;
    this.#since = clock.now();
    if (this.#windowUs > 0) stayAwake(this.#windowUs);
  }

  /** It has come, or is awaited no more. */
  end(): void {
    if (this.#since < 0) return;
    const { clock, stayAwake, maxUs } = this.#options;
    const waitedUs = (clock.now() - this.#since) * 1000;
    const windowUs = this.#windowUs;
    this.#since = -1;
    if (waitedUs <= windowUs) stayAwake(0);
    else if (waitedUs <= maxUs) this.#windowUs = Math.min(maxUs, Math.max(WINDOW_US_MIN, windowUs * 2));
    else this.#windowUs = windowUs > WINDOW_US_MIN ? Math.floor(windowUs / 2) : 0;
  }
}
