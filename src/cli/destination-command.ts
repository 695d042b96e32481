/** `migrate --start`: the user's own command that starts the waiting VMM at the destination. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NetbusError } from '../device/errors.ts';

/** Of the end of its output. */
const OUTPUT_BYTES_MAX = 4096;
/** After SIGTERM it has so long before SIGKILL. */
const TERMINATE_MS_MAX = 5_000;

/** A shell command in a process group of its own, which a Ctrl-C at the terminal does not reach. It may go on after this program. */
export class DestinationCommand {
  /** Resolves where it ends with anything else than 0, with what is wrong. It does not resolve where it goes on, or ends with 0. */
  readonly failed: Promise<NetbusError>;
  readonly #child: ChildProcess;
  /** Its output: a file, so that nothing breaks for it when this program ends. */
  readonly #output: number;

  constructor(command: string) {
    const path = join(tmpdir(), `netbus-start-${randomUUID()}`);
    this.#output = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    const stdio = ['ignore', this.#output, this.#output] as const;
    this.#child = spawn('/bin/sh', ['-c', command], { detached: true, stdio: [...stdio] });
    this.failed = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve(new NetbusError('device', `--start: ${error.message}`, { cause: error })));
      this.#child.once('exit', (status, signal) => {
        if (status === 0) return;
        const last = this.output.trim().split('\n').at(-1) ?? '';
        const how = signal === null ? `status ${status}` : signal;
        resolve(new NetbusError('device', `the command of --start ended with ${how}${last === '' ? '' : `: ${last}`}`));
      });
    });
  }

  /** The end of what it has said. */
  get output(): string {
    const { size } = fstatSync(this.#output);
    const bytes = Buffer.alloc(Math.min(size, OUTPUT_BYTES_MAX));
    readSync(this.#output, bytes, 0, bytes.length, size - bytes.length);
    return bytes.toString();
  }

  /** The migration happened: what it started stays. */
  release(): void {
    this.#child.unref();
    closeSync(this.#output);
  }

  /** The migration does not happen: ends it, and what it left in its process group. */
  async kill(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    const exited = new Promise((resolve) => {
      if (exitCode !== null || signalCode !== null) resolve(undefined);
      else this.#child.once('exit', resolve);
    });
    this.#signal('SIGTERM');
    const timer = setTimeout(() => this.#signal('SIGKILL'), TERMINATE_MS_MAX);
    await exited;
    clearTimeout(timer);
    closeSync(this.#output);
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // Nobody is left.
    }
  }
}
