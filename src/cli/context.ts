/** What every verb gets: the daemon's client, and the one way to print. */
import type { Command } from 'commander';
import { ControlClient, controlSocket, RUN_DIR_DEFAULT } from '../api/client.ts';
import { NetbusError } from '../device/errors.ts';
import { type Style, styleFor } from '../lib/format.ts';
import { Progress } from './progress.ts';

export const INTERRUPTED = 130;

/** Options that stand before or after every verb. */
interface GlobalOptions {
  json?: true;
  runDir?: string;
  socket?: string;
}

export class Context {
  readonly #options: GlobalOptions;
  readonly #verb: string;
  readonly style: Style = styleFor(process.stdout);

  /** What Ctrl-C does. Most verbs need no orderly end; what the daemon was asked for it does all the same. */
  readonly interrupt = (): never => {
    this.#progress?.end();
    return process.exit(INTERRUPTED);
  };
  #progress: Progress | undefined;

  constructor(command: Command) {
    this.#options = command.optsWithGlobals<GlobalOptions>();
    this.#verb = command.name();
    process.on('SIGINT', this.interrupt);
  }

  /** For a verb that has something to undo: from now on the first Ctrl-C (or SIGTERM, SIGHUP) aborts the signal, and the second ends the program. */
  interruptible(): AbortSignal {
    const controller = new AbortController();
    process.off('SIGINT', this.interrupt);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        controller.abort();
        process.on(signal, this.interrupt);
      });
    }
    return controller.signal;
  }

  /** Ends the program as an interrupted one, with the error's line. */
  endInterrupted({ code, message }: NetbusError): never {
    process.stderr.write(this.#options.json ? `${JSON.stringify({ error: { code, message } })}\n` : `netbus: ${message}\n`);
    return this.interrupt();
  }

  /** The daemon of this host, by --socket, --run-dir or NETBUS_RUN_DIR, in that order. */
  get client(): ControlClient {
    // An empty variable is as good as none.
    const { socket, runDir, json } = this.#options;
    const socketPath = socket || controlSocket(runDir || RUN_DIR_DEFAULT);
    // With --json stderr is for programs, too.
    if (json) return new ControlClient({ socketPath });
    const progress = new Progress(process.stderr, this.#verb);
    this.#progress = progress;
    const onWaiting = (elapsedMs?: number) => (elapsedMs === undefined ? progress.end() : progress.waiting(elapsedMs));
    return new ControlClient({ socketPath, onWaiting });
  }

  /** For a verb that says itself where it is; undefined with --json. */
  progress(): Progress | undefined {
    if (this.#options.json) return undefined;
    this.#progress = new Progress(process.stderr, this.#verb);
    return this.#progress;
  }

  get json(): boolean {
    return this.#options.json ?? false;
  }

  /** The answer on stdout: a line of JSON with --json, text for people otherwise. */
  print(answer: unknown, text: (style: Style) => string): void {
    process.stdout.write(this.#options.json ? `${JSON.stringify(answer)}\n` : text(this.style));
  }

  /** For people, beside the answer, on stderr: what is being done, what comes next. Nothing with --json. */
  note(text: string): void {
    if (!this.#options.json) process.stderr.write(text);
  }

  /** Beside the answer, on stderr. With --json the answer itself has them. */
  warn(warnings: readonly string[] | undefined): void {
    if (this.#options.json || warnings === undefined) return;
    for (const warning of warnings) process.stderr.write(`netbus: warning: ${warning}\n`);
  }
}

const LISTED_BY: Readonly<Record<string, string>> = {
  'HOST/NAME': '"netbus ls" lists the devices',
  'VM/NAME': '"netbus status" lists the attachments',
};

/** Splits `HOST/NAME` and `VM/NAME`; `form` is how the message shows it. */
export function splitPair(text: string, form: string): [string, string] {
  const [first, second, ...rest] = text.split('/');
  if (!first || !second || rest.length > 0)
    throw new NetbusError('usage', `"${text}" is not of the form ${form}: ${LISTED_BY[form] ?? 'see --help'}`);
  return [first, second];
}
