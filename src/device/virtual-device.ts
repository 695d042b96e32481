/**
 * A virtual device of a VM: what a frontend plugs into, whatever stands behind it. It opens a session with the device's host when the guest begins
 * to use the device, asks for the lease, and puts the granted device into the slot; when that is lost it holds the
 * guest's requests, and tries again until it is back.
 */
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Device } from './device.ts';
import { DiskStatus } from './disk.ts';
import { DiskReplay } from './disk-replay.ts';
import { NetbusError } from './errors.ts';
import { FailedDevice } from './failed-device.ts';
import type { Profile } from './profile.ts';
import { Slot } from './slot.ts';
import type { Grant, OpenSession, Session, Source } from './source.ts';

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;

const UNFLUSHED_LOST =
  'the device host or its export was restarted while acknowledged writes were not flushed: they may be lost, so the disk answers with errors until the VM is started again';

/** Where a virtual device is. */
export type VirtualDeviceState =
  /** The guest does not use it. */
  | { readonly name: 'idle' }
  /** Asking the device's host; `cause` says why it is not there yet, after a first failure. */
  | { readonly name: 'connecting'; readonly since: number; readonly cause?: NetbusError }
  | { readonly name: 'active'; readonly since: number; readonly epoch: number }
  /** Every request is answered with an error: going on would silently lose acknowledged writes. */
  | { readonly name: 'failed'; readonly since: number; readonly cause: NetbusError }
  | { readonly name: 'closed' };

export interface VirtualDeviceOptions {
  readonly profile: Profile;
  /** Most requests of the guest that are held at a time. */
  readonly depth: number;
  readonly openSession: OpenSession;
  readonly clock: Clock;
  readonly onState: (state: VirtualDeviceState) => void;
}

/** What is known of one guest's writes. It spans its uses: a VM that is stopped and goes on is the same guest. */
interface GuestHistory {
  readonly replay: DiskReplay;
  /** The latest grant. */
  grant?: Grant;
  /** Acknowledged writes may be lost: nothing more may succeed for this guest. */
  failure?: NetbusError;
}

export class VirtualDevice implements Source {
  readonly #options: VirtualDeviceOptions;
  #profile: Profile;
  #history: GuestHistory = { replay: new DiskReplay() };
  #state: VirtualDeviceState = { name: 'idle' };
  #use: Use | undefined;
  /** The use before this one, until the last trace of it is gone. */
  #previous: Promise<void> = Promise.resolve();

