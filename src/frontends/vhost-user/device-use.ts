/**
 * The life of a device behind rings: opened at the first start of a ring, brought to rest at the last stop, and in between cut off where a stop
 * meets its bound. What was cut off of a ring that runs goes first with the next device; what is left of one that stops is the ring's own.
 */
import type { Device } from '../../device/device.ts';
import { NetbusError } from '../../device/errors.ts';
import { FailedDevice } from '../../device/failed-device.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { Source } from '../../device/source.ts';
import { within } from '../../lib/abort.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { CutRequests } from './cut-requests.ts';
import { DeviceGuest } from './device-guest.ts';
import { GuestPassage } from './guest-passage.ts';
import type { LeftRequests } from './left-requests.ts';
import type { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';
import type { RingPump } from './ring-pump.ts';
import type { RingTimes } from './ring-times.ts';

/** How long the requests of a VMM that has gone are waited for: its guest is dead, or goes on from its used index. */
const DISCONNECT_QUIESCE_MS_MAX = 1_000;
/** Of each bound: what is left for telling the device's host what the guest takes along. */
export const LEAVE_SHARE = 0.2;

export interface DeviceUseOptions {
  readonly source: Source;
  readonly depth: number;
  readonly rows: RequestRows;
  readonly rings: readonly Ring[];
  readonly pump: RingPump;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the class: what a device that is gone answers. */
  readonly failedStatus: number;
  /** Of earlier connections, and of this one at its end. */
  readonly left: LeftRequests;
  /** The bound of all stops together, until a ring starts again. */
  readonly quiesceMsMax: number;
  readonly times: RingTimes;
  /** The last use of the source is over. */
  readonly previous: Promise<void>;
}

type State =
  /** No ring has started. */
  | { readonly name: 'idle' }
  | { readonly name: 'open'; readonly device: Device; readonly guest: DeviceGuest }
  /** Being brought to rest; `done` resolves when nothing more comes from it. */
  | { readonly name: 'quiescing'; readonly done: Promise<void> }
  /** At rest; the next one is opened when it is closed. */
  | { readonly name: 'closing' };

export class DeviceUse {
  readonly #options: DeviceUseOptions;
  readonly #rows: RequestRows;
  readonly #pump: RingPump;
  readonly #passage: GuestPassage;
  readonly #cut: CutRequests;
  readonly #leaveShare: number;
  #state: State = { name: 'idle' };
  /** Resolves when the last device is closed; the next is opened after it. */
  #closed: Promise<void>;
  #cutMs = 0;
  /** The device was lost during this use: errors are all that is left. */
  #lost = false;
  #ended = false;
  #waitLeftMs: number;

  constructor(options: DeviceUseOptions) {
    this.#options = options;
    this.#rows = options.rows;
    this.#pump = options.pump;
    this.#cut = new CutRequests(options.rows, options.rings);
    const { passage } = options.source;
    this.#passage = new GuestPassage(passage, options.rings, options.left);
    this.#leaveShare = passage === undefined ? 0 : LEAVE_SHARE;
    this.#closed = options.previous;
    this.#waitLeftMs = options.quiesceMsMax;
  }

  /** After `end`: resolves when guest memory and device are free. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Requests without an answer. */
  get inFlight(): number {
    return this.#cut.inFlight;
  }

  /**
   * The VMM begins to set the rings up. For a guest that comes from another host the device is asked for now: it may be there when the first ring begins.
   */
  comes(): void {
    this.#passage.comes();
    this.#openExpected();
  }

  /** See DeviceModel. */
  handOverOf(ring: Ring): QueueHandOver | null | undefined | 'expected' {
    const handOver = this.#passage.handOverOf(ring);
    this.#openExpected();
    return handOver;
  }

  /** See DeviceModel. */
  needsKick(ring: Ring): boolean {
    return this.#passage.needsKick(ring);
  }

  /** See DeviceModel. */
  ringHeld(): void {
    this.#passage.ringHeld();
  }

  ringStarted(ring: Ring): void {
    this.#options.left.start(ring.index, ring.queue!);
    ring.queue!.begin();
    this.#passage.ringStarted();
    this.#waitLeftMs = this.#options.quiesceMsMax;
    switch (this.#state.name) {
      case 'idle':
        this.#openAfterClosed();
        break;
      case 'open':
        this.#pump.run();
        break;
      case 'quiescing':
      case 'closing':
        break; // It is opened again after that, for all rings that have started.
    }
  }

  /** See DeviceModel. */
  async stopRing(ring: Ring): Promise<number> {
    if (this.#state.name === 'quiescing') await this.#state.done;
    const { clock, log, rings, quiesceMsMax } = this.#options;
    const begunMs = clock.now();
    const bound = abortAfter(clock, this.#waitLeftMs);
    const drain = abortAfter(clock, Math.max(0, this.#waitLeftMs - quiesceMsMax * this.#leaveShare));
    const isLast = !rings.some((other) => other !== ring && this.#wants(other));
    if (this.#state.name === 'open' && ring.queue !== undefined) {
      this.#pump.untake(ring);
      // What could not be given back has yet to be pushed; a device that quiesces would not take it any more.
      const pushed = () => !this.#pump.hasUnpushed(ring);
      const answered = () => this.#rows.inFlight[ring.index] === 0;
      const clean = await this.#until(isLast ? pushed : answered, drain.signal);
      if (!clean && !isLast) await this.#quiesce(drain.signal);
    }
    if (isLast) await this.#finish(drain.signal, bound.signal);
    bound.cancel();
    drain.cancel();
    const waitedMs = clock.now() - begunMs;
    this.#waitLeftMs = Math.max(0, this.#waitLeftMs - waitedMs);
    ring.endStop(this.#cut.headsOf(ring));
    this.#closed = this.#cut.bury(ring, this.#closed);
    const unfinished = ring.left?.heads.length ?? 0;
    const { index } = ring;
    if (unfinished > 0)
      log.warn(
        { ring: index, unfinished, waitedMs },
        `ring ${index} was stopped with ${unfinished} requests unfinished, which are kept`,
      );
    return Math.max(this.#pump.repliedMs, this.#cutMs);
  }

  /** See DeviceModel. */
  async end(): Promise<void> {
    this.#ended = true;
    const { clock, rings, left } = this.#options;
    const bound = abortAfter(clock, DISCONNECT_QUIESCE_MS_MAX);
    const drain = abortAfter(clock, DISCONNECT_QUIESCE_MS_MAX * (1 - this.#leaveShare));
    if (this.#state.name === 'quiescing') await this.#state.done;
    await this.#finish(drain.signal, bound.signal);
    bound.cancel();
    drain.cancel();
    for (const ring of rings) {
      const { queue } = ring;
      const heads = queue?.leave(this.#cut.headsOf(ring)).heads ?? ring.left?.heads ?? [];
      if (heads.length > 0) left.add(ring.index, queue?.followUsed(heads) ?? ring.leftFollowsUsed);
    }
    this.#closed = this.#cut.bury(undefined, this.#closed);
  }

  #isIdle(): boolean {
    return this.#state.name === 'idle';
  }

  /** The device is of use to the ring. */
  #wants(ring: Ring): boolean {
    return ring.started || (this.#passage.expected && ring.state.name === 'waiting');
  }

  /** No ring wants the device any more: `drain` bounds its rest, `bound` all that there is to do. */
  async #finish(drain: AbortSignal, bound: AbortSignal): Promise<void> {
    if (this.#passage.expected) {
      // Nothing was taken, and nothing is known: there is nothing to tell.
      if (this.#state.name === 'open') {
        this.#pump.detach();
        this.#close(this.#state.device, this.#state.guest);
      }
      this.#passage.end();
      return;
    }
    // What was cut off before has yet to be handed over, by a device that is open.
    if (this.#leaveShare > 0 && this.#state.name === 'closing' && this.#options.rings.some(({ queue }) => queue)) {
      await within(bound, this.#closed);
      if (!this.#isIdle()) return;
      this.#start();
    }
    await this.#quiesce(drain, bound);
  }

  #openExpected(): void {
    if (this.#passage.expected && this.#state.name === 'idle') this.#openAfterClosed();
  }

  #openAfterClosed(): void {
    this.#state = { name: 'closing' };
    void this.#closed.then(() => {
      if (this.#state.name !== 'closing') return;
      const isWanted = this.#passage.expected || this.#options.rings.some((ring) => this.#wants(ring));
      if (this.#ended || !isWanted) {
        this.#state = { name: 'idle' };
        this.#lost = false;
      } else {
        this.#open();
      }
    });
  }

  #open(): void {
    this.#pump.attach(this.#start());
    this.#pump.onServed = this.#onServed;
    this.#cut.resume(this.#pump);
    this.#pump.run();
  }

  #start(): Device {
    const device = this.#newDevice();
    const guest = new DeviceGuest(this.#rows.table, {
      reply: (replies) => this.#pump.replied(replies),
      ready: () => this.#pump.ready(),
      lost: (cause) => this.#deviceLost(cause),
    });
    this.#state = { name: 'open', device, guest };
    device.start(guest);
    return device;
  }

  readonly #onServed = (nowMs: number): void => this.#options.times.served(nowMs);

  #newDevice(): Device {
    const { source, depth, log, failedStatus } = this.#options;
    if (this.#lost) return new FailedDevice(source.profile, depth, failedStatus);
    try {
      return source.open();
    } catch (thrown) {
      const cause = NetbusError.from(thrown);
      log.error({ code: cause.code }, `the device cannot be opened and answers with errors: ${cause.message}`);
      return new FailedDevice(source.profile, depth, failedStatus);
    }
  }

  #deviceLost(cause: NetbusError): void {
    if (this.#state.name !== 'open') return;
    const { code, message } = cause;
    this.#options.log.error({ code }, `the device is lost and answers with errors until the guest stops using it: ${message}`);
    this.#lost = true;
    void this.#quiesce(AbortSignal.abort());
  }

  /** Waits until `done`, looking after each step of progress. False where the signal, or the end of the device, came first. */
  #until(done: () => boolean, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const look = () => {
        if (!done() && !signal.aborted && this.#state.name === 'open') return;
        signal.removeEventListener('abort', look);
        this.#pump.onProgress = undefined;
        resolve(done());
      };
      this.#pump.onProgress = look;
      signal.addEventListener('abort', look);
      look();
    });
  }

  /**
   * Brings the device to rest and closes it; what it did not finish is kept. With `bound` it is the end of its use, and in between the guest leaves.
   * Nothing to do where it is not open.
   */
  async #quiesce(drain: AbortSignal, bound?: AbortSignal): Promise<void> {
    const state = this.#state;
    if (state.name === 'quiescing') return state.done;
    if (state.name !== 'open') return;
    this.#pump.detach();
    const done = this.#rest(state.device, state.guest, drain, bound);
    this.#state = { name: 'quiescing', done };
    this.#pump.onProgress?.();
    await done;
  }

  async #rest(device: Device, guest: DeviceGuest, drain: AbortSignal, bound: AbortSignal | undefined): Promise<void> {
    const quiesced = await device.quiesce(drain);
    if (quiesced.outcome === 'cut') this.#cutMs = this.#options.clock.now();
    guest.silence();
    if (quiesced.outcome === 'cut') this.#cut.add(quiesced.unfinished);
    this.#cut.add(this.#pump.takeUnpushed());
    // A ring may have begun meanwhile.
    const isEnd = bound !== undefined && (this.#ended || !this.#options.rings.some((ring) => this.#wants(ring)));
    if (isEnd) await this.#passage.leave((ring) => this.#cut.headsOf(ring), bound);
    this.#close(device, guest);
    if (isEnd) this.#passage.end();
  }

  #close(device: Device, guest: DeviceGuest): void {
    guest.silence();
    this.#closed = device.close().catch((error: unknown) => {
      this.#options.log.error({ error: String(error) }, 'closing the device failed');
    });
    this.#openAfterClosed();
  }
}
