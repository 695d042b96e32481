/** A stream of bytes cut into lines. QMP's lines are JSON in UTF-8 and end with CR LF (QEMU docs/interop/qmp-spec). */
import { NetbusError } from '../../device/errors.ts';

const LINE_FEED = 0x0a;

/** Room for a line that comes in pieces, doubled as it grows: many small pieces cost no more than few large ones. */
const ROOM_BYTES_MIN = 4096;

export class LineSplitter {
  readonly #lineBytesMax: number;
  /** The beginning of the line that is not complete yet, in the first #bytes of #room. */
  #room = new Uint8Array(0);
  #bytes = 0;

  /** `lineBytesMax` is without the line feed. */
  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** Between lines: a stream that ends here was not truncated. */
  get atBoundary(): boolean {
    return this.#bytes === 0;
  }

  /** Takes the next bytes. Returns the lines that are complete now, as text; empty lines are left out. Throws NetbusError `protocol`. */
  feed(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      const line = this.#complete(chunk.subarray(start, end));
      if (line !== '') lines.push(line);
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
    return lines;
  }

  #complete(end: Uint8Array): string {
    let bytes = end;
    if (this.#bytes > 0) {
      this.#keep(end);
      bytes = this.#room.subarray(0, this.#bytes);
    }
    this.#check(bytes.length);
    const line = decode(bytes).trim();
    this.#room = new Uint8Array(0);
    this.#bytes = 0;
    return line;
  }

  /** Copies: the socket may use its buffer again. */
  #keep(piece: Uint8Array): void {
    const bytes = this.#bytes + piece.length;
    this.#check(bytes);
    if (bytes > this.#room.length) {
      const room = new Uint8Array(Math.max(ROOM_BYTES_MIN, 2 * bytes));
      room.set(this.#room.subarray(0, this.#bytes));
      this.#room = room;
    }
    this.#room.set(piece, this.#bytes);
    this.#bytes = bytes;
  }

  #check(bytes: number): void {
    if (bytes > this.#lineBytesMax) throw new NetbusError('protocol', `a line is longer than ${this.#lineBytesMax} bytes`);
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (thrown) {
    throw new NetbusError('protocol', 'a line is not UTF-8', { cause: thrown });
  }
}
