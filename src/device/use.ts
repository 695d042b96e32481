/** One use of a virtual device by its guest: the slot that the guest sees, the sessions that come and go behind it, and how it ends. */
import { within } from '../lib/abort.ts';
import { abortAfter } from '../lib/clock.ts';
import { DiskStatus } from './disk.ts';
import type { DiskReplay } from './disk-replay.ts';
import { type ErrorCode, NetbusError } from './errors.ts';
import { FailedDevice } from './failed-device.ts';
import type { HandOver } from './hand-over.ts';
import { HoldTime } from './hold-time.ts';
import type { Profile } from './profile.ts';
import { Slot } from './slot.ts';
import type { Grant, Session } from './source.ts';
import type { VirtualDeviceOptions, VirtualDeviceState } from './virtual-device.ts';

/** How long a device that is taken out may take to answer what it has; what it did not answer goes to the next one. */
const RENEW_QUIET_MS_MAX = 2_000;
const RETRY_FIRST_MS = 50;
/** A host that is back is asked within this time: half of it is what its guests wait longer, on average. */
const RETRY_MAX_MS = 250;
/** The same where what is wrong does not change by itself. */
const RETRY_LASTING_MAX_MS = 2_000;

/** Answers to what is handed over that asking again does not change. */
const FINAL_REFUSALS = new Set<ErrorCode>(['fenced', 'not_found', 'denied', 'in_use', 'protocol', 'usage']);

const UNFLUSHED_LOST =
  'the device host or its export was restarted while acknowledged writes were not flushed: they may be lost, so the disk answers with errors until the VM is started again';

/** What is known of one guest's writes. It spans its uses: a VM that is stopped and goes on is the same guest. */
export interface GuestHistory {
  readonly replay: DiskReplay;
  /** The latest grant that served. */
  grant?: Grant;
  /** Of the latest grant at all. */
  epoch?: number;
  /** Acknowledged writes may be lost, or the host was fenced: nothing more may succeed for this guest. */
  failure?: NetbusError;
}

/** The virtual device, as a use of it sees it. */
export interface UseOwner {
  become(state: VirtualDeviceState): void;
  granted(grant: Grant): void;
  tookBeyond(): void;
  /** `unchanged` where a guest that was expected has gone again without a word. */
  closed(): 'unchanged' | undefined;
}

/** The device is taken out, and asked for anew: a filter comes before it, or another device takes its place. */
export interface Renewal {
  /** With nothing in the slot, and the session ended. Never rejects. */
  readonly between: () => Promise<void>;
  /** The guest goes on: it waited for so many milliseconds. Or it never will in this use of the device, whether `between` was called or not. */
  readonly ended: (stalledMs: number | undefined) => void;
}

/** A session from when it is asked for. */
interface Connection {
  session?: Session;
  /** It ended by itself. */
  ended?: NetbusError;
}

export class Use {
  readonly slot: Slot;
  /** When the last trace of it is gone. */
  readonly ended: Promise<void>;
  readonly #options: VirtualDeviceOptions;
  readonly #history: GuestHistory;
  readonly #owner: UseOwner;
  readonly #hold: HoldTime;
  /** What is in the slot answers with errors, and is no device of the session. */
  #answersErrors = false;
  #connection: Connection | undefined;
  /** `begun`: when the guest began to wait for it; undefined before that. */
  #renewal: { readonly asked: Renewal; begun?: number } | undefined;
  /** The guest's side stopped it; `abandoned`: nothing of it is for anybody else any more. */
  #stopped = false;
  #abandoned = false;
  /** What the guest left behind, once that is known; undefined: the lease stays with this host. */
  readonly #left: Promise<HandOver | 'unchanged' | undefined>;
  #isLeaving = false;
  /** Aborted when what the guest left is with the device's host, or of no use any more. */
  readonly #told = new AbortController();
  #isUndelivered = false;
  #tellLeft!: (left: HandOver | 'unchanged' | undefined) => void;
  /** Wakes whoever waits: the device was lost (why), or the use was stopped. */
  #wake: (cause?: NetbusError) => void = () => {};

