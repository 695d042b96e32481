/** A guest that is expected from another host, from when it is announced until it is here for good, or has left again untouched. */
import { isDeepStrictEqual } from 'node:util';
import type { HandOver, QueueHandOver } from './hand-over.ts';

type Queues = readonly QueueHandOver[] | null;

export class Arrival {
  readonly #onAskedAgain: () => void;
  #queues: Promise<Queues>;
  #tell!: (queues: Queues) => void;
  /** Of the last grant; undefined: there was none. */
  #known: Queues | undefined;
  /** Somebody waits. */
  #isAwaited = true;

  /** `onAskedAgain`: what is known is of no use to the guest; `granted` should be called again. */
  constructor(onAskedAgain: () => void) {
    this.#onAskedAgain = onAskedAgain;
    this.#queues = this.#promise();
  }

  /** See Passage. */
  get queues(): Promise<Queues> {
    return this.#queues;
  }

  /** What is known does not fit the guest: resolves when this host knows something else. */
  askAgain(): Promise<Queues> {
    if (!this.#isAwaited) {
      this.#queues = this.#promise();
      this.#isAwaited = true;
      this.#onAskedAgain();
    }
    return this.#queues;
  }

  /** `granted` may bring something new that somebody waits for. */
  get isAskedAgain(): boolean {
    return this.#isAwaited && this.#known !== undefined;
  }

  /** Requests that the guest took elsewhere and that have no answer, by the last grant. */
  get unfinished(): number {
    return this.#known?.reduce((sum, { heads }) => sum + heads.length, 0) ?? 0;
  }

  /** This host has the lease. A later grant says nothing new, except where it was asked for. */
  granted(handOver: HandOver | undefined): void {
    if (!this.#isAwaited) return;
    const queues = handOver?.queues ?? null;
    if (this.#known !== undefined && isDeepStrictEqual(queues, this.#known)) return;
    this.#known = queues;
    this.#isAwaited = false;
    this.#tell(queues);
  }

  /** Nothing was taken that the last host does not know of; unfinished requests that were finished here do not count. */
  isUnchanged(queues: readonly QueueHandOver[]): boolean {
    return queues.every(({ fetched }, index) => fetched === (this.#known?.[index]?.fetched ?? 0));
  }

  #promise(): Promise<Queues> {
    return new Promise((resolve) => {
      this.#tell = resolve;
    });
  }
}
