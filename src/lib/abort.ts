/** Waits for `work`, but not beyond the moment that `signal` aborts. Rejects as `work` does where that comes first. */
export function within(signal: AbortSignal, work: Promise<void>): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const bound = () => resolve();
    signal.addEventListener('abort', bound, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', bound));
  });
}
