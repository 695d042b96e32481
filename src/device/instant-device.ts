import { type Batch, Replies } from './batch.ts';
import type { Device, Guest, Quiesced } from './device.ts';
import type { MessageTable } from './message-table.ts';
import type { Profile } from './profile.ts';

/** Does one request inside `push` and returns its status. Success fills all of the request's in payload. */
export type InstantWork = (table: MessageTable, row: number) => number;

/** A device that needs nobody else for its work: it is done when it is taken, and answered in the next microtask. */
export class InstantDevice implements Device {
  readonly profile: Profile;
  readonly depth: number;
  readonly #work: InstantWork;
  /** Gone after `close` or a cut: nothing more is said. */
  #guest: Guest | undefined;
  /** Requests that were taken. */
  #taken!: Replies;
  /** What the guest reads at the moment; it may push meanwhile. */
  #given!: Replies;
  #scheduled = false;
  /** The guest is being called: what it pushes now waits for the next turn of the loop. */
  #delivering = false;
  /** The guest was refused something and waits for `ready`. */
  #guestWaits = false;
  #quiescing = false;
  #quiet: (() => void) | undefined;

  constructor(profile: Profile, depth: number, work: InstantWork) {
    this.profile = profile;
    this.depth = depth;
    this.#work = work;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#taken = new Replies(guest.requests.capacity);
    this.#given = new Replies(guest.requests.capacity);
  }

  push(batch: Batch): number {
    if (this.#guest === undefined || this.#quiescing) return 0;
    const { table, rows } = batch;
    const count = Math.min(batch.count, this.depth - this.#taken.count);
    for (let i = 0; i < count; i++) {
      const status = this.#work(table, rows[i]);
      this.#taken.add(rows[i], status, status === 0 ? table.inLength[rows[i]] : 0);
    }
    this.#guestWaits = count < batch.count;
    if (count > 0 && !this.#scheduled) {
      this.#scheduled = true;
      if (this.#delivering) setImmediate(this.#answer);
      else queueMicrotask(this.#answer);
    }
    return count;
  }

  ready(): void {}

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    if (this.#scheduled && !signal.aborted && this.#guest !== undefined) {
      await new Promise<void>((resolve) => {
        this.#quiet = resolve;
      });
    }
    this.#guest = undefined;
    if (this.#taken.count === 0) return { outcome: 'clean' };
    return { outcome: 'cut', unfinished: [...this.#taken.rows.subarray(0, this.#taken.count)] };
  }

  close(): Promise<void> {
    this.#guest = undefined;
    this.#quiet?.();
    return Promise.resolve();
  }

  #answer = (): void => {
    this.#scheduled = false;
    if (this.#guest === undefined) return;
    const given = this.#taken;
    this.#taken = this.#given;
    this.#given = given;
    this.#delivering = true;
    this.#guest.reply(given);
    given.clear();
    if (this.#guestWaits && !this.#quiescing) {
      this.#guestWaits = false;
      // The guest may have closed the device inside `reply`.
      this.#guest?.ready();
    }
    this.#delivering = false;
    if (this.#taken.count === 0) this.#quiet?.();
  };
}
