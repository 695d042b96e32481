/**
 * A device of a host that may forget, for one session: what the log has goes first where that host forgot it, then the guest's requests; what it
 * acknowledges is in the log before the guest hears of it. At the log's bound the guest waits for a flush.
 */
import { Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Profile } from '../../device/profile.ts';
import { InFlightWrites } from './in-flight-writes.ts';
import type { KeptLog } from './kept-blocks.ts';
import type { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES } from './log-file.ts';
import { Sending } from './sending.ts';
import type { WriteLog } from './write-log.ts';

/** Larger zeroes are made durable instead of logged: a guest that clears its disk would fill any log. */
const ZEROES_LOGGED_BYTES_MAX = 4 * 1024 * 1024;
/** A flush of its own that failed is tried again. */
const FLUSH_RETRY_MS = 2_000;

/** About half a millisecond. */
const ENTRIES_RELEASED_AT_ONCE_MAX = 1024;

type State =
  /** The device's host forgot: the log is sent, then flushed. */
  | 'sending'
  | 'flushing'
  | 'open'
  /** Quiet, lost or closed. */
  | 'ended';

export class LoggedDevice implements Device {
  /** When the guest's requests go. */
  readonly opened: Promise<void>;
  #tellOpened: () => void = () => {};
  readonly #inner: Device;
  readonly #log: WriteLog;
  #state: State;
  #guest: Guest | undefined;
  #table!: MessageTable;
  /** The first of its own rows; the flushes of its own have this one. */
  #ownRow = 0;
  #part!: Batch;
  #own!: Batch;
  #given!: Replies;
  #writes!: InFlightWrites;
  /** Per row of a flush: the last acknowledgement when it was pushed, which is what it covers. */
  #covers!: Float64Array;
  /** Entries that the writes in flight may need. */
  #reserved = 0;
  #held = 0;
  #quiescing = false;
  #guestWaits = false;
  #innerFull = false;
  /** A flush of its own is on its way, or wanted and not yet taken. */
  #flush: 'none' | 'wanted' | 'sent' = 'none';
  #waitsForFlush = false;
  #cancelRetry: (() => void) | undefined;
  readonly #kept: KeptLog | undefined;
  #sending: Sending | undefined;

  /** `kept`: what goes below the log, where the device's host forgot that, too. */
  constructor(inner: Device, log: WriteLog, kept?: KeptLog) {
    this.#inner = inner;
    this.#log = log;
    this.#kept = kept;
    this.#state = log.sending ? 'sending' : 'open';
    this.opened = this.#state === 'open' ? Promise.resolve() : new Promise((resolve) => (this.#tellOpened = resolve));
  }

  get profile(): Profile {
    return this.#inner.profile;
  }

