/** What must be closed at the end, or when the start fails half-way: in the reverse order of how it was opened. */
import { NetbusError } from '../device/errors.ts';
import type { Log } from '../lib/log.ts';

export class Closers {
  readonly #closers: { what: string; close: () => Promise<void> | void }[] = [];

  /** `what` is for the log, where closing fails. */
  add(what: string, close: () => Promise<void> | void): void {
    this.#closers.push({ what, close });
  }

  /** Closes all; one that fails is logged and keeps no other one open. Twice is once. */
  async close(log: Log): Promise<void> {
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      try {
        await closer.close();
      } catch (thrown) {
        log.error({ reason: NetbusError.from(thrown).message }, `${closer.what} could not be closed`);
      }
    }
  }
}
