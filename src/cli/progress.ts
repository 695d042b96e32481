/** What a verb that takes long says meanwhile: on a terminal one line that is written anew, in a pipe a plain line now and then. */

/** In a pipe, first after this time, and then each time twice as late. */
const PIPE_FIRST_MS = 15_000;
/** On a terminal; shorter waits are not worth a word. */
const TERMINAL_FIRST_MS = 1_000;

export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export class Progress {
  readonly #stream: ProgressStream;
  readonly #verb: string;
  #nextMs: number;
  #shown = false;
  #step: string | undefined;

  constructor(stream: ProgressStream, verb: string) {
    this.#stream = stream;
    this.#verb = verb;
    this.#nextMs = stream.isTTY ? TERMINAL_FIRST_MS : PIPE_FIRST_MS;
  }

  /** It has lasted so long, and goes on. */
  waiting(elapsedMs: number): void {
    if (elapsedMs < this.#nextMs) return;
    this.#write(`the daemon is at it, for ${Math.floor(elapsedMs / 1000)} s now`);
    this.#nextMs *= this.#stream.isTTY ? 1 : 2;
  }

  /** It is at this step: in a pipe a new one has a line at once, and one that lasts has further ones each time twice as late. */
  at(step: string, text: string, elapsedMs: number): void {
    if (!this.#stream.isTTY) {
      if (step === this.#step && elapsedMs < this.#nextMs) return;
      if (elapsedMs >= this.#nextMs) this.#nextMs = 2 * elapsedMs;
    }
    this.#step = step;
    this.#write(text);
  }

  /** It is over: the line is free for what comes. */
  end(): void {
    if (this.#shown) this.#stream.write('\r\x1b[K');
    this.#shown = false;
  }

  #write(what: string): void {
    const text = `netbus: ${this.#verb}: ${what}`;
    if (this.#stream.isTTY) {
      // To the line's beginning, and away with what was there; what goes over into a second line would stay.
      const { columns } = this.#stream;
      this.#stream.write(`\r\x1b[K${columns ? text.slice(0, columns - 1) : text}`);
      this.#shown = true;
    } else {
      this.#stream.write(`${text}\n`);
    }
  }
}