  /** One less, for a flush of its own. */
  get depth(): number {
    return Math.max(1, this.#inner.depth - 1);
  }

  /** The guest waits at the log's bound. */
  get waitsForFlush(): boolean {
    return this.#waitsForFlush && this.#state === 'open';
  }

  /** Blocks that were sent again. */
  get resent(): number {
    return this.#sending?.sent ?? 0;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#table = guest.requests.extended();
    const { capacity } = guest.requests;
    this.#ownRow = capacity;
    this.#part = new Batch(guest.requests);
    this.#own = new Batch(this.#table);
    this.#given = new Replies(this.#table.capacity);
    this.#covers = new Float64Array(this.#table.capacity);
    this.#writes = new InFlightWrites(capacity);
    this.#inner.start({
      requests: this.#table,
      reply: (replies) => this.#reply(replies),
      push: (events) => this.#guest?.push(events) ?? events.count,
      ready: () => this.#ready(),
      lost: (cause) => this.#lost(cause),
    });
    if (this.#state === 'sending') this.#beginSending();
    // What is in the log may have been in it for long; and a log that does not have everything yet needs a flush to be whole.
    else if (!this.#log.complete || (this.#log.blocks?.used ?? 0) > 0) this.#wantFlush();
  }

  push(batch: Batch): number {
    if (this.#state !== 'open' || this.#quiescing || this.#innerFull) {
      this.#guestWaits = true;
      return 0;
    }
    const part = this.#part;
    part.clear();
    const room = Math.min(batch.count, this.depth - this.#held);
    while (part.count < room && this.#admit(batch.table, batch.rows[part.count])) part.add(batch.rows[part.count]);
    const taken = part.count === 0 ? 0 : this.#inner.push(part);
    for (let i = part.count - 1; i >= taken; i--) this.#giveBack(batch.table, part.rows[i]);
    this.#innerFull = taken < part.count;
    this.#guestWaits = taken < batch.count;
    this.#held += taken;
    return taken;
  }

  ready(): void {
    this.#inner.ready();
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    this.#cancelRetry?.();
    // Nothing of the guest is on its way before it is open.
    const bound = this.#state === 'open' ? signal : AbortSignal.abort();
    const quiesced = await this.#inner.quiesce(bound);
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
    this.#cancelRetry?.();
  }

  #lost(cause: NetbusError): void {
    const guest = this.#guest;
    this.#end();
    guest?.lost(cause);
  }

  /** Whether the request may go now; what it needs of the log is reserved. */
  #admit(table: MessageTable, row: number): boolean {
    const kind = table.kind[row];
    switch (kind) {
      case DiskKind.flush:
        this.#covers[row] = this.#log.blocks?.sequence ?? 0;
        return true;
      case DiskKind.write:
      case DiskKind.writeZeroes:
      case DiskKind.discard:
        break;
      default:
        return true;
    }
    const position = table.argument[row];
    const extent = table.extent[row];
    // Of two that overlap nobody would know which one the device did last, and the log has to know.
    if (this.#writes.overlaps(position, extent)) return false;
    const { isElsewhere } = this.#log;
    if (kind === DiskKind.discard || (!isElsewhere && (table.flags[row] & DiskFlag.durable) !== 0)) {
      this.#writes.add(row, position, extent, 0);
      return true;
    }
    const { blocks } = this.#log;
    const needed = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES) - Math.floor(position / LOG_BLOCK_BYTES) + 1;
    const isLogged =
      blocks !== undefined && needed <= blocks.capacity && (kind === DiskKind.write || extent <= ZEROES_LOGGED_BYTES_MAX);
    if (isLogged && blocks.hasRoom(this.#reserved + needed)) {
      this.#reserved += needed;
      this.#writes.add(row, position, extent, needed);
      return true;
    }
    // Room comes with the flush that is sent from half on, and the replies to what is in flight lead there.
    if (isElsewhere || (isLogged && blocks.used + this.#reserved > 0)) {
      if (this.#reserved === 0) this.#wantFlush();
      this.#waitsForFlush = true;
      return false;
    }
    table.flags[row] |= DiskFlag.durable;
    this.#writes.add(row, position, extent, 0);
    return true;
  }

  #giveBack(table: MessageTable, row: number): void {
    if (isChange(table.kind[row])) this.#reserved -= this.#writes.remove(row);
  }

  #reply(replies: Replies): void {
    const guest = this.#guest;
    if (guest === undefined) return;
    const given = this.#given;
    given.clear();
    const now = this.#log.clock.wallTime();
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      if (row >= this.#ownRow) {
        this.#ownReply(row, replies.statuses[i]);
      } else {
        this.#answered(row, replies.statuses[i], now);
        given.add(row, replies.statuses[i], replies.lengths[i]);
      }
    }
    this.#held -= given.count;
    const { blocks } = this.#log;
    // What it could not keep is not acknowledged: it goes again in the next session, which has no log and makes it durable.
    if (blocks?.file.faulty) {
      this.#lost(this.#log.fail());
      return;
    }
    if (this.#state === 'open' && blocks !== undefined) this.#tidy(blocks);
    if (given.count > 0) guest.reply(given);
    this.#goOn();
  }

  /** Takes back what a flush covers, a piece at a time, and wants a flush when more than half of the log is not covered. */
  #tidy(blocks: LogBlocks): void {
    blocks.release(ENTRIES_RELEASED_AT_ONCE_MAX);
    if (!blocks.releasing && blocks.used > blocks.capacity / 2) this.#wantFlush();
  }

  /** The log has it before the guest hears of it. */
  #answered(row: number, status: number, now: number): void {
    const table = this.#table;
    const kind = table.kind[row];
    const { blocks } = this.#log;
    if (kind === DiskKind.flush) {
      if (status === DiskStatus.ok) this.#log.flushed(this.#covers[row]);
      return;
    }
    if (!isChange(kind)) return;
    const reserved = this.#writes.remove(row);
    this.#reserved -= reserved;
    if (status !== DiskStatus.ok || blocks === undefined) return;
    const position = table.argument[row];
    const extent = table.extent[row];
    if (reserved === 0) blocks.drop(position, extent);
    else if (kind === DiskKind.write) blocks.write(position, extent, table.segments(row), now);
    else blocks.writeZeroes(position, extent, now);
  }

