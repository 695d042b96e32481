import { Command } from '../../protocols/nbd/constants.ts';

/** What a command needs beyond its row: state of `Commands`. */
export const CommandState = { none: 0, queued: 1, sent: 2 } as const;

/**
 * The commands of one use of an export, as columns: at most one at a time for each row of the guest, under the row's number as its tag, and the
 * flush behind them.
 */
export class Commands {
  /** The tag of the flush, which belongs to no row. */
  readonly flushTag: number;
  readonly state: Uint8Array;
  readonly command: Uint8Array;
  readonly flags: Uint8Array;
  /** Byte position and length on the export. */
  readonly position: Float64Array;
  readonly length: Float64Array;
  /** Where the payload begins in the row's segments; -1: zeroes are written, which are no segments. */
  readonly skip: Float64Array;
  /** Bytes that were read so far. */
  readonly received: Float64Array;
  /** The first error that the server said. */
  readonly error: Uint32Array;
  /** Tags that are to be sent, in order: a ring. */
  readonly #queue: Int32Array;
  #first = 0;
  #queued = 0;
  #unanswered = 0;

  constructor(rows: number) {
    const tags = rows + 1;
    this.flushTag = rows;
    this.state = new Uint8Array(tags);
    this.command = new Uint8Array(tags);
    this.flags = new Uint8Array(tags);
    this.position = new Float64Array(tags);
    this.length = new Float64Array(tags);
    this.skip = new Float64Array(tags);
    this.received = new Float64Array(tags);
    this.error = new Uint32Array(tags);
    this.#queue = new Int32Array(tags);
  }

  /** Commands that the server has, or is to get. */
  get unanswered(): number {
    return this.#unanswered;
  }

  /** The server has something that it may not have done yet and that changes the export. */
  get hasWrites(): boolean {
    return this.state.some((state, tag) => {
      const changes = this.command[tag] !== Command.read && this.command[tag] !== Command.flush;
      return state === CommandState.sent && changes;
    });
  }

  queue(tag: number, command: number, flags: number, position: number, length: number, skip: number): void {
    this.state[tag] = CommandState.queued;
    this.command[tag] = command;
    this.flags[tag] = flags;
    this.position[tag] = position;
    this.length[tag] = length;
    this.skip[tag] = skip;
    this.received[tag] = 0;
    this.error[tag] = 0;
    this.#queue[(this.#first + this.#queued++) % this.#queue.length] = tag;
    this.#unanswered++;
  }

  /** The next one to be sent, which counts as sent from here on; -1 where there is none. */
  take(): number {
    if (this.#queued === 0) return -1;
    const tag = this.#queue[this.#first];
    this.#first = (this.#first + 1) % this.#queue.length;
    this.#queued--;
    this.state[tag] = CommandState.sent;
    return tag;
  }

  answered(tag: number): void {
    this.state[tag] = CommandState.none;
    this.#unanswered--;
  }

  /** Takes back what was not sent: the server never hears of it. */
  recall(): void {
    for (let tag = this.take(); tag !== -1; tag = this.take()) this.answered(tag);
  }
}
