/**
 * What connections leave behind: requests that were taken from a ring and have no answer. A front-end that comes back for the same guest knows of none
 * of them: it goes on from the used index (QEMU 7.2), which repeats requests that are done and forgets others, unless they were finished in
 * order. An in-flight region says which they are. Without one, such a ring is not served: a guest that waits is better off than one whose data is
 * wrong. The way out is a driver that starts anew, as after a reset of the VM.
 */
import { NetbusError } from '../../device/errors.ts';
import type { SplitQueue } from '../../protocols/virtqueue/index.ts';

/** From harmless to harmful. */
export const leftStates = ['nothing', 'after-used', 'unknown'] as const;
export type Left =
  /** All that was taken has its answer. */
  | 'nothing'
  /** Those without an answer are the ones that come after the used index: who goes on from there takes exactly them again. */
  | 'after-used'
  /** Which ones is not known, or they were overtaken by others. */
  | 'unknown';

export class LeftRequests {
  readonly #rings: Left[];

  /** `before` is what is known from a time before this object. */
  constructor(rings: number, before: Left) {
    this.#rings = new Array(rings).fill(before);
  }

  /** The worst of all rings. */
  get worst(): Left {
    const worst = this.#rings.map((left) => leftStates.indexOf(left)).reduce((a, b) => Math.max(a, b), 0);
    return leftStates[worst];
  }

  /** Whether all that was taken from the ring, and the ring itself, is accounted for. */
  isNothing(ring: number): boolean {
    return this.#rings[ring] === 'nothing';
  }

  /** A connection ended with an unanswered request of this ring. */
  add(ring: number, followsUsed: boolean): void {
    if (!followsUsed) this.#rings[ring] = 'unknown';
    else if (this.#rings[ring] === 'nothing') this.#rings[ring] = 'after-used';
  }

  /** Called before the first entry is taken. Throws `device` where the ring must not be served. */
  start(ring: number, queue: SplitQueue): void {
    const isNew = queue.nextAvailable === 0 && queue.usedIndex === 0;
    if (!queue.recovered && !isNew && !this.#canGoOn(this.#rings[ring], queue)) {
      throw new NetbusError(
        'device',
        'requests of this guest were cut off, and without an in-flight region of its VMM it is not known which ones are done: the guest waits, so that nothing is done twice, until the VM is reset',
      );
    }
    this.#rings[ring] = 'nothing';
  }

  #canGoOn(left: Left, queue: SplitQueue): boolean {
    const fromUsed = queue.nextAvailable === queue.usedIndex;
    switch (left) {
      case 'nothing':
        return true;
      case 'after-used':
        return fromUsed;
      case 'unknown':
        // The driver has all that it asked for.
        return fromUsed && queue.pending() === 0;
    }
  }
}
