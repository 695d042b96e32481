import { IO_OPERATION_WORDS, IO_SEGMENT_WORDS, IoOp } from '../../../native/index.ts';
import type { Region } from '../../device/region.ts';
import type { SegmentList } from '../../device/segments.ts';
import { SEGMENTS_PER_MESSAGE_MAX } from '../../device/segments.ts';
import { ZEROES_BYTES } from './image.ts';

/** Zeroes that one operation writes where the storage cannot make them. */
export const ZEROES_PER_OPERATION_BYTES = 4 * ZEROES_BYTES;
/** Doubles of one submission: 64 KiB, which is hundreds of small operations and some of the largest. */
const SUBMISSION_WORDS = 8192;
const OPERATION_WORDS_MAX = IO_OPERATION_WORDS + SEGMENTS_PER_MESSAGE_MAX * IO_SEGMENT_WORDS;

/** A batch of operations in the addon's layout, filled and handed over again and again. */
export class Operations {
  readonly words = new Float64Array(SUBMISSION_WORDS);
  count = 0;
  readonly #fd: number;
  #used = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get full(): boolean {
    return this.#used + OPERATION_WORDS_MAX > SUBMISSION_WORDS;
  }

  clear(): void {
    this.count = 0;
    this.#used = 0;
  }

  /** An operation without payload. */
  addRange(op: number, tag: number, position: number, length: number): void {
    this.#begin(op, tag, position, length, 0);
  }

  /** A read or write of the first `length` bytes of the segments. */
  addTransfer(op: number, tag: number, position: number, length: number, segments: SegmentList): void {
    const count = this.#begin(op, tag, position, length, 0);
    let left = length;
    let used = 0;
    for (; used < segments.count && left > 0; used++) {
      const bytes = Math.min(left, segments.lengths[used]);
      this.#addSegment(segments.regions[used]!.handle, segments.offsets[used], bytes);
      left -= bytes;
    }
    this.words[count] = used;
  }

  /** A write of `length` bytes, ZEROES_PER_OPERATION_BYTES at most, from a region of zeroes. */
  addZeroes(tag: number, position: number, length: number, zeroes: Region): void {
    const count = this.#begin(IoOp.write, tag, position, length, 0);
    let used = 0;
    for (let left = length; left > 0; left -= zeroes.size) {
      this.#addSegment(zeroes.handle, 0, Math.min(left, zeroes.size));
      used++;
    }
    this.words[count] = used;
  }

  /** Returns where the segment count stands. */
  #begin(op: number, tag: number, position: number, length: number, segments: number): number {
    const { words } = this;
    words[this.#used++] = op;
    words[this.#used++] = this.#fd;
    words[this.#used++] = tag;
    words[this.#used++] = position;
    words[this.#used++] = length;
    words[this.#used++] = segments;
    this.count++;
    return this.#used - 1;
  }

  #addSegment(handle: number, offset: number, length: number): void {
    const { words } = this;
    words[this.#used++] = handle;
    words[this.#used++] = offset;
    words[this.#used++] = length;
  }
}

/** Names for the log. */
export function operationName(op: number): string {
  return Object.entries(IoOp).find(([, value]) => value === op)?.[0] ?? `operation ${op}`;
}