  constructor(
    profile: Profile,
    options: VirtualDeviceOptions,
    history: GuestHistory,
    previous: Promise<void>,
    owner: UseOwner,
  ) {
    this.#options = options;
    this.#history = history;
    this.#owner = owner;
    this.#left = new Promise((resolve) => {
      this.#tellLeft = resolve;
    });
    this.#hold = new HoldTime(options.holdMs, options.clock, (cause) => this.#giveUp(cause));
    this.slot = new Slot({
      profile,
      depth: options.depth,
      policy: history.replay,
      owner: {
        lost: (cause) => this.#wake(cause),
        quiesced: (outcome) => this.#quiesced(outcome),
        closed: () => this.#closed(),
        tookBeyond: () => owner.tookBeyond(),
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
    while (!this.#stopped) {
      await this.#renew();
      if (this.#stopped) break;
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
      if (this.#stopped) break;
      if (this.#wantsRenewal) {
        cause = undefined;
        retryMs = RETRY_FIRST_MS;
        continue;
      }
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
    this.#renewed(false);
    await this.#finish();
    this.#owner.become({ name: 'idle' });
  }

  /** Throws `in_use` during another one. */
  renew(asked: Renewal): void {
    if (this.#renewal !== undefined) {
      throw new NetbusError('in_use', 'what stands behind the virtual device is being changed already');
    }
    if (this.#stopped) {
      asked.ended(undefined);
      return;
    }
    this.#renewal = { asked };
    this.#wake(new NetbusError('ended', 'what stands behind the virtual device is changed'));
  }

  get #wantsRenewal(): boolean {
    return this.#renewal !== undefined && this.#renewal.begun === undefined;
  }

  async #renew(): Promise<void> {
    const renewal = this.#renewal;
    if (renewal === undefined || !this.#wantsRenewal) return;
    const { clock } = this.#options;
    renewal.begun = clock.now();
    const { signal, cancel } = abortAfter(clock, RENEW_QUIET_MS_MAX);
    await this.slot.remove(signal);
    cancel();
    this.#endSession();
    this.#hold.waits(undefined);
    if (!this.#stopped) await renewal.asked.between();
  }

  /** The guest goes on, or never will in this use. */
  #renewed(goesOn: boolean): void {
    const renewal = this.#renewal;
    // One that was asked for while this device was on its way is still to come.
    if (goesOn && this.#wantsRenewal) return;
    this.#renewal = undefined;
    renewal?.asked.ended(goesOn ? this.#options.clock.now() - renewal.begun! : undefined);
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
    if (this.#stopped) return;
    const grant = await session.activate();
    this.#history.epoch = grant.epoch;
    this.#owner.granted(grant);
    const isOver = () => this.#connection !== connection || this.#stopped || connection.ended !== undefined;
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
    if (this.#stopped) return;
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
    const { handOver } = grant;
    const before = history.grant ?? handOver?.unflushed;
    history.grant = grant;
    if (handOver?.failure !== undefined) history.failure = new NetbusError('device', handOver.failure);
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
      if (this.#stopped) return;
    }
    this.#hold.end();
    this.#renewed(true);
    this.#owner.become({ name: 'active', since: clock.wallTime(), epoch: grant.epoch });
  }

  /** What is kept, and all that comes, is answered with an error: in this use and the guest's later ones. */
  #fail(cause: NetbusError): void {
    this.#renewed(false);
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

  /** A new grant comes with what the device's host knows now. */
  askAgain(): void {
    this.slot.deviceLost(new NetbusError('ended', 'the device host is asked again what the last host of the guest left'));
  }

  /** From here on the owner waits for what is left, until it is closed. A cut is the end of the session that has the device. */
  #quiesced(outcome: 'clean' | 'cut'): Promise<void> {
    this.#stopped = true;
    if (outcome === 'cut') this.#endSession();
    this.#wake();
    return Promise.resolve();
  }

  /** See Passage. After the slot was quiesced. */
  async leave(left: HandOver | 'unchanged', signal: AbortSignal): Promise<void> {
    this.#isLeaving = true;
    this.#tellLeft(left);
    const told = this.#told.signal;
    const isTold = new Promise<void>((resolve) => {
      if (told.aborted) resolve();
      else told.addEventListener('abort', () => resolve(), { once: true });
    });
    await within(signal, isTold);
    if (signal.aborted) this.#undelivered(left);
  }

  /** Whatever it still tries to hand over stays here. */
  abandon(): void {
    this.#abandoned = true;
    this.#told.abort();
    this.#tellLeft(undefined);
    this.#endSession();
    this.#wake();
  }

  #closed(): Promise<void> {
    this.#stopped = true;
    const left = this.#owner.closed();
    // After `leave` this says nothing new.
    this.#tellLeft(left);
    if (left === undefined && !this.#isLeaving) this.#endSession();
    this.#wake();
    return Promise.resolve();
  }

  /** The last thing that the host of the device hears of this use. */
  async #finish(): Promise<void> {
    this.#hold.end();
    const left = await this.#left;
    if (left !== undefined) await this.#giveBack(left);
    this.#told.abort();
    // The VMM waits for what comes of this, and gets its answer first.
    if (left !== undefined) await new Promise((resolve) => setImmediate(resolve));
    this.#endSession();
  }

  /** Until the device's host has it. Where that is not to be had the lease stays with this host, which is safe. */
  async #giveBack(left: HandOver | 'unchanged'): Promise<void> {
    let retryMs = RETRY_FIRST_MS;
    while (!this.#abandoned) {
      const woken = this.#woken();
      try {
        const session = this.#connection?.session ?? (await this.#reopen());
        await session?.quiesced(left);
        return;
      } catch (thrown) {
        this.#endSession();
        const cause = NetbusError.from(thrown);
        if (FINAL_REFUSALS.has(cause.code)) return;
        this.#undelivered(left);
        this.#connecting(cause);
        await this.#pause(retryMs, woken);
        retryMs = Math.min(2 * retryMs, RETRY_LASTING_MAX_MS);
      }
    }
  }

  /** Others may bring it to the device's host meanwhile. Of a grant that this host does not know of nobody could say anything. */
  #undelivered(left: HandOver | 'unchanged'): void {
    const { epoch } = this.#history;
    if (this.#isUndelivered || this.#told.signal.aborted || left === 'unchanged' || epoch === undefined) return;
    this.#isUndelivered = true;
    this.#options.onUndelivered?.({ epoch, left }, this.#told.signal);
  }

  /** For the last word of a session that has ended. Undefined where nobody wants it any more. */
  async #reopen(): Promise<Session | undefined> {
    const connection: Connection = {};
    this.#connection = connection;
    const session = await this.#options.openSession((cause) => {
      connection.ended = cause;
    });
    connection.session = session;
    if (this.#connection === connection) return session;
    session.close();
    return undefined;
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

  /** Waits before the next try, or until the use is woken. */
  async #pause(delayMs: number, woken = this.#woken()): Promise<void> {
    const { signal, cancel } = abortAfter(this.#options.clock, delayMs);
    await within(
      signal,
      woken.then(() => undefined),
    );
    cancel();
  }
}
