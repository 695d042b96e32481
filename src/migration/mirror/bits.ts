/** A set of small numbers, over memory of somebody else's: one bit for each region of a disk. It counts what is in it. */
const WORD_BITS = 32;

/** Bytes that a set of `length` numbers needs: whole words. */
export function bitsBytes(length: number): number {
  return Math.ceil(length / WORD_BITS) * 4;
}

export class Bits {
  readonly length: number;
  #words: Uint32Array;
  #count = 0;

  /** `bytes` has `bitsBytes(length)` bytes, begins at a multiple of four, and may have numbers in it already. */
  constructor(length: number, bytes: Uint8Array = new Uint8Array(bitsBytes(length))) {
    this.length = length;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bitsBytes(length) / 4);
    this.#recount();
  }

  get count(): number {
    return this.#count;
  }

  has(number: number): boolean {
    return (this.#words[number >>> 5] & (1 << (number & 31))) !== 0;
  }

  add(number: number): void {
    if (this.has(number)) return;
    this.#words[number >>> 5] |= 1 << (number & 31);
    this.#count++;
  }

  delete(number: number): void {
    if (!this.has(number)) return;
    this.#words[number >>> 5] &= ~(1 << (number & 31));
    this.#count--;
  }

  addRange(first: number, last: number): void {
    let number = first;
    for (; number <= last && (number & 31) !== 0; number++) this.add(number);
    for (; number + WORD_BITS - 1 <= last; number += WORD_BITS) {
      this.#count += WORD_BITS - ones(this.#words[number >>> 5]);
      this.#words[number >>> 5] = 0xffffffff;
    }
    for (; number <= last; number++) this.add(number);
  }

  /** All of them are in it. */
  hasRange(first: number, last: number): boolean {
    for (let number = first; number <= last; number++) if (!this.has(number)) return false;
    return true;
  }

  /** One of them is in it. */
  meetsRange(first: number, last: number): boolean {
    const next = this.next(first);
    return next !== -1 && next <= last;
  }

  /** The lowest that is not below `from`, or -1. */
  next(from: number): number {
    if (this.#count === 0 || from >= this.length) return -1;
    let at = from >>> 5;
    let word = this.#words[at] & (0xffffffff << (from & 31));
    while (word === 0) {
      if (++at >= this.#words.length) return -1;
      word = this.#words[at];
    }
    return at * WORD_BITS + 31 - Math.clz32(word & -word);
  }

  /** Adds all that is in the other one, of the same length. */
  addAll(other: Bits): void {
    if (other.#count === 0) return;
    for (let at = 0; at < this.#words.length; at++) this.#words[at] |= other.#words[at];
    this.#recount();
  }

  /** Becomes the other one, of the same length. */
  copy(other: Bits): void {
    this.#words.set(other.#words);
    this.#count = other.#count;
  }

  clear(): void {
    if (this.#count === 0) return;
    this.#words.fill(0);
    this.#count = 0;
  }

  /** Uses the memory no more: nothing is in it, and nothing stays in it. */
  release(): void {
    this.#words = new Uint32Array(0);
    this.#count = 0;
  }

  #recount(): void {
    let count = 0;
    for (const word of this.#words) if (word !== 0) count += ones(word);
    this.#count = count;
  }
}

/** Bits of a word that are set (Hacker's Delight, 5-1). */
function ones(word: number): number {
  let sum = word - ((word >>> 1) & 0x55555555);
  sum = (sum & 0x33333333) + ((sum >>> 2) & 0x33333333);
  return Math.imul((sum + (sum >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
