/** What every verb gets: the daemon's client, and the one way to print. */
import type { Command } from 'commander';
import { ControlClient, controlSocket, RUN_DIR_DEFAULT } from '../api/client.ts';
import { NetbusError } from '../device/errors.ts';
import { type Style, styleFor } from '../lib/format.ts';

export const INTERRUPTED = 130;

/** Options that stand before or after every verb. */
interface GlobalOptions {
  json?: true;
  runDir?: string;
  socket?: string;
}

export class Context {
  readonly #options: GlobalOptions;
  readonly style: Style = styleFor(process.stdout);

  constructor(command: Command) {
    this.#options = command.optsWithGlobals<GlobalOptions>();
    // Nothing here needs an orderly end; what the daemon was asked for it does all the same.
    process.on('SIGINT', () => process.exit(INTERRUPTED));
  }

  /** The daemon of this host, by --socket, --run-dir or NETBUS_RUN_DIR, in that order. */
  get client(): ControlClient {
    // An empty variable is as good as none.
    const { socket, runDir } = this.#options;
    return new ControlClient({ socketPath: socket || controlSocket(runDir || RUN_DIR_DEFAULT) });
  }

  /** The answer on stdout: a line of JSON with --json, text for people otherwise. */
  print(answer: unknown, text: (style: Style) => string): void {
    process.stdout.write(this.#options.json ? `${JSON.stringify(answer)}\n` : text(this.style));
  }

  /** Beside the answer, on stderr. With --json the answer itself has them. */
  warn(warnings: readonly string[]): void {
    if (this.#options.json) return;
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
