/** An interactive shell on a terminal of its own, typed into as a person does. */
import { Pty } from './pty.ts';

/** What the shell prints on Ctrl-G: its command line between these. */
const LINE = /«([^»]*)»/;

export interface TypedLine {
  /** The command line as it stands after the keys. */
  readonly line: string;
  /** All that was shown meanwhile. */
  readonly shown: string;
}

/** A terminal that runs a shell which shows its command line between « and » when it gets Ctrl-G. */
export class Terminal extends Pty {
  /** Types `keys`, asks for the command line, and clears it. */
  async typeLine(keys: string): Promise<TypedLine> {
    this.forget();
    // Ctrl-G shows the line, Ctrl-U clears it.
    this.type(`${keys}\x07\x15`);
    const match = await this.waitFor(LINE, keys);
    return { line: match[1], shown: this.shown };
  }

  /** Types a command and waits for the shell's prompt behind it: only then does it read key by key. */
  async enter(command: string): Promise<void> {
    this.forget();
    this.type(`${command}; PS1='rea''dy> '\n`);
    await this.waitFor(/ready> /, command);
  }
}
