/**
 * A virtual device of a VM: what a frontend plugs into, whatever stands behind it. It opens a session with the device's host when the guest begins
 * to use the device, asks for the lease, and puts the granted device into the slot; when that is lost it holds the
 * guest's requests, and tries again until it is back.
 */
import { within } from '../lib/abort.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Device } from './device.ts';
import { DiskStatus } from './disk.ts';
import { DiskReplay } from './disk-replay.ts';
import { NetbusError } from './errors.ts';
import { FailedDevice } from './failed-device.ts';
import { HoldTime } from './hold-time.ts';
import type { Profile } from './profile.ts';
import { Slot } from './slot.ts';
import type { Grant, OpenSession, Session, Source } from './source.ts';

const RETRY_FIRST_MS = 50;
/** A host that is back is asked within this time: half of it is what its guests wait longer, on average. */
const RETRY_MAX_MS = 250;
/** The same where what is wrong does not change by itself. */
const RETRY_LASTING_MAX_MS = 2_000;

const UNFLUSHED_LOST =
  'the device host or its export was restarted while acknowledged writes were not flushed: they may be lost, so the disk answers with errors until the VM is started again';

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
  /** How long requests wait for a device that is away before they fail, in milliseconds; for ever where it is left out. */
  readonly holdMs?: number | undefined;
  readonly clock: Clock;
  readonly onState: (state: VirtualDeviceState) => void;
}

/** What is known of one guest's writes. It spans its uses: a VM that is stopped and goes on is the same guest. */
interface GuestHistory {
  readonly replay: DiskReplay;
  /** The latest grant. */
  grant?: Grant;
  /** Acknowledged writes may be lost, or the host was fenced: nothing more may succeed for this guest. */
  failure?: NetbusError;
}

export class VirtualDevice implements Source {
  readonly #options: VirtualDeviceOptions;
  #profile: Profile;
  #history: GuestHistory;
  #state: VirtualDeviceState = { name: 'idle' };
  #use: Use | undefined;
  /** The use before this one, until the last trace of it is gone. */
  #previous: Promise<void> = Promise.resolve();

