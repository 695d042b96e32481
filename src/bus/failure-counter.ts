/**
 * Counts what failed, by address, and tells who failed too often. Bounded: strangers choose the addresses. Hosts behind one address (NAT) share its
 * count, so it is short, and nothing counts that a host with a good token can cause.
 */
import type { Clock } from '../lib/clock.ts';

/** So many failures within the window, and the address is blocked until the window ends. */
export const FAILURES_MAX = 5;
export const FAILURE_WINDOW_MS = 60_000;
/** At this many addresses the oldest is forgotten. */
const ADDRESSES_MAX = 1024;

interface Window {
  readonly startedAt: number;
  failures: number;
}

export class FailureCounter {
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #windows = new Map<string, Window>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  blocked(address: string): boolean {
    return (this.#current(address)?.failures ?? 0) >= FAILURES_MAX;
  }

  count(address: string): void {
    const current = this.#current(address);
    if (current !== undefined) {
      current.failures++;
      return;
    }
    if (this.#windows.size >= ADDRESSES_MAX) this.#windows.delete(this.#windows.keys().next().value!);
    this.#windows.set(address, { startedAt: this.#clock.now(), failures: 1 });
  }

  #current(address: string): Window | undefined {
    const found = this.#windows.get(address);
    if (found === undefined || this.#clock.now() - found.startedAt < FAILURE_WINDOW_MS) return found;
    this.#windows.delete(address);
    return undefined;
  }
}
