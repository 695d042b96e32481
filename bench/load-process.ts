/** The parent's side of `load.ts`: starts the process and tells it what to do. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Cleanup } from '../test/support/cleanup.ts';
import { withDeadline } from '../test/support/wait.ts';
import type { Load } from './disk-loads.ts';

export interface RunOptions {
  readonly load: Load;
  readonly workingSetBytes: number;
  readonly warmupMs: number;
  readonly measureMs: number;
  readonly seed: number;
}

export interface LoadResult {
  iops: number;
  p50Us: number;
  p99Us: number;
  p999Us: number;
  /** Requests that were not answered with OK. */
  errors: number;
  /** Requests, the warm-up's included. */
  total: number;
  /** CPU time of the front-end as a share of the run's time: near 1, it is the bottleneck itself. */
  driverBusy: number;
}

export type LoadCommand =
  | { readonly what: 'connect'; readonly socketPath: string; readonly queues: number }
  /** Fills, reads back and compares. Overwrites the disk. */
  | { readonly what: 'verify'; readonly imagePath: string; readonly bytes: number; readonly seed: number }
  | { readonly what: 'run'; readonly options: RunOptions };

export type LoadReply = { readonly ok: true; readonly result?: LoadResult } | { readonly ok: false; readonly error: string };

/** Longest time for an answer beyond what was asked for, in milliseconds: a back-end that hangs ends the benchmark. */
const ANSWER_MS_MAX = 60_000;

export class LoadProcess {
  readonly #name: string;
  readonly #child: ChildProcess;

  /** `name` is the candidate's, for errors. */
  constructor(name: string, cleanup: Cleanup) {
    this.#name = name;
    this.#child = fork(fileURLToPath(new URL('./load.ts', import.meta.url)), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    cleanup.add(`the load of ${name}`, () => this.stop());
  }

  async connect(socketPath: string, queues: number): Promise<void> {
    await this.#tell({ what: 'connect', socketPath, queues }, 0);
  }

  async verify(imagePath: string, bytes: number, seed: number): Promise<void> {
    await this.#tell({ what: 'verify', imagePath, bytes, seed }, 0);
  }

  async run(options: RunOptions): Promise<LoadResult> {
    const result = await this.#tell({ what: 'run', options }, options.warmupMs + options.measureMs);
    if (result === undefined) throw new Error(`${this.#name}: the load gave no result`);
    return result;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }

  async #tell(command: LoadCommand, workMs: number): Promise<LoadResult | undefined> {
    const over = new AbortController();
    const answered = once(this.#child, 'message', over).then(([reply]) => reply as LoadReply);
    const ended = once(this.#child, 'exit', over).then((): LoadReply => ({ ok: false, error: 'the load process ended' }));
    ended.catch(() => {});
    answered.catch(() => {});
    this.#child.send(command);
    try {
      const what = `${this.#name} to answer "${command.what}"`;
      const reply = await withDeadline(what, workMs + ANSWER_MS_MAX, Promise.race([answered, ended]));
      if (!reply.ok) throw new Error(`${this.#name}: ${command.what} failed: ${reply.error}`);
      return reply.result;
    } finally {
      over.abort();
    }
  }
}