  constructor(options: VirtualDeviceOptions) {
    this.#options = options;
    this.#profile = options.profile;
    this.#history = { replay: new DiskReplay(options.before) };
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

  /** One use by the guest: from its first ring start until all rings have stopped or the VMM has gone. */
  open(): Device {
    if (this.#use !== undefined) throw new Error('a virtual device has one guest at a time');
    const use = new Use(this.#profile, this.#options, this.#history, this.#previous, {
      // A later use speaks for itself.
      become: (state) => {
        if (this.#use === undefined || this.#use === use) this.#become(state);
      },
      closed: () => {
        this.#use = undefined;
      },
    });
    this.#use = use;
    this.#previous = use.ended;
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

/** A session from when it is asked for. */
interface Connection {
  session?: Session;
  /** It ended by itself. */
  ended?: NetbusError;
}

/** How the guest's side ended a use. */
type Stop =
  /** Cut, or closed: the lease stays with this host. */
  | 'keep'
  /** Quiet with nothing unanswered: the lease goes back. */
  | 'give-back';

/** One use: a slot, and the sessions that come and go behind it. */
class Use {
  readonly slot: Slot;
  /** When the last trace of it is gone. */
  readonly ended: Promise<void>;
  readonly #options: VirtualDeviceOptions;
  readonly #history: GuestHistory;
  readonly #owner: { become: (state: VirtualDeviceState) => void; closed: () => void };
  readonly #hold: HoldTime;
  /** What is in the slot answers with errors, and is no device of the session. */
  #answersErrors = false;
  #connection: Connection | undefined;
  #stop: Stop | undefined;
  /** Wakes whoever waits: the device was lost (why), or the use was stopped. */
  #wake: (cause?: NetbusError) => void = () => {};

  constructor(
    profile: Profile,
    options: VirtualDeviceOptions,
    history: GuestHistory,
    previous: Promise<void>,
    owner: { become: (state: VirtualDeviceState) => void; closed: () => void },
  ) {
    this.#options = options;
    this.#history = history;
    this.#owner = owner;
    this.#hold = new HoldTime(options.holdMs, options.clock, (cause) => this.#giveUp(cause));
    this.slot = new Slot({
      profile,
      depth: options.depth,
      policy: history.replay,
      owner: {
        lost: (cause) => this.#wake(cause),
        quiesced: (outcome, signal) => this.#quiesced(outcome, signal),
        closed: () => this.#closed(),
      },
    });
    // From the guest's start, also where the use before this one has not ended yet.
    this.#hold.waits(undefined);
    this.ended = previous.then(() => this.#run());
  }

  /** Connects, and again after each loss, until it is stopped. */
  async #run(): Promise<void> {
    const { clock } = this.#options;
    let retryMs = RETRY_FIRST_MS;
    let cause: NetbusError | undefined;
    while (this.#stop === undefined) {
      this.#hold.waits(cause);
      if (this.#hold.over && !this.slot.running) this.#answerWithErrors();
      if (!this.#hold.over) this.#connecting(cause);
      const woken = this.#woken();
      let servedMs = 0;
      try {
        await this.#connect(woken);
        const installed = clock.now();
        cause = await woken;
        servedMs = clock.now() - installed;
      } catch (thrown) {
        cause = NetbusError.from(thrown);
      }
      if (this.#stop !== undefined) break;
      this.#endSession();
      // Trying again would be in vain, and what was kept must not go out later.
      if (cause?.code === 'fenced') {
        const stopped = this.#woken();
        this.#fail(cause);
        await stopped;
        continue;
      }
      // What served is asked again at once. What did not, although it was granted, must not become a busy loop between two hosts.
      if (servedMs >= RETRY_FIRST_MS) {
        retryMs = RETRY_FIRST_MS;
        continue;
      }
      retryMs = Math.min(retryMs, cause?.lasting ? RETRY_LASTING_MAX_MS : RETRY_MAX_MS);
      await this.#pause(retryMs);
      retryMs *= 2;
    }
    await this.#finish();
    this.#owner.become({ name: 'idle' });
  }

  /** `woken`: the device is lost, or the use is stopped. */
  async #connect(woken: Promise<NetbusError | undefined>): Promise<void> {
    const connection: Connection = {};
    this.#connection = connection;
    const session = await this.#options.openSession((cause) => this.#sessionEnded(connection, cause));
    connection.session = session;
    // While it was asked for, the use may have been closed, or the session may have ended.
    if (this.#connection !== connection) return session.close();
    if (connection.ended !== undefined) throw connection.ended;
    const grant = await session.activate();
    const isOver = () => this.#connection !== connection || this.#stop !== undefined || connection.ended !== undefined;
    // What answers with errors meanwhile owes nobody anything after this.
    if (!isOver() && this.#answersErrors) {
      await this.slot.remove(new AbortController().signal);
      this.#answersErrors = false;
    }
    if (isOver()) {
      await grant.device.close();
      if (this.#hold.over && !this.slot.running) this.#answerWithErrors();
      if (connection.ended !== undefined) throw connection.ended;
      return;
    }
    await this.#install(grant, woken);
  }

  #connecting(cause: NetbusError | undefined): void {
    const { errorsAt } = this.#hold;
    const since = this.#options.clock.wallTime();
    this.#owner.become({ name: 'connecting', since, ...(cause && { cause }), ...(errorsAt !== undefined && { errorsAt }) });
  }

  /** The hold time is over: what is kept fails, and all that comes, until the device is back. What failed is not sent again. */
  #giveUp(cause: NetbusError): void {
    if (this.#stop !== undefined) return;
    // A device that still sends again what its host forgot goes, and the next one begins where it was.
    if (this.slot.running) this.slot.deviceLost(cause);
    else this.#answerWithErrors();
    this.#owner.become({ name: 'failed', since: this.#options.clock.wallTime(), cause, returns: true });
  }

  #answerWithErrors(): void {
    this.#answersErrors = true;
    this.slot.install(new FailedDevice(this.slot.profile, this.#options.depth, DiskStatus.ioError));
  }

  async #install(grant: Grant, woken: Promise<NetbusError | undefined>): Promise<void> {
    const { clock } = this.#options;
    const history = this.#history;
    const before = history.grant;
    history.grant = grant;
    const forgot = before !== undefined && (before.bootId !== grant.bootId || before.instance !== grant.instance);
    if (grant.unflushed instanceof NetbusError) history.failure = grant.unflushed;
    else if (grant.unflushed === undefined && forgot && history.replay.unflushed)
      history.failure = new NetbusError('device', UNFLUSHED_LOST);
    if (history.failure !== undefined) {
      void grant.device.close();
      this.#endSession();
      this.#fail(history.failure);
      return;
    }
    this.slot.install(grant.device);
    if (grant.ready !== undefined) {
      const lost = await Promise.race([grant.ready, woken]);
      if (lost !== undefined) throw lost;
      if (this.#stop !== undefined) return;
    }
    this.#hold.end();
    this.#owner.become({ name: 'active', since: clock.wallTime(), epoch: grant.epoch });
  }

  /** What is kept, and all that comes, is answered with an error: in this use and the guest's later ones. */
  #fail(cause: NetbusError): void {
    this.#history.failure = cause;
    this.#hold.end();
    // Once the hold time is over, errors are what it answers with already.
    if (!this.slot.running) this.#answerWithErrors();
    this.#owner.become({ name: 'failed', since: this.#options.clock.wallTime(), cause });
  }

  /** Where a device is in the slot it may have said so itself; the slot listens to the first of the two, and tells once. */
  #sessionEnded(connection: Connection, cause: NetbusError): void {
    connection.ended = cause;
    if (this.#connection === connection && !this.#answersErrors) this.slot.deviceLost(cause);
  }

  /** Quiet at the guest's side: the lease goes back before the guest's side is told, within its bound. */
  #quiesced(outcome: 'clean' | 'cut', signal: AbortSignal): Promise<void> {
    this.#stop = outcome === 'clean' ? 'give-back' : 'keep';
    if (this.#stop === 'keep') this.#endSession();
    this.#wake();
    return within(signal, this.ended);
  }

  #closed(): Promise<void> {
    this.#stop ??= 'keep';
    this.#endSession();
    this.#wake();
    this.#owner.closed();
    return Promise.resolve();
  }

  /** The last thing that the host of the device hears of this use. */
  async #finish(): Promise<void> {
    this.#hold.end();
    const session = this.#connection?.session;
    if (this.#stop === 'give-back' && session !== undefined) {
      // Where that fails the lease stays with this host, which is safe; the next use asks for it again.
      await session.quiesced({ queues: [] }).catch(() => undefined);
    }
    this.#endSession();
  }

  #endSession(): void {
    const session = this.#connection?.session;
    this.#connection = undefined;
    session?.close();
  }

  #woken(): Promise<NetbusError | undefined> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Waits before the next try, or until the use is stopped. */
  async #pause(delayMs: number): Promise<void> {
    const { signal, cancel } = abortAfter(this.#options.clock, delayMs);
    await within(
      signal,
      this.#woken().then(() => undefined),
    );
    cancel();
  }
}
