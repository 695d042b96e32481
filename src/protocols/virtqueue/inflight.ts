/**
 * One queue's part of the region in which requests in flight are noted (vhost-user, "Inflight I/O tracking", split virtqueue). The region
 * is a file that the front-end keeps, so it outlives this process, and from it, the used index and nothing else a later process
 * knows what was taken and not answered.
 *
 * A kill may come between any two stores, so their order is the whole point. Those that say something are atomic ones, which nothing moves; what
 * is stored plainly means nothing before the atomic store that follows. Whoever has the file may change what is in it; it is read at
 * the start alone, and checked there.
 */

import type { QueueHandOver } from '../../device/hand-over.ts';

/** Features (u64, none so far), version, number of descriptors, head of the last batch, used index (u16 each). */
const HEADER_BYTES = 16;
/** In flight (u8), 5 bytes of padding, next of the batch (u16), counter (u64). */
const DESCRIPTOR_BYTES = 16;
/** So that no two queues share a cache line. */
const QUEUE_ALIGN = 64;
const VERSION = 1;

/** Places in the header, as 16-bit words. */
const VERSION_WORD = 4;
const SIZE_WORD = 5;
const BATCH_WORD = 6;
const USED_WORD = 7;
/** Places of a descriptor: its flag as a byte, its next as a 16-bit word, the low half of its counter as a 32-bit one. */
const flagByte = (head: number): number => HEADER_BYTES + head * DESCRIPTOR_BYTES;
const nextWord = (head: number): number => (HEADER_BYTES + 6) / 2 + head * (DESCRIPTOR_BYTES / 2);
const counterWord = (head: number): number => (HEADER_BYTES + 8) / 4 + head * (DESCRIPTOR_BYTES / 4);

/** Bytes of a queue's part. */
export function inflightBytes(queueSize: number): number {
  return Math.ceil((HEADER_BYTES + queueSize * DESCRIPTOR_BYTES) / QUEUE_ALIGN) * QUEUE_ALIGN;
}

/** Where a queue stands when it starts. */
export interface QueueStart {
  readonly size: number;
  /** Next available entry to take, as the front-end says; it may know no better than the used index. */
  readonly base: number;
  /** Indexes of the rings in guest memory. */
  readonly usedIndex: number;
  readonly availableIndex: number;
}

/** What the region says about a queue that starts. */
export type InflightFinding =
  /** Nothing: it was never used, or by a life of the driver that is over. The queue goes on from its base. */
  | { readonly name: 'new' }
  /** It was in use. These heads were taken and not answered, in the order in which they were taken; the last batch is what was just answered. */
  | {
      readonly name: 'in-use';
      readonly heads: readonly number[];
      readonly lastBatch: readonly number[];
      readonly lastCounter: number;
    }
  /** Nothing, but another host took these heads and left them unanswered, in the order in which they were taken. */
  | { readonly name: 'handed-over'; readonly heads: readonly number[] }
  /** It and the rings cannot both be right, and why. */
  | { readonly name: 'mismatch'; readonly reason: string };

export class InflightQueue {
  /** Most entries of the queue. */
  readonly size: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #words: Uint16Array<ArrayBuffer>;
  readonly #counters: Uint32Array<ArrayBuffer>;
  #lastBatchHead = 0;
  /** Of the next mark. */
  #counter = 1;

  /** Over a window of `inflightBytes(size)`. Nothing is written before `begin`. */
  constructor(window: ArrayBuffer, size: number) {
    this.size = size;
    this.#bytes = new Uint8Array(window, 0, inflightBytes(size));
    this.#words = new Uint16Array(window, 0, inflightBytes(size) / 2);
    this.#counters = new Uint32Array(window, 0, inflightBytes(size) / 4);
  }

  /** A queue was started with it before. */
  get inUse(): boolean {
    return this.#words[VERSION_WORD] !== 0;
  }

  /** Looks; changes nothing. */
  examine(start: QueueStart): InflightFinding {
    const { size, base, usedIndex } = start;
    if (size > this.size) return mismatch(`it has room for ${this.size} entries and the ring has ${size}`);
    const version = this.#words[VERSION_WORD];
    if (version === 0) return this.#examineNew(start);
    if (version !== VERSION) return mismatch(`it is of version ${version}`);
    const found = this.#examineUsed(start);
    // Both indexes at 0 where that cannot be the ring that was noted: a driver that begins anew. Its VMM kept the region.
    return found.name === 'mismatch' && base === 0 && usedIndex === 0 ? { name: 'new' } : found;
  }

