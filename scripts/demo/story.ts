/** The demo's voice: numbered steps, sentences, commands as a user types them, and what they answered. */

import { type Style, styleFor } from '../../src/lib/format.ts';

export class Story {
  readonly #out: NodeJS.WriteStream;
  readonly #style: Style;
  readonly #startedMs = performance.now();
  #steps = 0;

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#style = styleFor(out);
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedMs;
  }

  title(text: string): void {
    this.#line(this.#style.bold(text));
  }

  /** The next step. */
  step(text: string): void {
    this.#steps++;
    const time = this.#style.dim(`[${(this.elapsedMs / 1000).toFixed(1)} s]`);
    this.#line(`\n${this.#style.bold(`${this.#steps}. ${text}`)} ${time}`);
  }

  say(text: string): void {
    for (const line of text.trimEnd().split('\n')) this.#line(`   ${line}`);
  }

  /** A command, and where it is typed: a host, or a guest in it. */
  command(place: string, text: string): void {
    this.#line(`   ${this.#style.good(`${place}#`)} ${text}`);
  }

  /** What a command answered. */
  output(text: string): void {
    for (const line of text.trimEnd().split('\n')) if (line !== '') this.#line(`       ${this.#style.dim(line)}`);
  }

  good(text: string): void {
    this.#line(`   ${this.#style.good('✓')} ${text}`);
  }

  bad(text: string): void {
    this.#line(`\n${this.#style.bad('✗')} ${text}`);
  }

  #line(text: string): void {
    this.#out.write(`${text}\n`);
  }
}
