/** The flushes of the new disk: often enough that little can be forgotten there, and at once where the copy waits for one. */
import type { Clock } from '../../lib/clock.ts';
import type { DirtyMap } from './dirty-map.ts';
import type { Target } from './target.ts';

/** It is flushed when so much is unflushed, or so long after the first of it. */
const FLUSH_BYTES = 64 * 1024 * 1024;
const FLUSH_MS = 1_000;

export interface FlushOwner {
  readonly map: DirtyMap;
  readonly target: Target;
  readonly clock: Clock;
  /** A flush is due. */
  tend(): void;
}

export class TargetFlush {
  readonly #owner: FlushOwner;
  /** Bytes that left since the last flush began. */
  #bytes = 0;
  #isDue = false;
  #cancel: (() => void) | undefined;
  /** One is on its way; `calm`: it began when nothing was dirty. */
  #state: 'none' | 'sent' | 'calm' = 'none';

  constructor(owner: FlushOwner) {
    this.#owner = owner;
  }

  /** So many bytes leave for the new disk. */
  left(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Sends one, if it is time, or `now`. */
  tend(now: boolean): void {
    const { map, target, clock } = this.#owner;
    if (this.#state !== 'none' || map.unflushed === 0 || !target.isOpen) return;
    if (now || this.#isDue || this.#bytes >= FLUSH_BYTES) {
      this.#send(map, target);
      return;
    }
    this.#cancel ??= clock.after(FLUSH_MS, () => {
      this.#cancel = undefined;
      this.#isDue = true;
      this.#owner.tend();
    });
  }

  /** It was answered. True where nothing is dirty, and nothing was when it left. */
  succeeded(): boolean {
    const { map } = this.#owner;
    const wasCalm = this.#state === 'calm';
    this.#state = 'none';
    map.flushed();
    return wasCalm && map.dirty === 0;
  }

  /** It failed: what it was to cover may be lost, and whatever else was not flushed. */
  failed(): void {
    this.#state = 'none';
    this.#owner.map.forget();
  }

  /** The new disk was cut loose. */
  stop(): void {
    if (this.#state !== 'none') this.#owner.map.flushEnded();
    this.#state = 'none';
    this.#stopTimer();
  }

  #send(map: DirtyMap, target: Target): void {
    this.#stopTimer();
    this.#bytes = 0;
    this.#state = map.dirty === 0 ? 'calm' : 'sent';
    map.beginFlush();
    target.eachPending((position, length) => map.markUnflushed(position, length));
    target.sendFlush();
  }

  #stopTimer(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#isDue = false;
  }
}
