/** Programs on a pseudo-terminal of their own, typed into as a person does. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { Cleanup } from './cleanup.ts';
import { withDeadline } from './wait.ts';

/** Generous: it ends a test that hangs and says nothing about speed. */
const ANSWER_MS_MAX = 60_000;
const OUTPUT_CHARACTERS_MAX = 1024 * 1024;

/** What is typed for them. */
export const CTRL_C = '\x03';
export const CTRL_D = '\x04';

export class Pty {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  #output = '';
  #changed: () => void = () => {};

  /** `command` is a command line for `sh`, which `script` runs on a new terminal. */
  constructor(command: string, cleanup: Cleanup, env: Record<string, string>) {
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'script', '-qfec', command, '/dev/null'], {
      env: { ...process.env, TERM: 'dumb', SHELL: '/bin/sh', ...env },
    });
    this.#ended = new Promise((resolve) => this.#child.once('close', () => resolve()));
    cleanup.add(`the terminal of ${command}`, () => this.close());
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output = (this.#output + text).slice(-OUTPUT_CHARACTERS_MAX);
      this.#changed();
    });
    this.#child.stdin.on('error', () => {});
  }

  /** All that was shown since it began, or since `forget`. */
  get shown(): string {
    return this.#output;
  }

  forget(): void {
    this.#output = '';
  }

  type(keys: string): void {
    this.#child.stdin.write(keys);
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** Waits until what is shown matches; `what` is for the error. */
  waitFor(pattern: RegExp, what = String(pattern)): Promise<RegExpExecArray> {
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      this.#changed = () => {
        const match = pattern.exec(this.#output);
        if (match !== null) resolve(match);
      };
      void this.#ended.then(() => reject(new Error('the terminal ended')));
      this.#changed();
    });
    return withDeadline(`the terminal's answer to ${JSON.stringify(what)}`, ANSWER_MS_MAX, found).catch((error: Error) => {
      throw new Error(`${error.message}; it showed ${JSON.stringify(this.#output.slice(-2000))}`);
    });
  }
}
