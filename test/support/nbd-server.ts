/** NBD servers of Debian: nbdkit, and QEMU's qemu-nbd. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { type RunningProcess, startProcess } from './process.ts';
import { waitFor } from './wait.ts';

export interface NbdServerOptions {
  readonly cleanup: Cleanup;
  /** For its socket. */
  readonly folder: string;
  /** Of the export; the default one where it is left out. */
  readonly exportName?: string;
}

export interface RunningNbdServer {
  readonly uri: string;
  readonly process: RunningProcess;
}

/** Starts `nbdkit ...arguments` on a unix socket in `folder`; resolves when it takes connections. */
export function startNbdkit(options: NbdServerOptions, ...plugin: string[]): Promise<RunningNbdServer> {
  return start(options, (socket, pid) => ['nbdkit', '-f', '-U', socket, '-P', pid, '--tls=off', ...plugin]);
}

/** Starts `qemu-nbd ...arguments` in the same way. It serves one client at a time, and stays when that leaves. */
export function startQemuNbd(options: NbdServerOptions, ...image: string[]): Promise<RunningNbdServer> {
  const { exportName = '' } = options;
  return start(options, (socket, pid) => ['qemu-nbd', '-t', '-k', socket, '-x', exportName, `--pid-file=${pid}`, ...image]);
}

async function start(
  { cleanup, folder, exportName = '' }: NbdServerOptions,
  argv: (socket: string, pidFile: string) => string[],
): Promise<RunningNbdServer> {
  const socket = join(folder, 'nbd.sock');
  const pidFile = join(folder, 'nbd.pid');
  rmSync(socket, { force: true });
  rmSync(pidFile, { force: true });
  const process = startProcess(argv(socket, pidFile), cleanup);
  // Both write it when they listen.
  await waitFor(`the NBD server at ${socket}`, () => {
    if (process.ended) throw new Error(`"${process.argv.join(' ')}" has ended: ${process.stderr}`);
    return existsSync(pidFile) && existsSync(socket);
  });
  return { uri: `nbd+unix:///${exportName}?socket=${socket}`, process };
}
