/** A ring of small numbers, first in, first out: what waits to be sent. Holds each number once at most, so `capacity` is enough. */
export class IdQueue {
  readonly #ids: Uint16Array;
  #head = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#ids = new Uint16Array(capacity);
  }

  get count(): number {
    return this.#count;
  }

  add(id: number): void {
    this.#ids[(this.#head + this.#count++) % this.#ids.length] = id;
  }

  /** The oldest; the queue must not be empty. */
  take(): number {
    const id = this.#ids[this.#head];
    this.#head = (this.#head + 1) % this.#ids.length;
    this.#count--;
    return id;
  }
}
