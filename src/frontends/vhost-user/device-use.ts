/**
 * The life of a device behind rings: opened at the first start of a ring, brought to rest at the last stop, and in between cut off where a stop
 * meets its bound. What was cut off is kept, and goes first when its ring goes on.
 */
import type { Device } from '../../device/device.ts';
import { NetbusError } from '../../device/errors.ts';
import { FailedDevice } from '../../device/failed-device.ts';
import type { Source } from '../../device/source.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { DeviceGuest } from './device-guest.ts';
import type { LeftRequests } from './left-requests.ts';
import type { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';
import type { RingPump } from './ring-pump.ts';

/** How long the requests of a VMM that has gone are waited for: its guest is dead, or goes on from its used index. */
const DISCONNECT_QUIESCE_MS_MAX = 1_000;

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
  #state: State = { name: 'idle' };
  /** Resolves when the last device is closed; the next is opened after it. */
  #closed: Promise<void>;
  /** Rows that no device holds: cut off, oldest first, waiting for their ring to go on. */
  #kept: number[] = [];
  /** The device was lost during this use: errors are all that is left. */
  #lost = false;
  #ended = false;
  #waitLeftMs: number;

  constructor(options: DeviceUseOptions) {
    this.#options = options;
    this.#rows = options.rows;
    this.#pump = options.pump;
    this.#closed = options.previous;
    this.#waitLeftMs = options.quiesceMsMax;
  }

  /** After `end`: resolves when guest memory and device are free. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  ringStarted(ring: Ring): void {
    this.#options.left.start(ring.index, ring.queue!);
    ring.queue!.begin();
    this.#waitLeftMs = this.#options.quiesceMsMax;
    switch (this.#state.name) {
      case 'idle':
        this.#openAfterClosed();
        break;
      case 'open':
        this.#adopt(ring);
        this.#pump.run();
        break;
      case 'quiescing':
      case 'closing':
        break; // It is opened again after that, for all rings that have started.
    }
  }

  /** See DeviceModel. */
  async stopRing(ring: Ring): Promise<void> {
    if (this.#state.name === 'quiescing') await this.#state.done;
    if (this.#state.name !== 'open') return;
    this.#pump.untake(ring);
    const { clock, log, rings } = this.#options;
    const begunMs = clock.now();
    const { signal, cancel } = abortAfter(clock, this.#waitLeftMs);
    const isLast = !rings.some((other) => other !== ring && other.started);
    // What could not be given back has yet to be pushed; a device that quiesces would not take it any more.
    const pushed = () => !this.#pump.hasUnpushed(ring);
    const answered = () => this.#rows.inFlight[ring.index] === 0;
    const clean = await this.#until(isLast ? pushed : answered, signal);
    if (isLast || !clean) await this.#quiesce(signal);
    cancel();
    const waitedMs = clock.now() - begunMs;
    this.#waitLeftMs = Math.max(0, this.#waitLeftMs - waitedMs);
    const unfinished = this.#rows.inFlight[ring.index];
    if (unfinished === 0) return;
    const { index } = ring;
    log.warn(
      { ring: index, unfinished, waitedMs },
      `ring ${index} was stopped with ${unfinished} requests unfinished, which are kept`,
    );
  }

  /** See DeviceModel. */
  async end(): Promise<void> {
    this.#ended = true;
    const { signal, cancel } = abortAfter(this.#options.clock, DISCONNECT_QUIESCE_MS_MAX);
    if (this.#state.name === 'quiescing') await this.#state.done;
    await this.#quiesce(signal);
    cancel();
    const kept = this.#kept;
    this.#kept = [];
    for (const row of kept) this.#options.left.add(this.#rows.ring[row], this.#rows.followsUsed(row));
    for (const ring of this.#options.rings) if (ring.queue?.waitingAgain) this.#options.left.add(ring.index, false);
    // The device may use guest memory until it is closed.
    this.#closed = this.#closed.then(() => {
      for (const row of kept) this.#rows.release(row);
    });
  }

  #openAfterClosed(): void {
    this.#state = { name: 'closing' };
    void this.#closed.then(() => {
      if (this.#state.name !== 'closing') return;
      if (this.#ended || !this.#options.rings.some((ring) => ring.started)) {
        this.#state = { name: 'idle' };
        this.#lost = false;
      } else {
        this.#open();
      }
    });
  }

  #open(): void {
    const device = this.#newDevice();
    const guest = new DeviceGuest(this.#rows.table, {
      reply: (replies) => this.#pump.replied(replies),
      ready: () => this.#pump.ready(),
      lost: (cause) => this.#deviceLost(cause),
    });
    this.#state = { name: 'open', device, guest };
    device.start(guest);
    this.#pump.attach(device);
    for (const ring of this.#options.rings) if (ring.started) this.#adopt(ring);
    this.#pump.run();
  }

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

  /**
   * A ring has started, or the device is new: what was cut off goes first, in order. Only where the ring goes on from where it had
   * stopped, by its own index and by the guest's used index; any other start is a new life of the guest, for which it never was. Where there
   * is an in-flight region, that says what was cut off, and the queue gives it again by itself.
   */
  #adopt(ring: Ring): void {
    const queue = ring.queue!;
    const goesOn = !queue.tracked && ring.goesOn(queue);
    const rest: number[] = [];
    for (const row of this.#kept) {
      if (this.#rows.ring[row] !== ring.index) rest.push(row);
      else if (this.#rows.isOf(row, queue)) this.#pump.add(row);
      else if (goesOn) {
        this.#rows.moveTo(row, queue);
        this.#pump.add(row);
      } else this.#rows.release(row);
    }
    this.#kept = rest;
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

  /** Brings the device to rest and closes it; what it did not finish is kept. Nothing to do where it is not open. */
  async #quiesce(signal: AbortSignal): Promise<void> {
    const state = this.#state;
    if (state.name === 'quiescing') return state.done;
    if (state.name !== 'open') return;
    this.#pump.detach();
    const done = state.device.quiesce(signal).then((quiesced) => {
      state.guest.silence();
      const unfinished = quiesced.outcome === 'cut' ? quiesced.unfinished : [];
      this.#kept.push(...unfinished, ...this.#pump.takeUnpushed());
      this.#closed = state.device.close().catch((error: unknown) => {
        this.#options.log.error({ error: String(error) }, 'closing the device failed');
      });
      this.#openAfterClosed();
    });
    this.#state = { name: 'quiescing', done };
    this.#pump.onProgress?.();
    await done;
  }
}