  /** Takes the finding for true and brings the region up to date. Called once, before the first mark. */
  begin(finding: InflightFinding, usedIndex: number): void {
    if (finding.name === 'in-use') {
      for (const head of finding.lastBatch) this.clear(head);
      Atomics.store(this.#words, USED_WORD, usedIndex);
      this.#lastBatchHead = this.#words[BATCH_WORD];
      this.#counter = finding.lastCounter + 1;
      return;
    }
    // Until the version is there it counts as never used, whatever else is.
    Atomics.store(this.#words, VERSION_WORD, 0);
    for (let head = 0; head < this.size; head++) this.clear(head);
    Atomics.store(this.#words, SIZE_WORD, this.size);
    Atomics.store(this.#words, BATCH_WORD, 0);
    Atomics.store(this.#words, USED_WORD, usedIndex);
    if (finding.name === 'handed-over') for (const head of finding.heads) this.mark(head);
    Atomics.store(this.#words, VERSION_WORD, VERSION);
  }

  /**
   * What it says without the guest's rings, for another host that will have them. Undefined where no queue can have left that behind; a queue that
   * never started stands at 0.
   */
  handOver(): QueueHandOver | undefined {
    const version = this.#words[VERSION_WORD];
    if (version === 0) return { fetched: 0, usedIndex: 0, heads: [], lastBatch: [] };
    if (version !== VERSION || this.#words[SIZE_WORD] !== this.size) return undefined;
    const heads = this.#flagged();
    const counters = new Map(heads.map((head) => [head, this.#counterOf(head)]));
    if (!heads.every((head) => Number.isSafeInteger(counters.get(head)))) return undefined;
    heads.sort((a, b) => counters.get(a)! - counters.get(b)!);
    const usedIndex = this.#words[USED_WORD];
    return { fetched: (usedIndex + heads.length) & 0xffff, usedIndex, heads, lastBatch: this.#linked() };
  }

  #flagged(): number[] {
    const heads: number[] = [];
    for (let head = 0; head < this.size; head++) if (this.#bytes[flagByte(head)] !== 0) heads.push(head);
    return heads;
  }

  /** Heads as they were linked, newest first: those of the last batch, and what is left of earlier ones. */
  #linked(): number[] {
    const heads: number[] = [];
    for (let head = this.#words[BATCH_WORD]; head < this.size && !heads.includes(head); head = this.#words[nextWord(head)])
      heads.push(head);
    return heads;
  }

  /** Hot. The chain was taken: from now on it is in flight, also for whoever comes after a kill. */
  mark(head: number): void {
    const at = counterWord(head);
    this.#counters[at] = this.#counter; // A typed array takes the value modulo 2^32.
    this.#counters[at + 1] = this.#counter / 2 ** 32;
    this.#counter++;
    Atomics.store(this.#bytes, flagByte(head), 1);
  }

  /** Hot. The chain is in the used ring, where the driver does not see it yet. */
  link(head: number): void {
    this.#words[nextWord(head)] = this.#lastBatchHead;
    Atomics.store(this.#words, BATCH_WORD, head);
    this.#lastBatchHead = head;
  }

  /** Hot. The driver sees it, or it was given back to the available ring: it is not in flight. */
  clear(head: number): void {
    Atomics.store(this.#bytes, flagByte(head), 0);
  }

  /** Hot. The whole batch up to `usedIndex` is cleared. */
  settle(usedIndex: number): void {
    Atomics.store(this.#words, USED_WORD, usedIndex);
  }

  /** Without notes, what lies between the used index and the base is known to nobody. */
  #examineNew({ base, usedIndex }: QueueStart): InflightFinding {
    if (base === usedIndex) return { name: 'new' };
    return mismatch(`it is new, and the ring is to go on from entry ${base} while its driver has ${usedIndex} answers`);
  }

  #examineUsed({ size, usedIndex, availableIndex }: QueueStart): InflightFinding {
    if (this.#words[SIZE_WORD] !== this.size) return mismatch(`it says that it has ${this.#words[SIZE_WORD]} entries`);
    const lastBatch = this.#lastBatch(size, (usedIndex - this.#words[USED_WORD]) & 0xffff);
    if (lastBatch === undefined) return mismatch(`it knows ${this.#words[USED_WORD]} answers, the driver has ${usedIndex}`);
    const heads = this.#flagged().filter((head) => !lastBatch.includes(head));
    const outside = heads.find((head) => head >= size);
    if (outside !== undefined) return mismatch(`it notes head ${outside}, the ring has ${size} entries`);
    const counters = new Map(heads.map((head) => [head, this.#counterOf(head)]));
    if ([...counters.values()].some((counter) => !Number.isSafeInteger(counter)))
      return mismatch('its counters are beyond 2^53');
    // What a driver waits for is in its ring: all that is in flight, and no more than the ring has room for.
    const awaited = (availableIndex - usedIndex) & 0xffff;
    if (heads.length > awaited || awaited > size) {
      return mismatch(`it notes ${heads.length} requests, the driver of ${size} entries waits for ${awaited}`);
    }
    heads.sort((a, b) => counters.get(a)! - counters.get(b)!);
    const lastCounter = Math.max(0, ...counters.values());
    return { name: 'in-use', heads, lastBatch, lastCounter };
  }

  /** The `count` heads that were linked last; undefined where there cannot be so many, or where they are none of this queue. */
  #lastBatch(size: number, count: number): number[] | undefined {
    if (count > size) return undefined;
    const heads: number[] = [];
    for (let head = this.#words[BATCH_WORD]; heads.length < count; head = this.#words[nextWord(head)]) {
      if (head >= size) return undefined;
      heads.push(head);
    }
    return heads;
  }

  #counterOf(head: number): number {
    const at = counterWord(head);
    return this.#counters[at] + this.#counters[at + 1] * 2 ** 32;
  }
}

function mismatch(reason: string): InflightFinding {
  return { name: 'mismatch', reason };
}
