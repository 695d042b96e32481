/** What a job does that has to know an answer: it asks until it has it, says meanwhile what it waits for, and ends with its daemon. */
import { NetbusError } from '../device/errors.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import { mayPass } from '../migration/swap/try.ts';

/** Between two questions to a host that does not answer. */
const RETRY_MS = 1_000;
/** How long a session that is opened in advance is waited for. */
const WARM_MS_MAX = 5_000;

export class Patience {
  /** What is waited for, in words; undefined: nothing. */
  reason: string | undefined;
  readonly #clock: Clock;
  readonly #ending = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Aborted when the daemon ends. */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  /** The daemon ends: whatever waits rejects with `ended`. */
  end(): void {
    this.#ending.abort();
  }

  /** Asks again until there is an answer that does not change by itself, and rejects with that. */
  async persist<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      this.check();
      try {
        const answer = await ask();
        this.reason = undefined;
        return answer;
      } catch (thrown) {
        if (!mayPass(thrown)) throw thrown;
        this.reason = NetbusError.from(thrown).message;
      }
      await this.pause(RETRY_MS);
    }
  }

  async pause(delayMs: number): Promise<void> {
    this.check();
    await new Promise<void>((resolve) => {
      const done = () => {
        cancel();
        this.ending.removeEventListener('abort', done);
        resolve();
      };
      const cancel = this.#clock.after(delayMs, done);
      this.ending.addEventListener('abort', done);
    });
    this.check();
  }

  /** Has the next session of a device opened in advance, if that does not take long. */
  async warm(device: { warm(signal: AbortSignal): Promise<void> }): Promise<void> {
    const { signal, cancel } = abortAfter(this.#clock, WARM_MS_MAX);
    await device.warm(signal);
    cancel();
    this.check();
  }

  check(): void {
    if (this.ending.aborted) throw new NetbusError('ended', 'the daemon is stopping');
  }
}
