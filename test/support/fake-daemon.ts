/** The program as a process, before a daemon that answers what the test wants. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RunningProcess, type RunResult, run } from './process.ts';
import { netbusProgram } from './program.ts';

export interface ProgramOptions {
  readonly env?: Record<string, string>;
  /** What stands before the program's own command line. */
  readonly prefix?: readonly string[];
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

  /** Answers everything with `value` from now on. Returns the bodies that come. */
  async answerWith(value: unknown, status = 200): Promise<string[]> {
    const bodies: string[] = [];
    await this.listen((request, response) => {
      let body = '';
      request.on('data', (chunk) => (body += chunk));
      request.on('end', () => {
        bodies.push(body);
        response.writeHead(status).end(JSON.stringify(value));
      });
    });
    return bodies;
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
  start(argv: readonly string[], { env, prefix = [] }: ProgramOptions = {}): RunningProcess {
    return new RunningProcess([...prefix, ...netbusProgram(), ...argv], { env: { NETBUS_RUN_DIR: this.folder, ...env } });
  }

  /** Runs it to its end. */
  netbus(argv: readonly string[], { env, prefix = [] }: ProgramOptions = {}): Promise<RunResult> {
    return run([...prefix, ...netbusProgram(), ...argv], { env: { NETBUS_RUN_DIR: this.folder, ...env } });
  }
}
