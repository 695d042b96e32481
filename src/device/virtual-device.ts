/**
 * A virtual device of a VM: what a frontend plugs into, whatever stands behind it. It opens a session with the device's host when the guest begins
 * to use the device, asks for the lease, and puts the granted device into the slot; when that is lost it holds the
 * guest's requests, and tries again until it is back.
 */
import { within } from '../lib/abort.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import { Arrival } from './arrival.ts';
import type { Batch } from './batch.ts';
import type { Device } from './device.ts';
import { DiskReplay } from './disk-replay.ts';
import type { NetbusError } from './errors.ts';
import { FAILURE_LENGTH_MAX, type HandOver, type QueueHandOver } from './hand-over.ts';
import { MessageTable } from './message-table.ts';
import type { Profile } from './profile.ts';
import type { OpenSession, Passage, Source } from './source.ts';
import { type GuestHistory, type Renewal, Use } from './use.ts';

/** How long the end of a virtual device waits for what it gives back. */
const CLOSE_MS_MAX = 2_000;
/** Between two looks whether more is known of a guest whose queues do not fit what is known. */
const ASK_AGAIN_MS_MIN = 1_000;
const ASK_AGAIN_MS_MAX = 30_000;

/** Where a virtual device is. */
export type VirtualDeviceState =
  /** The guest does not use it. */
  | { readonly name: 'idle' }
  /** Asking the device's host; `cause` says why it is not there yet, after a first failure. `errorsAt`: when the hold time ends. */
  | { readonly name: 'connecting'; readonly since: number; readonly cause?: NetbusError; readonly errorsAt?: number }
  | { readonly name: 'active'; readonly since: number; readonly epoch: number }
  /**
   * Every request is answered with an error: going on would silently lose acknowledged writes, or this host was fenced. `returns`: the hold
   * time is over, and the guest goes on as soon as the device is back.
   */
  | { readonly name: 'failed'; readonly since: number; readonly cause: NetbusError; readonly returns?: true }
  | { readonly name: 'closed' };

export interface VirtualDeviceOptions {
  readonly profile: Profile;
  /** Most requests of the guest that are held at a time. */
  readonly depth: number;
  /** What was written and not flushed before this object was made: `unknown` where an earlier daemon served a guest; `nothing` by default. */
  readonly before?: 'nothing' | 'unknown';
  readonly openSession: OpenSession;
  /** The guest is expected from another host: see Passage. */
  readonly arriving?: boolean;
  /** What a guest that leaves has not flushed; `byReplay`: whether its own flushes leave anything. Nothing where it is left out. */
  readonly unflushed?: (byReplay: boolean) => HandOver['unflushed'];
  /** The driver's choice between write-back and write-through, for a guest that leaves. */
  readonly writeCache?: () => boolean | undefined;
  /** And of one that comes, before its queues start. */
  readonly onWriteCache?: (enabled: boolean) => void;
  /** All that was unfinished of it is noted here. */
  readonly onArrived?: () => void;
  /** It has taken something here: it cannot go back. */
  readonly onTaken?: () => void;
  /** It is here for good, and the device's host, which has just granted the lease, does not know that yet. */
  readonly onUntold?: () => void;
  /** See Passage. */
  readonly onMayLeave?: (expected: boolean) => void;
  /** It has left again. `unchanged`: it had taken nothing, and goes back, or comes once more. */
  readonly onLeft?: (how: 'unchanged' | 'for good') => void;
  /**
   * What the guest left, under `epoch`, did not reach the device's host in time. Once for each time that it leaves; `over` is aborted when it has, or the guest
   * goes on here.
   */
  readonly onUndelivered?: (undelivered: { epoch: number; left: HandOver }, over: AbortSignal) => void;
  /** How long requests wait for a device that is away before they fail, in milliseconds; for ever where it is left out. */
  readonly holdMs?: number | undefined;
  readonly clock: Clock;
  readonly onState: (state: VirtualDeviceState) => void;
}

export class VirtualDevice implements Source {
  readonly #options: VirtualDeviceOptions;
  #profile: Profile;
  #history: GuestHistory;
  #state: VirtualDeviceState = { name: 'idle' };
  #use: Use | undefined;
  /** The use before this one, and when the last trace of it is gone. */
  #last: Use | undefined;
  #previous: Promise<void> = Promise.resolve();
  #arrival: Arrival | undefined;
  /** The VMM copies the guest's memory: where it stops now, it goes to yet another host. */
  #isCopied = false;
  readonly passage: Passage = {
    arrival: () => this.#arrival?.queues,
    arrivalAgain: () => this.#arrival?.askAgain(),
    arrived: () => this.#options.onArrived?.(),
    mayLeave: (expected) => {
      this.#isCopied = expected;
      this.#options.onMayLeave?.(expected);
    },
    leave: (queues, signal) => this.#leave(queues, signal),
  };

  constructor(options: VirtualDeviceOptions) {
    this.#options = options;
    this.#profile = options.profile;
    this.#history = { replay: new DiskReplay(options.before) };
    if (options.arriving) this.#arrival = this.#newArrival();
  }

  get profile(): Profile {
    return this.#profile;
  }

  get state(): VirtualDeviceState {
    return this.#state;
  }

  /** The capacity grew; the frontend tells the guest. */
  grow(profile: Profile): void {
    this.#profile = profile;
  }

