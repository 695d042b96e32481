/**
 * How the guest of one virtual device comes to this host and goes from it: the session that stands ready for it, the word to the device's host that it
 * is here for good, and, after it has gone, the look at where it is.
 */
import { NetbusError } from '../device/errors.ts';
import { ReadySession } from '../device/ready-session.ts';
import type { OpenSession } from '../device/source.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { DeviceHost } from './device-host.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

/** Between two looks, and between two tries to tell. */
const LOOK_MS = 1_000;
/** A device's host that does not answer is asked less often. */
const LOOK_AWAY_MS = 5_000;

export interface GuestPlaceOptions {
  /** This host. */
  readonly host: string;
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly deviceHost: DeviceHost;
  readonly open: OpenSession;
  /** Of the lease that this host has now; undefined: it has none. */
  readonly epoch: () => number | undefined;
  /** `madeGood` will be called, once a flush has made good what the guest had not flushed elsewhere. */
  readonly waitsForFlush: boolean;
  /** The VMM that the guest was in has ended, and all that there was to tell of it is told. */
  readonly isOver: () => boolean;
  /** The guest is here for good; the device's host hears it next. */
  readonly onSettled: () => void;
  /** The guest is elsewhere, and nothing of it is needed here any more. */
  readonly onMoved: () => Promise<void>;
  /** It was taken from this host. */
  readonly onFenced: (reason: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class GuestPlace {
  /** The ready session where there is one. */
  readonly open: OpenSession;
  readonly #options: GuestPlaceOptions;
  readonly #ready: ReadySession;
  #trouble: string | undefined;
  #isElsewhere = false;
  #isExpected = false;
  /** Of the guest that comes: what it left unfinished is noted here, what it had not flushed is, and it has taken something. */
  #isNoted = false;
  #isFlushed = false;
  #isTaken = false;
  /** It is here for good, and the device's host did not hear it when it was to. */
  #isUntold = false;
  #isConnected = false;
  #isClosed = false;
  #cancelWait: () => void = () => {};
  /** A look, or a word to the device's host, is under way. */
  #isBusy = false;

  constructor(options: GuestPlaceOptions) {
    const { open, clock } = options;
    this.#options = options;
    this.#ready = new ReadySession({
      open,
      clock,
      onTrouble: (cause) => {
        this.#trouble = cause?.message;
      },
    });
    this.open = (onEnded) => this.#ready.open(onEnded);
  }

