/** How a guest comes to this host, and what it takes along when it leaves: the frontend's part of a migration, over one use of the device at a time. */
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { Passage } from '../../device/source.ts';
import { UNKNOWN_QUEUE } from '../../protocols/virtqueue/index.ts';
import type { LeftRequests } from './left-requests.ts';
import type { Ring } from './ring.ts';

type State =
  /** The device is not in use. */
  | { readonly name: 'unused' }
  /** The guest is here. */
  | { readonly name: 'here' }
  /** It is expected from another host: the rings wait for what that one left. */
  | { readonly name: 'expected' }
  /** It is here, with what was left of its queues; null: nobody knows. */
  | { readonly name: 'arrived'; readonly queues: readonly QueueHandOver[] | null; readonly isAskedAgain?: true }
  /** Its host is being told what it takes along; a ring that is kicked meanwhile waits until that is done. */
  | { readonly name: 'leaving' };

export class GuestPassage {
  readonly #passage: Passage | undefined;
  readonly #rings: readonly Ring[];
  readonly #left: LeftRequests;
  #state: State = { name: 'unused' };

  /** `passage` is left out where the guest never moves. */
  constructor(passage: Passage | undefined, rings: readonly Ring[], left: LeftRequests) {
    this.#passage = passage;
    this.#rings = rings;
    this.#left = left;
  }

  /** The device has to be open, although no ring has begun. */
  get expected(): boolean {
    return this.#state.name === 'expected';
  }

  /** The VMM begins to set the rings up. Where the guest comes from another host, its device has to be open from now on: `expected`. */
  comes(): void {
    if (this.#state.name === 'unused' && this.#passage?.arrival() !== undefined) this.#ask();
  }

  /** A ring is about to begin: asks where it is the first. See DeviceModel. */
  handOverOf(ring: Ring): QueueHandOver | null | undefined | 'expected' {
    if (this.#state.name === 'unused') this.#ask();
    switch (this.#state.name) {
      case 'expected':
      case 'leaving':
        return 'expected';
      case 'arrived':
        // Once it has begun here, this host knows better.
        return ring.left === undefined ? (this.#state.queues?.[ring.index] ?? null) : undefined;
      default:
        return undefined;
    }
  }

  /** The guest of a ring that has not begun here may have no reason to kick it: what it waits for was taken elsewhere. */
  needsKick(ring: Ring): boolean {
    switch (this.#state.name) {
      case 'unused':
        return this.#passage?.arrival() !== undefined;
      case 'arrived':
        return !isNoted(ring);
      default:
        return this.#state.name === 'expected';
    }
  }

  /** What is known does not fit it: its last host may not have been heard yet. Until then nothing of the guest is here for good. */
  ringHeld(): void {
    const arrived = this.#state;
    if (arrived.name !== 'arrived' || arrived.isAskedAgain) return;
    const again = this.#passage!.arrivalAgain();
    if (again === undefined) return;
    const waiting: State = { ...arrived, isAskedAgain: true };
    this.#state = waiting;
    void again.then((queues) => {
      if (this.#state !== waiting) return;
      this.#state = { name: 'arrived', queues };
      for (const ring of this.#rings) ring.beginAgain();
    });
  }

  /** A ring has begun, and notes what was left of it. */
  ringStarted(): void {
    if (this.#state.name !== 'arrived' || this.#state.isAskedAgain) return;
    const { queues } = this.#state;
    // One that its VMM has never begun has nothing; any other one may turn out not to fit.
    const isNew = (ring: Ring) => ring.base === 0 && !queues?.[ring.index]?.heads.length;
    if (this.#rings.every((ring) => isNoted(ring) || isNew(ring))) this.#passage!.arrived();
  }

  /** The guest leaves, with the rings as they stand: `heads` says which requests of a ring have no answer. Resolves at `signal` at the latest. */
  async leave(heads: (ring: Ring) => readonly number[], signal: AbortSignal): Promise<void> {
    if (this.#passage === undefined || this.#state.name === 'leaving') return;
    const queues = this.#rings.map((ring) => this.#leftOf(ring, heads(ring)));
    // Nothing was begun, and nothing is known.
    const isUntouched = !this.#rings.some(isNoted);
    if (isUntouched && !(this.#state.name === 'arrived' && this.#state.queues !== null)) return;
    this.#state = { name: 'leaving' };
    await this.#passage.leave(queues, signal).catch(() => undefined);
  }

  /** The device is not in use any more. */
  end(): void {
    this.#state = { name: 'unused' };
    // Not from inside: what ends here ends first.
    for (const ring of this.#rings) if (ring.state.name === 'waiting') ring.kick();
  }

  #ask(): void {
    const arrival = this.#passage?.arrival();
    if (arrival === undefined) {
      this.#state = { name: 'here' };
      return;
    }
    const expected: State = { name: 'expected' };
    this.#state = expected;
    for (const ring of this.#rings) ring.forgetStop();
    void arrival.then((queues) => {
      if (this.#state !== expected) return;
      this.#state = { name: 'arrived', queues };
      for (const ring of this.#rings) ring.goOn();
    });
  }

  #leftOf(ring: Ring, heads: readonly number[]): QueueHandOver {
    if (ring.queue !== undefined) return ring.queue.leave(heads);
    if (ring.left !== undefined) return ring.left;
    if (this.#state.name === 'arrived') return this.#state.queues?.[ring.index] ?? UNKNOWN_QUEUE;
    // It never began: its VMM knows where it stands, unless something was left of it, or it does not fit.
    if (ring.state.name === 'broken' || !this.#left.isNothing(ring.index)) return UNKNOWN_QUEUE;
    return { fetched: ring.base, usedIndex: ring.base, heads: [], lastBatch: [] };
  }
}

/** It has begun here, and what was left of it elsewhere is noted. */
function isNoted(ring: Ring): boolean {
  return ring.queue !== undefined || ring.left !== undefined;
}
