/** The program as a process, before a daemon that answers what the test wants. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface ProgramResult {
  status: number | null;
  stdout: string;
  stderr: string;
}

export class FakeDaemon {
  readonly folder = mkdtempSync(join(tmpdir(), 'nb-cli-'));
  #server: Server | undefined;

  /** Answers by `listener` from now on. */
  async listen(listener: RequestListener): Promise<void> {
    await this.stop();
    const server = createServer(listener);
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(join(this.folder, 'netbus.sock'), resolve));
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    server?.closeAllConnections();
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true });
  }

  /** Starts `netbus ARGV` before this daemon. */
  start(argv: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcessWithoutNullStreams {
    const command = ['--import', import.meta.resolve('tsx'), MAIN, ...argv];
    return spawn(process.execPath, command, { env: { ...process.env, NETBUS_RUN_DIR: this.folder, ...env } });
  }

  /** Runs it to its end. */
  netbus(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<ProgramResult> {
    return resultOf(this.start(argv, env));
  }
}

/** What a program says from now on, and how it ends. */
export function resultOf(child: ChildProcessWithoutNullStreams): Promise<ProgramResult> {
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stdout, stderr })));
}
