import { type Batch, Replies } from './batch.ts';
import type { Device, Guest, Quiesced } from './device.ts';
import type { Profile } from './profile.ts';

/** The device that is left where nothing else can be done: every request is answered with one failure status. */
export class FailedDevice implements Device {
  readonly profile: Profile;
  readonly depth: number;
  readonly #status: number;
  #guest: Guest | undefined;
  #replies: Replies | undefined;
  #scheduled = false;
  #waiting: (() => void) | undefined;
  #quiesced = false;

  constructor(profile: Profile, depth: number, status: number) {
    this.profile = profile;
    this.depth = depth;
    this.#status = status;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#replies = new Replies(guest.requests.capacity);
  }

  push(batch: Batch): number {
    if (this.#quiesced || this.#guest === undefined) return 0;
    const replies = this.#replies!;
    const count = Math.min(batch.count, this.depth - replies.count);
    for (let i = 0; i < count; i++) replies.add(batch.rows[i], this.#status, 0);
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(this.#answer);
    }
    return count;
  }

  ready(): void {}

  async quiesce(): Promise<Quiesced> {
    this.#quiesced = true;
    if (this.#scheduled) await new Promise<void>((resolve) => (this.#waiting = resolve));
    return { outcome: 'clean' };
  }

  close(): Promise<void> {
    this.#guest = undefined;
    this.#waiting?.();
    return Promise.resolve();
  }

  #answer = (): void => {
    this.#scheduled = false;
    const guest = this.#guest;
    const replies = this.#replies!;
    if (guest !== undefined) {
      const wasFull = replies.count === this.depth;
      guest.reply(replies);
      replies.clear();
      if (wasFull) guest.ready();
    }
    this.#waiting?.();
  };
}
