/** A device of the VM's own host, for one session: see UnloggedWrites. What the guest's last host kept goes to it first. */
import { Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Profile } from '../../device/profile.ts';
import type { KeptLog } from './kept-blocks.ts';
import { Sending } from './sending.ts';
import type { UnloggedWrites } from './unlogged-writes.ts';

/** Between two flushes: so long, and so many times what the one before took, that the guest has the device for itself most of the time. */
const PAUSE_MS_MIN = 100;
const PAUSE_SHARE = 4;
/** The last flush is one that the VMM waits for, so there is none where the one before took longer. */
const LAST_FLUSH_MS_MAX = 10;

type State =
  /** What the last host kept is sent, and then flushed. */
  'sending' | 'flushing' | 'open' | 'quiescing' | 'ended';

export class UnloggedDevice implements Device {
  /** When the guest's requests go. */
  readonly opened: Promise<void>;
  #tellOpened!: () => void;
  readonly #inner: Device;
  readonly #writes: UnloggedWrites;
  readonly #kept: KeptLog | undefined;
  #state: State;
  #guest: Guest | undefined;
  #table!: MessageTable;
  /** The first of its own rows; flushes have this one. */
  #ownRow = 0;
  #own!: Batch;
  #given!: Replies;
  #sending: Sending | undefined;
  #flush: 'none' | 'wanted' | 'sent' = 'none';
  #flushSentMs = 0;
  /** What the last flush took; undefined: none was answered. */
  #flushMs: number | undefined;
  #flushFails = false;
  /** Changes that were acknowledged; how many of them the flush on its way covers, and the last one that was answered. */
  #changes = 0;
  #covers = 0;
  #flushed = -1;
  #cancelPause: () => void = () => {};
  #tellFlushed: () => void = () => {};

  constructor(inner: Device, writes: UnloggedWrites, kept: KeptLog | undefined) {
    this.#inner = inner;
    this.#writes = writes;
    this.#kept = kept;
    this.#state = kept === undefined ? 'open' : 'sending';
    this.opened = new Promise((resolve) => (this.#tellOpened = resolve));
  }

  get profile(): Profile {
    return this.#inner.profile;
  }

  get depth(): number {
    return this.#inner.depth;
  }

  /** See UnloggedWrites. */
  get isFlushed(): boolean {
    return this.#flushed === this.#changes;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#table = guest.requests.extended();
    this.#ownRow = guest.requests.capacity;
    this.#own = new Batch(this.#table);
    this.#given = new Replies(this.#table.capacity);
    this.#inner.start({
      requests: this.#table,
      reply: (replies) => this.#reply(replies),
      push: (events) => this.#guest?.push(events) ?? events.count,
      ready: () => this.#goOn(),
      lost: (cause) => this.#lost(cause),
    });
    if (this.#state === 'sending') this.#beginSending();
    else if (this.#writes.mayLeave) this.#pause(0);
  }

  push(batch: Batch): number {
    return this.#state === 'open' ? this.#inner.push(batch) : 0;
  }

  ready(): void {
    this.#inner.ready();
  }

  /** The VMM has begun to note what is written to guest memory, or does so no more. */
  mayLeaveChanged(): void {
    this.#cancelPause();
    if (this.#writes.mayLeave && this.#guest !== undefined && this.#state === 'open') this.#pause(0);
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    const wasOpen = this.#state === 'open';
    this.#cancelPause();
    if (wasOpen) {
      this.#state = 'quiescing';
      await this.#flushLast(signal);
    }
    // Nothing of the guest is on its way before it is open.
    const quiesced = await this.#inner.quiesce(wasOpen ? signal : AbortSignal.abort());
    this.#end();
    if (quiesced.outcome === 'clean') return quiesced;
    const unfinished = quiesced.unfinished.filter((row) => row < this.#ownRow);
    return unfinished.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished };
  }

  async close(): Promise<void> {
    this.#end();
    await this.#inner.close();
    // Until then what was sent from there may be on its way.
    this.#kept?.staging.release();
  }

  #end(): void {
    this.#state = 'ended';
    this.#guest = undefined;
    this.#sending?.end();
    this.#cancelPause();
    this.#tellFlushed();
  }

  #lost(cause: NetbusError): void {
    const guest = this.#guest;
    this.#end();
    guest?.lost(cause);
  }

  #reply(replies: Replies): void {
    const guest = this.#guest;
    if (guest === undefined) return;
    const given = this.#given;
    given.clear();
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      const status = replies.statuses[i];
      if (row >= this.#ownRow) {
        this.#ownReply(row, status);
      } else {
        if (isUnflushedChange(this.#table, row) && status === DiskStatus.ok) this.#changes++;
        given.add(row, status, replies.lengths[i]);
      }
    }
    if (given.count > 0) guest.reply(given);
    this.#sendWhatWaits();
  }

  #goOn(): void {
    this.#sendWhatWaits();
    if (this.#state === 'open') this.#guest?.ready();
  }

  #sendWhatWaits(): void {
    if (this.#state === 'sending') this.#sending?.more();
    if (this.#flush === 'wanted') this.#sendFlush();
  }

  // --- flushes of its own ----------------------------------------------------------------------------------------------

  /** The next one, where there is something to flush by then. */
  #pause(delayMs: number): void {
    if (this.#flushFails || this.#flush !== 'none') return;
    this.#cancelPause = this.#writes.clock.after(delayMs, () => {
      if (this.isFlushed) this.#pause(PAUSE_MS_MIN);
      else this.#sendFlush();
    });
  }

