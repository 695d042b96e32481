/**
 * For broken daemons of tests: what the disk backend gives to the kernel, seen and changed on its way. A file of this folder is loaded
 * into a daemon's process before the program (`node --import`); the product knows nothing of it.
 */
import { readSync, writeSync } from 'node:fs';
import { IO_OPERATION_WORDS, IO_SEGMENT_WORDS, IoOp, native } from '../../../native/index.ts';

/** One write, as it goes to the kernel. */
export interface SubmittedWrite {
  readonly fd: number;
  readonly position: number;
  /** How many were seen before it. */
  readonly number: number;
  /** A copy of what it writes. */
  bytes(): Buffer;
  /** A copy of what is there before it. */
  before(): Buffer;
  /** Makes the kernel do nothing: it is answered as if it had been done. */
  drop(): void;
}

/** Calls back for each write before the kernel gets it. */
export function onWrite(look: (write: SubmittedWrite) => void): void {
  const submit = native.ioSubmit;
  let number = 0;
  native.ioSubmit = (engine, operations, count) => {
    for (let i = 0, at = 0; i < count; i++) {
      const segments = operations[at + IO_OPERATION_WORDS - 1];
      if (operations[at] === IoOp.write) look(describe(operations, at, segments, number++));
      at += IO_OPERATION_WORDS + segments * IO_SEGMENT_WORDS;
    }
    return submit(engine, operations, count);
  };
}

/** Puts bytes into an image beside the daemon's own way. */
export function putBack(fd: number, position: number, bytes: Buffer): void {
  writeSync(fd, bytes, 0, bytes.length, position);
}

function describe(operations: Float64Array, at: number, segments: number, number: number): SubmittedWrite {
  const [fd, position] = [operations[at + 1], operations[at + 3]];
  const pieces = Array.from({ length: segments }, (_, i) => {
    const words = at + IO_OPERATION_WORDS + i * IO_SEGMENT_WORDS;
    return { region: operations[words], offset: operations[words + 1], length: operations[words + 2] };
  });
  const copy = () => Buffer.concat(pieces.map((piece) => Buffer.from(view(piece))));
  return {
    fd,
    position,
    number,
    bytes: copy,
    before: () => {
      const bytes = Buffer.alloc(copy().length);
      readSync(fd, bytes, 0, bytes.length, position);
      return bytes;
    },
    drop: () => {
      // Read instead, into the memory that was lent for the write: as many bytes, and the image stays as it is.
      operations[at] = IoOp.read;
    },
  };
}

function view({ region, offset, length }: { region: number; offset: number; length: number }): Uint8Array {
  return new Uint8Array(native.regionWindow(region, offset, length));
}
