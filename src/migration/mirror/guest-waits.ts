/** The waits of a guest that have a bound: for the new disk alone, and for a copy of what it writes to. */
import { NetbusError } from '../../device/errors.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Copier } from './copier.ts';
import { GUEST_ROWS, type GuestRows, Place } from './guest-rows.ts';
import type { Target } from './target.ts';

/** Part of the bound. It is waited for apart, so that an answer that is there already is taken first where this process was held up. */
const GRACE_MS = 10;

export interface WaitsOwner {
  readonly clock: Clock;
  readonly copier: Copier;
  readonly target: Target;
  readonly guestWaitMs: number;
}

export class GuestWaits {
  readonly #owner: WaitsOwner;
  readonly #rows: GuestRows;
  readonly #goOn: () => void;
  #cancel: (() => void) | undefined;

  /** `goOn` begins what need not wait any more. */
  constructor(owner: WaitsOwner, rows: GuestRows, goOn: () => void) {
    this.#owner = owner;
    this.#rows = rows;
    this.#goOn = goOn;
  }

  /** Something waits from now on: looks again when the bound of the oldest may have come. */
  look(delayMs = this.#owner.guestWaitMs): void {
    const { clock } = this.#owner;
    const graceMs = Math.min(GRACE_MS, delayMs);
    this.#cancel ??= clock.after(delayMs - graceMs, () => {
      this.#cancel = clock.after(graceMs, () => {
        this.#cancel = undefined;
        this.#end();
      });
    });
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** Ends those that lasted too long: the new disk is cut loose where it is the cause, and a copy is given up otherwise. */
  #end(): void {
    const { clock, copier, guestWaitMs, target } = this.#owner;
    const { places, position, extent, since } = this.#rows;
    const now = clock.now();
    let nextMs = Number.POSITIVE_INFINITY;
    let isTargetLate = false;
    for (let row = 0; row < GUEST_ROWS; row++) {
      if (!this.#rows.isHeld(row) || (places[row] !== Place.target && places[row] !== Place.waiting)) continue;
      const leftMs = since[row] + guestWaitMs - now;
      if (leftMs > 0) nextMs = Math.min(nextMs, leftMs);
      else if (places[row] === Place.target) isTargetLate = true;
      else isTargetLate = copier.release(position[row], extent[row]) || isTargetLate;
    }
    if (isTargetLate) target.cut(new NetbusError('timeout', `the new disk kept the guest waiting for ${guestWaitMs} ms`));
    this.#goOn();
    if (this.#rows.waitingCount > 0) nextMs = Math.min(nextMs, guestWaitMs);
    if (nextMs < Number.POSITIVE_INFINITY) this.look(nextMs);
  }
}
