/** One record: the value in memory is always what is on stable storage, and changes come one after the other. */
import { NetbusError } from '../device/errors.ts';
import type { RecordStore } from './store.ts';
import { Turns } from './turns.ts';

export class StoredRecord<Value> {
  readonly #store: RecordStore<Value>;
  readonly #key: string;
  readonly #turns = new Turns();
  #value: Value;
  #removed = false;

  /** `value` is what is stored, or what the first `save` will store. */
  constructor(store: RecordStore<Value>, key: string, value: Value) {
    this.#store = store;
    this.#key = key;
    this.#value = value;
  }

  get value(): Value {
    return this.#value;
  }

  /** Stores the value as it is. */
  save(): Promise<void> {
    return this.change((value) => ({ ...value }));
  }

  /**
   * Stores what `change` makes of the value; the value is the old one until that is durable. The same object means that there is nothing to store.
   * Throws `ended` once the record was removed.
   */
  change(change: (value: Value) => Value): Promise<void> {
    return this.#turns.run(async () => {
      if (this.#removed) throw new NetbusError('ended', `the record ${this.#key} was removed`);
      const next = change(this.#value);
      if (next === this.#value) return;
      await this.#store.put(this.#key, next);
      this.#value = next;
    });
  }

  /** Resolves when the changes that were asked for so far are stored, or failed. */
  settled(): Promise<void> {
    return this.#turns.idle();
  }

  remove(): Promise<void> {
    return this.#turns.run(async () => {
      await this.#store.remove(this.#key);
      this.#removed = true;
    });
  }
}
