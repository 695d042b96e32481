import { IO_COMPLETION_WORDS, IO_OPERATION_WORDS, IO_SEGMENT_WORDS, native } from '../../native/index.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';

/** The addon's I/O with a storage that fails as it is told: `fault(op)` gives a negative errno, or undefined to let it pass. */
export class FaultyCalls implements IoCalls {
  fault: (op: number) => number | undefined = () => undefined;
  /** Operations that were submitted, in order. */
  readonly submitted: number[] = [];
  readonly #faults = new Map<number, number>();

  ioCreate = native.ioCreate;
  ioPending = native.ioPending;
  ioDestroy = native.ioDestroy;

  ioSubmit = (engine: number, operations: Float64Array, count: number): number => {
    const taken = native.ioSubmit(engine, operations, count);
    for (let i = 0, at = 0; i < taken; i++) {
      const op = operations[at];
      this.submitted.push(op);
      const fault = this.fault(op);
      if (fault !== undefined) this.#faults.set(operations[at + 2], fault);
      at += IO_OPERATION_WORDS + operations[at + IO_OPERATION_WORDS - 1] * IO_SEGMENT_WORDS;
    }
    return taken;
  };

  ioReap = (engine: number, completions: Float64Array): number => {
    const count = native.ioReap(engine, completions);
    for (let at = 0; at < count * IO_COMPLETION_WORDS; at += IO_COMPLETION_WORDS) {
      const fault = this.#faults.get(completions[at]);
      if (fault === undefined) continue;
      this.#faults.delete(completions[at]);
      completions[at + 1] = fault;
    }
    return count;
  };
}
