import { setTimeout as pause } from 'node:timers/promises';

const WAIT_MS_MAX = 10_000;

/** Waits until `condition` holds. For what real sockets do in their own time; fails with `what` where it does not come. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + WAIT_MS_MAX;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`it did not come: ${what}`);
    await pause(2);
  }
}