  /**
   * The VM starts anew: for that guest everything before was one power cut. But what it reads after that counts as stable, and what the guest before it
   * left unflushed is not, until somebody flushes.
   */
  newGuest(): void {
    const { unflushed } = this.#history.replay;
    this.#history = { replay: new DiskReplay(unflushed ? 'unknown' : 'nothing') };
  }

  /** The guest that was expected is here for good, and what it left behind is made good: it leaves as any other guest does. */
  settled(): void {
    this.#arrival = undefined;
  }

  /** One use by the guest: from its first ring start, or where it comes from another host from the VMM's first word, until all rings have stopped or the VMM has gone. */
  open(): Device {
    if (this.#use !== undefined) throw new Error('a virtual device has one guest at a time');
    // The guest goes on here: what the use before this one would hand over is not for anybody else any more.
    this.#last?.abandon();
    const use = new Use(this.#profile, this.#options, this.#history, this.#previous, {
      // A later use speaks for itself.
      become: (state) => {
        if (this.#use === undefined || this.#use === use) this.#become(state);
      },
      granted: ({ handOver }) => {
        const writeCache = handOver?.writeCache;
        if (this.#arrival !== undefined && writeCache !== undefined) this.#options.onWriteCache?.(writeCache);
        if (this.#arrival === undefined) {
          if (handOver !== undefined) this.#options.onUntold?.();
          return;
        }
        this.#arrival.granted(handOver);
        use.slot.tellBeyond(this.#arrival.unfinished);
      },
      tookBeyond: () => {
        if (this.#arrival !== undefined) this.#options.onTaken?.();
      },
      closed: () => {
        this.#use = undefined;
        // What was cut off is still the frontend's, and goes on here with the next use.
        if (this.#arrival === undefined || use.slot.used) return undefined;
        this.#leftUnchanged();
        return 'unchanged';
      },
    });
    this.#use = use;
    this.#last = use;
    this.#previous = use.ended;
    return use.slot;
  }

  /**
   * Takes the device from a guest that uses it, calls `between`, and asks for it anew: see Renewal. Resolves with the milliseconds that the guest waited; undefined
   * where no guest uses it (any more), whether `between` was called or not. Rejects with `in_use` during another one.
   */
  async renew(between: Renewal['between']): Promise<number | undefined> {
    const use = this.#use;
    if (use === undefined) return undefined;
    return new Promise((resolve, reject) => {
      try {
        use.renew({ between, ended: resolve });
      } catch (thrown) {
        reject(thrown);
      }
    });
  }

  /**
   * The guest's VMM has gone while nobody was here to see it: hands over what it left, as far as that is known. Resolves before the device's host has it,
   * which may take long.
   */
  async leaveBehind(queues: readonly QueueHandOver[]): Promise<void> {
    const device = this.open();
    const nobody = { reply: () => {}, push: (events: Batch) => events.count, ready: () => {}, lost: () => {} };
    device.start({ requests: new MessageTable(1), ...nobody });
    const atOnce = AbortSignal.abort();
    await device.quiesce(atOnce);
    await this.#leave(queues, atOnce);
    await device.close();
  }

  async close(): Promise<void> {
    await this.#use?.slot.close();
    // The device's host should hear of what is given back; where it does not answer the lease stays with this host.
    const { signal, cancel } = abortAfter(this.#options.clock, CLOSE_MS_MAX);
    await within(signal, this.#previous);
    cancel();
    this.#last?.abandon();
    await this.#previous;
    this.#become({ name: 'closed' });
  }

  #newArrival(): Arrival {
    const arrival: Arrival = new Arrival(() => this.#askAgain(arrival, ASK_AGAIN_MS_MIN));
    return arrival;
  }

  /** Each grant is one more epoch for the device's host to store, so it is asked less and less often. */
  #askAgain(arrival: Arrival, delayMs: number): void {
    const use = this.#use;
    this.#options.clock.after(delayMs, () => {
      if (this.#arrival !== arrival || this.#use !== use || !arrival.isAskedAgain) return;
      use?.askAgain();
      this.#askAgain(arrival, Math.min(2 * delayMs, ASK_AGAIN_MS_MAX));
    });
  }

  /** Whoever comes after all begins anew, and may have written and flushed elsewhere meanwhile. */
  #leftUnchanged(): void {
    this.#arrival = this.#newArrival();
    this.#history = { ...this.#history, replay: new DiskReplay(this.#options.before) };
    this.#options.onLeft?.('unchanged');
  }

  #leave(queues: readonly QueueHandOver[], signal: AbortSignal): Promise<void> {
    const use = this.#use;
    if (use === undefined) return Promise.resolve();
    // On its way to yet another host it takes along how its queues stand now: what was unfinished may have been finished here.
    if (!this.#isCopied && this.#arrival?.isUnchanged(queues)) {
      this.#leftUnchanged();
      return use.leave('unchanged', signal);
    }
    this.#arrival = undefined;
    this.#options.onLeft?.('for good');
    const { replay, failure } = this.#history;
    const unflushed = this.#options.unflushed?.(replay.unflushed);
    const failed = failure === undefined ? {} : { failure: failure.message.slice(0, FAILURE_LENGTH_MAX) };
    const writeCache = this.#options.writeCache?.();
    const chosen = writeCache === undefined ? {} : { writeCache };
    return use.leave({ queues: [...queues], ...(unflushed && { unflushed }), ...chosen, ...failed }, signal);
  }

  #become(state: VirtualDeviceState): void {
    if (this.#state.name === 'closed') return;
    this.#state = state;
    this.#options.onState(state);
  }
}