  /** Where a guest that does not use its device is; undefined: here, as far as is known. */
  get place(): 'standby' | 'moved' | undefined {
    if (this.#arriving) return 'standby';
    return this.#isElsewhere ? 'moved' : undefined;
  }

  /** Why no session stands ready, or what is not known. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  get #arriving(): boolean {
    return this.#options.record.value.arriving ?? false;
  }

  /** The socket is there; no VMM is, yet. */
  opened(): void {
    if (this.#options.record.value.guest !== null) this.#wait(0);
  }

  vmm(connected: boolean): void {
    this.#isConnected = connected;
    this.#cancelWait();
    // From then on it is known which guest it is that comes.
    if (connected && this.#arriving) this.#ready.keep();
    if (connected) return;
    this.#ready.stop();
    this.#wait(0);
  }

  /** See Passage. */
  arrived(): void {
    this.#isNoted = true;
    this.#settle();
  }

  /** It cannot go back any more. */
  taken(): void {
    this.#isTaken = true;
    this.#settle();
  }

  /** The guest is here for good, as far as this host knows, and the device's host has kept what it came with: it could not be told. */
  untold(): void {
    this.#isUntold = true;
    this.#settle();
  }

  /** The guest has left. Unless it did `unchanged`, what it left is in place of what it came with; else it may come once more, as if it had not been here. */
  async left(how: 'unchanged' | 'for good'): Promise<void> {
    this.#isNoted = false;
    this.#isFlushed = false;
    this.#isTaken = false;
    this.#isUntold = false;
    if (this.#arriving && how === 'for good') await this.#options.record.change(hereForGood);
  }

  /** What the guest had not flushed elsewhere is on stable storage. */
  madeGood(): void {
    this.#isFlushed = true;
    this.#settle();
  }

  /** The guest is elsewhere, and nothing of it is needed here. Asks now, and gives up the way back where no VMM is left for it. Rejects where the device's host does not say. */
  async hasMoved(): Promise<boolean> {
    const { host: own, deviceHost, record, isOver } = this.#options;
    const { attachment } = record.value;
    const { host, settled, standby, previous } = await deviceHost.whereabouts(attachment);
    this.#isElsewhere = host !== own;
    this.#isExpected = standby !== undefined;
    if (!this.#isElsewhere || settled) return this.#isElsewhere;
    if (previous !== own || standby === own || !isOver()) return false;
    await deviceHost.unprepare(attachment);
    return (await deviceHost.whereabouts(attachment)).settled;
  }

  /** Whether the guest of the record is here, also where it has taken nothing yet. Rejects where the device's host does not say. */
  async isHere(): Promise<boolean> {
    if (!this.#arriving) return true;
    const { host, deviceHost, record } = this.#options;
    const { guest, attachment } = record.value;
    return guest !== null && (await deviceHost.whereabouts(attachment)).host === host;
  }

  close(): void {
    this.#isClosed = true;
    this.#cancelWait();
    this.#ready.stop();
  }

  #settle(): void {
    if (!this.#isComplete) return;
    if (this.#isBusy) this.#settleLater();
    else void this.#once(() => this.#tellSettled());
  }

  /** There is something to tell. */
  get #isComplete(): boolean {
    const isHere = (this.#arriving && this.#isNoted) || this.#isUntold;
    return isHere && (this.#isFlushed || !this.#options.waitsForFlush);
  }

  /**
   * To the device's host first: a daemon that is killed in between tells it once more. But before that the guest is one that stays: an answer that is lost must
   * not leave one that goes back.
   */
  async #tellSettled(): Promise<void> {
    const { deviceHost, record, epoch, onSettled, log } = this.#options;
    try {
      if (!(await this.#isToStay())) return this.#settleLater();
      const present = epoch();
      if (present === undefined) throw new NetbusError('unreachable', 'the device is away at this moment');
      onSettled();
      await deviceHost.settled(record.value.attachment, present);
      this.#isUntold = false;
      await record.change(hereForGood);
      log.info({}, 'the guest is here for good');
    } catch (thrown) {
      this.#trouble = NetbusError.from(thrown).message;
      this.#settleLater();
    }
  }

  #settleLater(): void {
    // Of a guest that has gone it is asked where it is, which is what waits then.
    if (this.#isClosed || !this.#isConnected) return;
    this.#cancelWait();
    this.#cancelWait = this.#options.clock.after(LOOK_MS, () => this.#settle());
  }

  /** It has taken something, or there is nothing that it could go back to. */
  async #isToStay(): Promise<boolean> {
    const hasBegun = () => this.#isTaken || this.#isUntold;
    if (hasBegun()) return true;
    const { host: own, deviceHost, record } = this.#options;
    const { host, previous } = await deviceHost.whereabouts(record.value.attachment);
    return this.#isComplete && (hasBegun() || (host === own && previous === undefined));
  }

  #wait(delayMs: number): void {
    this.#cancelWait();
    if (this.#isClosed) return;
    this.#cancelWait = this.#options.clock.after(delayMs, () => {
      if (this.#isBusy) this.#wait(LOOK_MS);
      else void this.#once(() => this.#look());
    });
  }

  /** Where the guest is that has gone from here; again as long as it is on its way. */
  async #look(): Promise<void> {
    if (this.#isConnected || this.#isClosed) return;
    try {
      const gone = await this.hasMoved();
      this.#trouble = undefined;
      if (this.#isConnected || this.#isClosed) return;
      if (gone) await this.#options.onMoved();
      else if (this.#isElsewhere || this.#isExpected) this.#wait(this.#arriving ? LOOK_AWAY_MS : LOOK_MS);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      this.#trouble = message;
      if (code === 'fenced') this.#options.onFenced(message);
      else if (code !== 'not_found' && code !== 'denied') this.#wait(LOOK_AWAY_MS);
    }
  }

  async #once(work: () => Promise<void>): Promise<void> {
    this.#isBusy = true;
    try {
      await work();
    } finally {
      this.#isBusy = false;
    }
  }
}

function hereForGood({
  arriving: _,
  from: __,
  signed: ___,
  madeGood: ____,
  ...record
}: VirtualDeviceRecord): VirtualDeviceRecord {
  return record;
}