  /** There may be room again, here or in the device. */
  #goOn(): void {
    if (this.#state === 'sending') this.#sending?.more();
    if (this.#flush === 'wanted') this.#sendFlush();
    if (!this.#guestWaits || this.#innerFull || this.#quiescing || this.#state !== 'open') return;
    this.#guestWaits = false;
    this.#guest?.ready();
  }

  #ready(): void {
    this.#innerFull = false;
    this.#goOn();
  }

  // --- flushes of its own ----------------------------------------------------------------------------------------------

  #wantFlush(): void {
    if (this.#flush !== 'none' || this.#cancelRetry !== undefined) return;
    this.#flush = 'wanted';
    // Not from inside the guest's push: what it pushed has to go first.
    queueMicrotask(() => {
      if (this.#flush === 'wanted') this.#sendFlush();
    });
  }

  #sendFlush(): void {
    if (this.#state === 'ended' || this.#quiescing) return;
    const table = this.#table;
    const row = this.#ownRow;
    table.kind[row] = DiskKind.flush;
    table.flags[row] = 0;
    table.argument[row] = 0;
    table.extent[row] = 0;
    table.outLength[row] = 0;
    table.inLength[row] = 0;
    this.#own.clear();
    this.#own.add(row);
    this.#covers[row] = this.#log.blocks?.sequence ?? 0;
    if (this.#inner.push(this.#own) === 1) this.#flush = 'sent';
  }

  #ownReply(row: number, status: number): void {
    if (this.#state === 'sending') {
      this.#sending!.answered(row, status);
      return;
    }
    this.#flush = 'none';
    if (status === DiskStatus.ok) {
      this.#waitsForFlush = false;
      this.#log.backgroundFlushes++;
      this.#log.flushed(this.#covers[row]);
      if (this.#state === 'flushing') this.#open();
    } else if (this.#state === 'flushing') {
      this.#failSending('the flush behind it failed');
    } else {
      this.#log.flushFailed(
        "a flush failed at the device's host, and every one will: the log keeps what it has until the export is opened anew there (netbus export NAME --reopen)",
      );
      this.#cancelRetry = this.#log.clock.after(FLUSH_RETRY_MS, () => {
        this.#cancelRetry = undefined;
        this.#wantFlush();
      });
    }
  }

  // --- the log is sent again -------------------------------------------------------------------------------------------

  #beginSending(): void {
    this.#sending = new Sending({
      ...{ own: this.#log.blocks, kept: this.#kept, device: this.#inner, table: this.#table, firstRow: this.#ownRow },
      onDone: () => {
        this.#state = 'flushing';
        this.#flush = 'wanted';
        this.#sendFlush();
      },
      onFailed: (why) => this.#failSending(why),
    });
    this.#sending.begin();
  }

  #open(): void {
    this.#state = 'open';
    this.#log.sent(this.resent * LOG_BLOCK_BYTES);
    this.#sending = undefined;
    this.#kept?.staging.release();
    this.#tellOpened();
  }

  /** The log stays as it is, and goes again in the next session. */
  #failSending(why: string): void {
    const message = `the device's host was started anew, and what it had not flushed could not be sent again: ${why}; look there`;
    this.#lost(new NetbusError('device', message));
  }
}

/** Changes what is on the disk. */
function isChange(kind: number): boolean {
  return kind === DiskKind.write || kind === DiskKind.writeZeroes || kind === DiskKind.discard;
}
