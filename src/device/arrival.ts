/** A guest that is expected from another host, from when it is announced until it is here for good, or has left again untouched. */
import type { HandOver, QueueHandOver } from './hand-over.ts';

export class Arrival {
  /** See Passage. */
  readonly queues: Promise<readonly QueueHandOver[] | null>;
  #tell!: (queues: readonly QueueHandOver[] | null) => void;
  #known: readonly QueueHandOver[] | null = null;
  #isKnown = false;

  constructor() {
    this.queues = new Promise((resolve) => {
      this.#tell = resolve;
    });
  }

  /** This host has the lease. A later grant says nothing new. */
  granted(handOver: HandOver | undefined): void {
    if (this.#isKnown) return;
    this.#isKnown = true;
    this.#known = handOver?.queues ?? null;
    this.#tell(this.#known);
  }

  /** Nothing was taken that the last host does not know of; unfinished requests that were finished here do not count. */
  isUnchanged(queues: readonly QueueHandOver[]): boolean {
    return queues.every(({ fetched }, index) => fetched === (this.#known?.[index]?.fetched ?? 0));
  }
}
