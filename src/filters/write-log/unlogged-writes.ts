/**
 * The writes of a guest on the device's own host. No log is kept of them, because its guest does not outlive what that host forgets; unless it leaves. From
 * when it may leave, what was acknowledged is flushed again and again, so that little is left unflushed when it goes (invariant 2).
 */
import type { Grant } from '../../device/source.ts';
import type { Clock } from '../../lib/clock.ts';
import type { KeptLog } from './kept-blocks.ts';
import { UnloggedDevice } from './unlogged-device.ts';

export class UnloggedWrites {
  readonly clock: Clock;
  #mayLeave = false;
  #device: UnloggedDevice | undefined;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  get mayLeave(): boolean {
    return this.#mayLeave;
  }

  set mayLeave(mayLeave: boolean) {
    this.#mayLeave = mayLeave;
    this.#device?.mayLeaveChanged();
  }

  /** A flush of its own covers all that was acknowledged, before this guest, too. False where that is not known. */
  get areFlushed(): boolean {
    return this.#device?.isFlushed ?? false;
  }

  /** What a guest may use of a grant. `kept`: what its last host kept, and the device lacks: it goes to the device first. */
  admit(grant: Grant, kept?: KeptLog): Grant {
    const device = new UnloggedDevice(grant.device, this, kept);
    this.#device = device;
    return { ...grant, device, ...(kept !== undefined && { unflushed: 'kept', ready: device.opened }) };
  }
}
