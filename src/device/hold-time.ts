/** How long requests wait for a device that is away before they fail (invariant 5). One per use of a virtual device. */
import type { Clock } from '../lib/clock.ts';
import { formatDuration } from '../lib/format.ts';
import { NetbusError } from './errors.ts';

/** Without any hold time: how long a guest that starts waits for the first try. */
const FIRST_TRY_MS_MAX = 1_000;

export class HoldTime {
  readonly #holdMs: number | undefined;
  readonly #clock: Clock;
  readonly #onOver: (cause: NetbusError) => void;
  #cause: NetbusError | undefined;
  #cancel: (() => void) | undefined;
  #errorsAt: number | undefined;
  #over = false;

  /** `holdMs` undefined: for ever. `onOver` is told once for each time that it is waited beyond it. */
  constructor(holdMs: number | undefined, clock: Clock, onOver: (cause: NetbusError) => void) {
    this.#holdMs = holdMs;
    this.#clock = clock;
    this.#onOver = onOver;
  }

  /** It was waited for longer than that, and the device is still away. */
  get over(): boolean {
    return this.#over;
  }

  /** Milliseconds since 1970: when requests will fail. Undefined: they will not, or do already, or nobody waits. */
  get errorsAt(): number | undefined {
    return this.#over ? undefined : this.#errorsAt;
  }

  /** The device is away, or still is. `cause` is why; it is undefined before the first try has come to something. */
  waits(cause: NetbusError | undefined): void {
    this.#cause = cause ?? this.#cause;
    if (this.#holdMs === undefined || this.#over) return;
    // Without any hold time the first try decides, if it comes to something: a guest that starts gets the device, not errors before it.
    if (this.#holdMs === 0 && this.#cause !== undefined) {
      this.#cancel?.();
      this.#end();
    } else if (this.#cancel === undefined) {
      const waitMs = this.#holdMs === 0 ? FIRST_TRY_MS_MAX : this.#holdMs;
      this.#errorsAt = this.#clock.wallTime() + waitMs;
      this.#cancel = this.#clock.after(waitMs, () => this.#end());
    }
  }

  /** The device is there, or nobody waits for it any more. */
  end(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#cause = undefined;
    this.#errorsAt = undefined;
    this.#over = false;
  }

  #end(): void {
    this.#over = true;
    const { code, message } = this.#cause ?? new NetbusError('timeout', 'its host did not answer yet');
    const held = this.#holdMs === 0 ? 'it has no hold time' : `the hold time of ${formatDuration(this.#holdMs!)} is over`;
    this.#onOver(new NetbusError(code, `${held}, and the device is away: ${message}`));
  }
}
