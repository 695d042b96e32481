import { native } from '../../../native/index.ts';

/** The descriptors of one message: whoever needs one takes it, and the rest is closed when the message is done with. */
export class Descriptors {
  readonly #fds: number[];

  constructor(fds: readonly number[]) {
    this.#fds = [...fds];
  }

  /** All that nobody took; still to be closed here. */
  get all(): readonly number[] {
    return this.#fds;
  }

  /** The next one, which is the caller's from now on. The codec has counted them. */
  take(): number {
    return this.#fds.shift()!;
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) native.close(fd);
  }
}
