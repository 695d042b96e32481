import { IO_OPERATION_WORDS, IO_SEGMENT_WORDS, native } from '../../native/index.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';

/** The addon's I/O with a storage that hangs when it is told to: what is submitted meanwhile is done when it goes on. */
export class StallingCalls implements IoCalls {
  #stalled = false;
  /** Submissions that hang, by engine. */
  readonly #held: { engine: number; operations: Float64Array; count: number }[] = [];

  stall(): void {
    this.#stalled = true;
  }

  goOn(): void {
    this.#stalled = false;
    for (const { engine, operations, count } of this.#held.splice(0)) native.ioSubmit(engine, operations, count);
  }

  ioCreate = native.ioCreate;
  ioDestroy = native.ioDestroy;
  ioReap = native.ioReap;

  ioSubmit = (engine: number, operations: Float64Array, count: number): number => {
    if (!this.#stalled) return native.ioSubmit(engine, operations, count);
    this.#held.push({ engine, operations: operations.slice(0, wordsOf(operations, count)), count });
    return count;
  };

  ioPending = (engine: number): number => {
    const held = this.#held.filter((submission) => submission.engine === engine);
    return held.reduce((sum, { count }) => sum + count, native.ioPending(engine));
  };
}

function wordsOf(operations: Float64Array, count: number): number {
  let words = 0;
  for (let i = 0; i < count; i++) words += IO_OPERATION_WORDS + operations[words + IO_OPERATION_WORDS - 1] * IO_SEGMENT_WORDS;
  return words;
}
