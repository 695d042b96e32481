/** An interactive shell on a terminal of its own, typed into as a person does. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { Cleanup } from './cleanup.ts';
import { withDeadline } from './wait.ts';

/** Generous: it ends a test that hangs and says nothing about speed. */
const ANSWER_MS_MAX = 60_000;
const OUTPUT_CHARACTERS_MAX = 1024 * 1024;

/** What the shell prints on Ctrl-G: its command line between these. */
const LINE = /«([^»]*)»/;

export interface TypedLine {
  /** The command line as it stands after the keys. */
  readonly line: string;
  /** All that was shown meanwhile. */
  readonly shown: string;
}

/** A terminal that runs a shell which shows its command line between « and » when it gets Ctrl-G. */
export class Terminal {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  #output = '';
  #changed: () => void = () => {};

  /** `command` is the shell's own command line, as text for `sh`. */
  constructor(command: string, cleanup: Cleanup, env: Record<string, string>) {
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'script', '-qfec', command, '/dev/null'], {
      env: { ...process.env, TERM: 'dumb', ...env },
    });
    this.#ended = new Promise((resolve) => this.#child.once('exit', () => resolve()));
    cleanup.add(`the terminal of ${command}`, () => this.close());
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#output = (this.#output + text).slice(-OUTPUT_CHARACTERS_MAX);
      this.#changed();
    });
    this.#child.stdin.on('error', () => {});
  }

  /** Types `keys`, asks for the command line, and clears it. */
  async type(keys: string): Promise<TypedLine> {
    this.#output = '';
    // Ctrl-G shows the line, Ctrl-U clears it.
    this.#child.stdin.write(`${keys}\x07\x15`);
    const match = await this.#waitFor(LINE, keys);
    return { line: match[1], shown: this.#output };
  }

  /** Types a command and waits for the shell's prompt behind it: only then does it read key by key. */
  async enter(command: string): Promise<void> {
    this.#output = '';
    this.#child.stdin.write(`${command}; PS1='rea''dy> '\n`);
    await this.#waitFor(/ready> /, command);
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  #waitFor(pattern: RegExp, what: string): Promise<RegExpExecArray> {
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      this.#changed = () => {
        const match = pattern.exec(this.#output);
        if (match !== null) resolve(match);
      };
      void this.#ended.then(() => reject(new Error('the shell ended')));
      this.#changed();
    });
    return withDeadline(`the shell's answer to ${JSON.stringify(what)}`, ANSWER_MS_MAX, found).catch((error: Error) => {
      throw new Error(`${error.message}; it showed ${JSON.stringify(this.#output.slice(-2000))}`);
    });
  }
}