  /** Before the device is at rest: all that the guest asked for is answered. */
  async #flushLast(signal: AbortSignal): Promise<void> {
    const isCheap = this.#flushMs !== undefined && this.#flushMs <= LAST_FLUSH_MS_MAX;
    while (this.#writes.mayLeave && isCheap && !this.isFlushed && !this.#flushFails && !signal.aborted) {
      if (this.#state !== 'quiescing') return;
      const answered = new Promise<void>((resolve) => {
        this.#tellFlushed = resolve;
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      if (this.#flush === 'none') this.#sendFlush();
      await answered;
    }
  }

  #sendFlush(): void {
    const table = this.#table;
    const row = this.#ownRow;
    this.#flush = 'wanted';
    table.kind[row] = DiskKind.flush;
    table.flags[row] = 0;
    table.argument[row] = 0;
    table.extent[row] = 0;
    table.outLength[row] = 0;
    table.inLength[row] = 0;
    this.#own.clear();
    this.#own.add(row);
    if (this.#inner.push(this.#own) === 0) return;
    this.#flush = 'sent';
    this.#covers = this.#changes;
    this.#flushSentMs = this.#writes.clock.now();
  }

  #ownReply(row: number, status: number): void {
    if (this.#state === 'sending') {
      this.#sending!.answered(row, status);
      return;
    }
    this.#flush = 'none';
    const isOk = status === DiskStatus.ok;
    this.#flushMs = this.#writes.clock.now() - this.#flushSentMs;
    // A flush that failed keeps failing.
    this.#flushFails = !isOk;
    if (isOk) this.#flushed = this.#covers;
    if (this.#state !== 'flushing') {
      if (this.#state === 'open' && this.#writes.mayLeave) this.#pause(Math.max(PAUSE_MS_MIN, PAUSE_SHARE * this.#flushMs));
    } else if (isOk) {
      void this.#madeGood();
    } else {
      this.#failSending('the flush behind it failed');
    }
    this.#tellFlushed();
  }

  // --- what the last host kept -----------------------------------------------------------------------------------------

  #beginSending(): void {
    this.#sending = new Sending({
      ...{ own: undefined, kept: this.#kept, device: this.#inner, table: this.#table, firstRow: this.#ownRow },
      onDone: () => {
        this.#state = 'flushing';
        this.#sendFlush();
      },
      onFailed: (why) => this.#failSending(why),
    });
    this.#sending.begin();
  }

  async #madeGood(): Promise<void> {
    try {
      await this.#kept!.madeGood?.();
      if (this.#state === 'flushing') this.#open();
    } catch (thrown) {
      if (this.#state === 'flushing') this.#failSending(NetbusError.from(thrown).message);
    }
  }

  #open(): void {
    this.#state = 'open';
    this.#kept?.staging.release();
    this.#tellOpened();
    this.#guest?.ready();
    if (this.#writes.mayLeave) this.#pause(0);
  }

  #failSending(why: string): void {
    this.#lost(new NetbusError('device', `what the guest's last host kept for it could not be written to the device: ${why}`));
  }
}

/** Of it no flush is known yet. */
function isUnflushedChange(table: MessageTable, row: number): boolean {
  const kind = table.kind[row];
  return (kind === DiskKind.write || kind === DiskKind.writeZeroes) && (table.flags[row] & DiskFlag.durable) === 0;
}
