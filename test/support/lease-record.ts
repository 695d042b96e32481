/** A lease's record that is nowhere but in memory. */
import type { LeaseRecord } from '../../src/device/lease.ts';
import type { Succession } from '../../src/device/succession.ts';

export class MemoryRecord implements LeaseRecord {
  value: Succession;
  readonly #store: (value: Succession) => Promise<void>;
  #turn: Promise<unknown> = Promise.resolve();

  /** The VM is at m2, and nobody has held the lease, unless `value` says otherwise. What `store` rejects is not kept. */
  constructor(value: Partial<Succession> = {}, store: (value: Succession) => Promise<void> = async () => {}) {
    this.value = { host: 'm2', lease: { epoch: 0, holder: null }, ...value };
    this.#store = store;
  }

  change: LeaseRecord['change'] = (change) => {
    const result = this.#turn.then(async () => {
      const next = change(this.value);
      if (next === this.value) return;
      await this.#store(next);
      this.value = next;
    });
    this.#turn = result.catch(() => undefined);
    return result;
  };
}