  constructor(options: VirtualDeviceOptions) {
    this.#options = options;
    this.#profile = options.profile;
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

  /** The VM starts anew: for that guest everything before was one power cut. */
  newGuest(): void {
    this.#history = { replay: new DiskReplay() };
  }

  /** One use by the guest: from its first ring start until all rings have stopped or the VMM has gone. */
  open(): Device {
    if (this.#use !== undefined) throw new Error('a virtual device has one guest at a time');
    const use = new Use(this.#profile, this.#options, this.#history, this.#previous, (state) => this.#become(state));
    this.#use = use;
    this.#previous = use.ended.then(() => {
      if (this.#use === use) this.#use = undefined;
    });
    use.onClosed = () => {
      if (this.#use === use) this.#use = undefined;
    };
    return use.slot;
  }

  async close(): Promise<void> {
    await this.#use?.slot.close();
    await this.#previous;
    this.#become({ name: 'closed' });
  }

  #become(state: VirtualDeviceState): void {
    if (this.#state.name === 'closed') return;
    this.#state = state;
    this.#options.onState(state);
  }
}

/** One use: a slot, and the sessions that come and go behind it. */
class Use {
  readonly slot: Slot;
  readonly ended: Promise<void>;
  onClosed: () => void = () => {};
  readonly #options: VirtualDeviceOptions;
  readonly #history: GuestHistory;
  readonly #become: (state: VirtualDeviceState) => void;
  #session: Session | undefined;
  #closed = false;
  /** Wakes the loop: the device was lost, or the slot closed. */
  #wake: () => void = () => {};

  constructor(
    profile: Profile,
    options: VirtualDeviceOptions,
    history: GuestHistory,
    previous: Promise<void>,
    become: (state: VirtualDeviceState) => void,
  ) {
    this.#options = options;
    this.#history = history;
    this.#become = become;
    this.slot = new Slot({
      profile,
      depth: options.depth,
      policy: history.replay,
      owner: {
        lost: (cause) => this.#lost(cause),
        quiesced: (outcome, signal) => this.#quiesced(outcome, signal),
        closed: () => this.#close(),
      },
    });
    this.ended = previous.then(() => this.#run());
  }

  /** Connects, and again after each loss, until the slot is closed. */
  async #run(): Promise<void> {
    const { clock } = this.#options;
    let retryMs = RETRY_FIRST_MS;
    let cause: NetbusError | undefined;
    while (!this.#closed) {
      this.#become({ name: 'connecting', since: clock.wallTime(), ...(cause && { cause }) });
      const woken = new Promise<void>((resolve) => (this.#wake = resolve));
      try {
        await this.#connect();
        retryMs = RETRY_FIRST_MS;
        cause = undefined;
        await woken;
      } catch (thrown) {
        cause = NetbusError.from(thrown);
        this.#endSession();
        if (!this.#closed) await this.#pause(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
      }
    }
    this.#endSession();
    this.#become({ name: 'idle' });
  }

  async #connect(): Promise<void> {
    const session = await this.#options.openSession((cause) => this.#sessionEnded(session, cause));
    if (this.#closed) {
      session.close();
      return;
    }
    this.#session = session;
    const grant = await session.activate();
    if (this.#closed || this.#session !== session) {
      await grant.device.close();
      session.close();
      throw new NetbusError('ended', 'the session ended while the lease was granted');
    }
    this.#install(grant);
  }

  #install(grant: Grant): void {
    const { clock, depth } = this.#options;
    const history = this.#history;
    const before = history.grant;
    history.grant = grant;
    const forgot = before !== undefined && (before.bootId !== grant.bootId || before.instance !== grant.instance);
    if (forgot && history.replay.unflushed) history.failure = new NetbusError('device', UNFLUSHED_LOST);
    if (history.failure !== undefined) {
      void grant.device.close();
      this.#endSession();
      this.slot.install(new FailedDevice(this.slot.profile, depth, DiskStatus.ioError));
      this.#become({ name: 'failed', since: clock.wallTime(), cause: history.failure });
      return;
    }
    this.slot.install(grant.device);
    this.#become({ name: 'active', since: clock.wallTime(), epoch: grant.epoch });
  }

  /** The device said so itself; the slot keeps what it did not answer. */
  #lost(cause: NetbusError): void {
    this.#endSession();
    if (!this.#closed) this.#become({ name: 'connecting', since: this.#options.clock.wallTime(), cause });
    this.#wake();
  }

  #sessionEnded(session: Session, cause: NetbusError): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    // Where a device is in the slot it is told by its own session, too; the slot listens to the first of the two.
    if (this.slot.running) this.slot.deviceLost(cause);
    else this.#wake();
  }

  /** Quiet at the guest's side: the lease goes back before the guest's side is told. */
  async #quiesced(outcome: 'clean' | 'cut', signal: AbortSignal): Promise<void> {
    const session = this.#session;
    if (outcome !== 'clean' || session === undefined || signal.aborted) return;
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([session.quiesced().catch(() => undefined), aborted]);
  }

  #close(): Promise<void> {
    this.#closed = true;
    this.#endSession();
    this.onClosed();
    this.#wake();
    return Promise.resolve();
  }

  #endSession(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.close();
  }

  /** Waits before the next try, or until the slot is closed. */
  async #pause(delayMs: number): Promise<void> {
    const { signal, cancel } = abortAfter(this.#options.clock, delayMs);
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    cancel();
  }
}
