/** Waiting for something outside this process: always for a condition, always with a deadline. */

import { existsSync, readFileSync } from 'node:fs';

/** Time between two looks where the outside world cannot tell by itself, in milliseconds. */
const POLL_INTERVAL_MS = 10;
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_DEFAULT = 60_000;

/** Passes a promise on, or rejects after `timeoutMs` with "waited … for WHAT". */
export async function withDeadline<T>(what: string, timeoutMs: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeoutMs} ms for ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** Looks until `probe` gives something other than undefined or false, and returns that. */
export async function waitFor<T>(
  what: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = WAIT_MS_DEFAULT,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
  }
}

/**
 * Waits until a process listens at a unix socket. It looks at the kernel's table and never connects: a backend that serves a
 * single connection would take a look for its guest. `pid` is any process in the listener's network namespace.
 */
export async function waitForListener(socketPath: string, pid: number, timeoutMs = WAIT_MS_DEFAULT): Promise<void> {
  const table = `/proc/${pid}/net/unix`;
  await waitFor(
    `a listener at ${socketPath}`,
    () => {
      if (!existsSync(table)) throw new Error(`the process ${pid}, which was to listen at ${socketPath}, has ended`);
      return readFileSync(table, 'utf8')
        .split('\n')
        .some((line) => isListening(line, socketPath));
    },
    timeoutMs,
  );
}

/** Columns of /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is __SO_ACCEPTCON. */
function isListening(line: string, socketPath: string): boolean {
  const columns = line.split(/\s+/);
  return columns[7] === socketPath && (Number.parseInt(columns[3] ?? '0', 16) & 0x10000) !== 0;
}
