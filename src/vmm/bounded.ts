/** Waits with an end: by time, and by whoever gives up. */
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';

export interface Bounds {
  /** Gives up with `ended`. */
  readonly signal?: AbortSignal;
  /** Gives up with `timeout`. */
  readonly timeoutMs: number;
}

/** Passes `work` on. Rejects with `timeout` or `ended`, and `what` in the message, at a bound; `work` itself then goes on unheard. */
export function bounded<T>(clock: Clock, work: Promise<T>, what: string, { signal, timeoutMs }: Bounds): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      settled();
      reject(new NetbusError('ended', `${what} was given up`, { cause: signal?.reason }));
    };
    const cancel = clock.after(timeoutMs, () => {
      settled();
      reject(new NetbusError('timeout', `${what} took longer than ${timeoutMs / 1000} s`));
    });
    const settled = () => {
      cancel();
      signal?.removeEventListener('abort', giveUp);
    };
    signal?.addEventListener('abort', giveUp, { once: true });
    work.then(resolve, reject).finally(settled);
    if (signal?.aborted) giveUp();
  });
}

/** Lets `delayMs` pass. Rejects with `ended` where the signal aborts. */
export function pause(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      cancel();
      reject(new NetbusError('ended', 'a pause was given up', { cause: signal?.reason }));
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', giveUp);
      resolve();
    });
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted) giveUp();
  });
}
