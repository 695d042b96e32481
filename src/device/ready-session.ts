/** A session that is opened before it is needed, so that a guest that comes waits for no connection and no handshake. */

import { within } from '../lib/abort.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import { NetbusError } from './errors.ts';
import type { OpenSession, Session } from './source.ts';

const RETRY_MS = 1_000;

export interface ReadySessionOptions {
  readonly open: OpenSession;
  readonly clock: Clock;
  /** Why there is none; undefined once there is. */
  readonly onTrouble: (cause: NetbusError | undefined) => void;
}

export class ReadySession {
  readonly #options: ReadySessionOptions;
  /** Aborted when it is not kept any more. */
  #keeping: AbortController | undefined;
  #session: Session | undefined;
  /** Of the session that is ready, or was given away. */
  #ended: (cause: NetbusError) => void = () => {};

  constructor(options: ReadySessionOptions) {
    this.#options = options;
  }

  /** From now on there is one, as far as the device's host lets us. Twice is once. */
  keep(): void {
    if (this.#keeping !== undefined) return;
    this.#keeping = new AbortController();
    void this.#keep(this.#keeping.signal);
  }

  /** Ends the one that is ready. */
  stop(): void {
    this.#keeping?.abort();
    this.#keeping = undefined;
    const session = this.#session;
    this.#session = undefined;
    session?.close();
  }

  /** Gives the one that is ready, or opens one. */
  readonly open: OpenSession = async (onEnded) => {
    const session = this.#session;
    this.#session = undefined;
    this.#keeping?.abort();
    this.#keeping = undefined;
    if (session === undefined) return this.#options.open(onEnded);
    this.#ended = onEnded;
    return session;
  };

  async #keep(signal: AbortSignal): Promise<void> {
    const { open, clock, onTrouble } = this.#options;
    while (!signal.aborted) {
      let end: (cause: NetbusError) => void = () => {};
      const ended = new Promise<NetbusError>((resolve) => (end = resolve));
      let forward: (cause: NetbusError) => void = end;
      try {
        const session = await open((cause) => forward(cause));
        if (signal.aborted) return session.close();
        this.#session = session;
        forward = (cause) => (this.#session === session ? end(cause) : this.#ended(cause));
        onTrouble(undefined);
        onTrouble(await untilAborted(signal, ended));
        if (this.#session === session) this.#session = undefined;
      } catch (thrown) {
        if (!signal.aborted) onTrouble(NetbusError.from(thrown));
      }
      const pause = abortAfter(clock, RETRY_MS);
      await within(
        pause.signal,
        untilAborted(signal, new Promise<undefined>(() => {})).then(() => undefined),
      );
      pause.cancel();
    }
  }
}

/** What `work` gives; undefined where the signal aborts first. */
function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T | undefined> {
  if (signal.aborted) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
    work.then(resolve, reject);
  });
}
