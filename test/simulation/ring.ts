/** The queue of a guest's disk as it is in the guest's memory: it moves with the guest, and a copy of it is what a migration's destination has. */
import type { Request } from './guest.ts';

/** Entries; a guest has fewer requests at a time. */
export const RING_SIZE = 64;

/** What a guest finds in its used ring. */
export interface Answer {
  readonly request: Request;
  readonly status: number;
  /** What a read gave. */
  readonly values: readonly number[];
}

export class GuestRing {
  /** Told of each answer. */
  onAnswer: (answer: Answer) => void;
  availableIndex = 0;
  usedIndex = 0;
  /** Heads that the driver made available, by index modulo the ring's size. */
  readonly #available: number[] = new Array(RING_SIZE).fill(0);
  /** By head, oldest first. */
  readonly #requests = new Map<number, Request>();
  /** Taken from its end, as Linux does it: a head that is free again is the next one. */
  readonly #free: number[] = Array.from({ length: RING_SIZE }, (_, i) => RING_SIZE - 1 - i);

  constructor(onAnswer: (answer: Answer) => void) {
    this.onAnswer = onAnswer;
  }

  /** Without an answer. */
  get waiting(): number {
    return this.#requests.size;
  }

  get isFull(): boolean {
    return this.#free.length === 0;
  }

  add(request: Request): void {
    const head = this.#free.pop();
    if (head === undefined) throw new Error('a guest has more requests than its ring has entries');
    this.#available[this.availableIndex % RING_SIZE] = head;
    this.availableIndex = (this.availableIndex + 1) & 0xffff;
    this.#requests.set(head, request);
  }

  headAt(index: number): number {
    return this.#available[index % RING_SIZE];
  }

  /** Undefined where it has its answer. */
  request(head: number): Request | undefined {
    return this.#requests.get(head);
  }

  use(head: number, status: number, values: readonly number[]): void {
    const request = this.#requests.get(head)!;
    this.#requests.delete(head);
    this.#free.push(head);
    this.usedIndex = (this.usedIndex + 1) & 0xffff;
    this.onAnswer({ request, status, values });
  }

  /** As it is now: what comes of it later the other one does not see. */
  copy(onAnswer: (answer: Answer) => void): GuestRing {
    const copy = new GuestRing(onAnswer);
    copy.availableIndex = this.availableIndex;
    copy.usedIndex = this.usedIndex;
    copy.#available.splice(0, RING_SIZE, ...this.#available);
    copy.#free.splice(0, RING_SIZE, ...this.#free);
    for (const [head, request] of this.#requests) copy.#requests.set(head, request);
    return copy;
  }
}
