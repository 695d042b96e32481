/** Programs that tests and the demo start: to their end, or in the background with their output watched. */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Cleanup } from './cleanup.ts';
import { withDeadline } from './wait.ts';

/** Prefix of a command line: the kernel kills the program when the process that started it is gone, however it went. */
const DIE_WITH_PARENT = ['setpriv', '--pdeathsig', 'KILL', '--'];

/** Output that is kept of each stream, in characters; beyond it the oldest is dropped. */
const OUTPUT_CHARACTERS_MAX = 4 * 1024 * 1024;

/** How long `stop` waits after SIGTERM before it sends SIGKILL, in milliseconds: what ends in order must have the time for it on a slow machine. */
const STOP_MS_DEFAULT = 30_000;

/** How long output may still arrive after the exit, in milliseconds. */
const LATE_OUTPUT_MS_MAX = 500;

const RUN_MS_DEFAULT = 60_000;

/** How often a file of output is looked at where somebody waits for a line, in milliseconds. */
const LOG_LOOK_MS = 20;

export interface ProcessOptions {
  cwd?: string;
  /** Added to this process's environment. */
  env?: Record<string, string>;
  /** Given to the program on stdin, which then ends; without it stdin is /dev/null. */
  input?: string;
  /**
   * File that the program itself appends both streams to: what it wrote before it answered somebody is there when the answer is. `stderr` is then what
   * this program has added to the file, and `stdout` is empty.
   */
  logPath?: string;
}

export interface Exit {
  /** Exit code, or undefined where a signal ended the program. */
  status: number | undefined;
  signal: NodeJS.Signals | undefined;
}

export interface RunResult extends Exit {
  stdout: string;
  stderr: string;
}

/** Runs a program to its end. Any exit is a result; throws where it cannot be started or takes longer than `timeoutMs`. */
export async function run(argv: readonly string[], options: ProcessOptions & { timeoutMs?: number } = {}): Promise<RunResult> {
  const running = new RunningProcess(argv, options);
  try {
    const exit = await withDeadline(`"${argv.join(' ')}" to end`, options.timeoutMs ?? RUN_MS_DEFAULT, running.exited);
    return { ...exit, stdout: running.stdout, stderr: running.stderr };
  } catch (error) {
    running.signal('SIGKILL');
    throw error;
  }
}

/** As `run`, and throws unless the program ends with 0. Returns its stdout. */
export async function runOk(argv: readonly string[], options: ProcessOptions & { timeoutMs?: number } = {}): Promise<string> {
  const result = await run(argv, options);
  if (result.status !== 0) {
    throw new Error(`"${argv.join(' ')}" ended with ${describeExit(result)}: ${(result.stderr + result.stdout).trim()}`);
  }
  return result.stdout;
}

/** Starts a program in the background; it is stopped by `cleanup` at the latest. */
export function startProcess(argv: readonly string[], cleanup: Cleanup, options: ProcessOptions = {}): RunningProcess {
  const running = new RunningProcess(argv, options);
  const forget = cleanup.add(argv.join(' '), async () => void (await running.stop()));
  running.exited.then(forget, forget);
  return running;
}

/** A program that was started. */
export class RunningProcess {
  readonly argv: readonly string[];
  /** Resolves at the exit, when all output has arrived. Rejects where the program could not be started. */
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #listeners = new Set<() => void>();
  readonly #log: { readonly path: string; readonly begin: number } | undefined;
  #stdout = '';
  #stderr = '';
  #ended = false;

  constructor(argv: readonly string[], options: ProcessOptions) {
    this.argv = argv;
    const command = [...DIE_WITH_PARENT, ...argv];
    const log = options.logPath === undefined ? undefined : openSync(options.logPath, 'a');
    this.#log = log === undefined ? undefined : { path: options.logPath!, begin: fstatSync(log).size };
    this.#child = spawn(command[0]!, command.slice(1), {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, ...options.env },
      stdio: [options.input === undefined ? 'ignore' : 'pipe', log ?? 'pipe', log ?? 'pipe'],
    });
    if (log !== undefined) closeSync(log);
    // A program may end without reading its input; its exit tells how it went.
    this.#child.stdin?.on('error', () => {});
    this.#child.stdin?.end(options.input);
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-OUTPUT_CHARACTERS_MAX);
      this.#changed();
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-OUTPUT_CHARACTERS_MAX);
      this.#changed();
    });
    this.exited = new Promise((resolve, reject) => {
      this.#child.once('error', (error) => {
        this.#ended = true;
        reject(error);
        this.#changed();
      });
      this.#child.once('exit', () => {
        // A process that it left behind may hold the pipes open: what it says later is not this program's output.
        setTimeout(() => {
          this.#child.stdout?.destroy();
          this.#child.stderr?.destroy();
        }, LATE_OUTPUT_MS_MAX).unref();
      });
      this.#child.once('close', (status, signal) => {
        this.#ended = true;
        resolve({ status: status ?? undefined, signal: signal ?? undefined });
        this.#changed();
      });
    });
    // Whoever waits gets the rejection; where nobody does, it is not an unhandled one.
    this.exited.catch(() => {});
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`"${this.argv.join(' ')}" was not started`);
    return this.#child.pid;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#log === undefined ? this.#stderr : readFileSync(this.#log.path).subarray(this.#log.begin).toString();
  }

  /** Whether the program has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Waits for a line that matches, among what came already too. Throws at the deadline or where the program ends without it. */
  async waitForLine(pattern: RegExp, timeoutMs = RUN_MS_DEFAULT): Promise<RegExpExecArray> {
    let listener = (): void => {};
    let timer: NodeJS.Timeout | undefined;
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      listener = () => {
        for (const line of `${this.#stdout}\n${this.stderr}`.split('\n')) {
          const match = pattern.exec(line);
          if (match !== null) return resolve(match);
        }
        if (this.#ended) reject(new Error(`"${this.argv.join(' ')}" ended before it said ${pattern}: ${this.#tail()}`));
      };
      this.#listeners.add(listener);
      if (this.#log !== undefined) timer = setInterval(listener, LOG_LOOK_MS);
      listener();
    });
    try {
      return await withDeadline(`${pattern} from "${this.argv.join(' ')}"`, timeoutMs, found);
    } finally {
      clearInterval(timer);
      this.#listeners.delete(listener);
    }
  }

  /** Sends a signal. Does nothing where the program has ended. */
  signal(signal: NodeJS.Signals): void {
    if (!this.#ended) this.#child.kill(signal);
  }

  /** Ends the program with SIGTERM, and with SIGKILL after `graceMs`. */
  async stop(graceMs = STOP_MS_DEFAULT): Promise<Exit> {
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  #tail(): string {
    return (this.stderr + this.#stdout).trim().split('\n').slice(-5).join('\n');
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function describeExit(exit: Exit): string {
  return exit.signal ?? `status ${exit.status}`;
}
