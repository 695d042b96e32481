/**
 * One use of an NBD server's export. Requests go to the server in the order in which they came, and are answered as the server answers them.
 *
 * After a cut or `close` what was not sent is never sent, and the guest's memory is left alone at once. What the server has already cannot be
 * recalled, so `close` resolves when it has answered all of that, or is gone.
 */
import { type Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { DiskStatus } from '../../device/disk.ts';
import type { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { DiskProfile } from '../../device/profile.ts';
import type { SegmentList } from '../../device/segments.ts';
import { Command } from '../../protocols/nbd/constants.ts';
import { FlushGroup } from '../disk/flush-group.ts';
import { Commands } from './commands.ts';
import type { ConnectionUser, NbdConnection } from './connection.ts';
import type { ExportState } from './export-state.ts';
import { NbdWork, NEEDS_COMMAND, NEEDS_FLUSH } from './nbd-work.ts';

/** Most requests that one device holds. */
const NBD_DEPTH = 256;

export class NbdDevice implements Device, ConnectionUser {
  readonly depth = NBD_DEPTH;
  readonly user: number;
  readonly #state: ExportState;
  readonly #connection: NbdConnection;
  readonly #onClosed: () => void;
  /** Gone after a cut or `close`: nothing more is said, and nothing more is begun. */
  #guest: Guest | undefined;
  #table: MessageTable | undefined;
  commands = new Commands(1);
  #work!: NbdWork;
  #flush!: FlushGroup;
  /** Per row: when it was taken (1, 2, 3 …); 0 = not held. */
  #order = new Float64Array(0);
  #answers!: Replies;
  /** What the guest reads at the moment; it may push meanwhile. */
  #given!: Replies;
  #taken = 0;
  #held = 0;
  #scheduled = false;
  /** The guest is being called: what it pushes now waits for the next turn of the loop. */
  #delivering = false;
  #guestWaits = false;
  #quiescing = false;
  #lost: NetbusError | undefined;
  #wasTold = false;
  #quiet: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** `onClosed` is called when the server has answered all that it was asked. */
  constructor(state: ExportState, connection: NbdConnection, onClosed: () => void) {
    this.#state = state;
    this.#connection = connection;
    this.#onClosed = onClosed;
    this.user = connection.nextUser();
    connection.add(this);
    this.#lost = connection.lost;
  }

  get profile(): DiskProfile {
    return this.#state.profile;
  }

  get heard(): boolean {
    return this.#guest !== undefined;
  }

  start(guest: Guest): void {
    const rows = guest.requests.capacity;
    this.#guest = guest;
    this.#table = guest.requests;
    this.commands = new Commands(rows);
    this.#work = new NbdWork(this.#state, guest.requests, this.commands);
    this.#flush = new FlushGroup(guest.requests);
    this.#order = new Float64Array(rows);
    this.#answers = new Replies(rows);
    this.#given = new Replies(rows);
    if (this.#lost !== undefined) queueMicrotask(this.#tellLost);
  }

  push(batch: Batch): number {
    if (this.#guest === undefined || this.#quiescing || this.#lost !== undefined) return 0;
    const count = Math.min(batch.count, this.depth - this.#held);
    this.#held += count;
    this.#connection.asks();
    for (let i = 0; i < count; i++) {
      const row = batch.rows[i];
      this.#order[row] = ++this.#taken;
      this.#go(row, this.#work.begin(row));
    }
    this.#guestWaits = count < batch.count;
    this.#submit();
    if (this.#answers.count > 0) this.#schedule();
    return count;
  }

  ready(): void {}

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    const canWait = !signal.aborted && this.#guest !== undefined && this.#lost === undefined;
    if (this.#held > 0 && canWait) await this.#drained(signal);
    this.#silence();
    if (this.#held === 0) return { outcome: 'clean' };
    const unfinished: number[] = [];
    for (let row = 0; row < this.#order.length; row++) if (this.#order[row] > 0) unfinished.push(row);
    return { outcome: 'cut', unfinished: unfinished.sort((a, b) => this.#order[a] - this.#order[b]) };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  segments(tag: number): SegmentList {
    return this.#table!.segments(tag);
  }

  answered(tag: number, error: number): void {
    if (tag === this.commands.flushTag) this.#flushEnded(error);
    else if (this.#guest === undefined) this.#work.finishUnheard(tag, error);
    else this.#go(tag, this.#work.finish(tag, error));
  }

  deliver(): void {
    if (this.#guest === undefined) {
      this.#endIfIdle();
      return;
    }
    this.#submit();
    this.#deliver();
  }

  lost(cause: NetbusError): void {
    this.#lost = cause;
    this.#tellLost();
    this.#quiet?.();
    this.#endIfIdle();
  }

  /** Puts a row where it goes on, or its answer among the others. */
  #go(row: number, status: number): void {
    switch (status) {
      case NEEDS_COMMAND:
        this.#work.queue(row);
        break;
      case NEEDS_FLUSH:
        if (this.#state.flushes.failed) this.#answers.add(row, DiskStatus.ioError, 0);
        else this.#flush.add(row);
        break;
      default:
        this.#answers.add(row, status, status === DiskStatus.ok ? this.#table!.inLength[row] : 0);
    }
  }

  #submit(): void {
    if (this.#flush.canBegin) {
      this.commands.queue(this.commands.flushTag, Command.flush, 0, 0, 0, 0);
      this.#flush.begin(this.#state.flushes.begin());
    }
    this.#connection.flush();
  }

  #flushEnded(error: number): void {
    const { flushes, failures, onFlushFailed } = this.#state;
    const group = this.#flush.end();
    // Also after a cut: the server may say it once, and the next device of this export has to know.
    if (error === 0) {
      flushes.flushed(this.#flush.covers);
    } else if (!flushes.failed) {
      flushes.flushFailed();
      failures.report('flush', 0, 0, error);
      onFlushFailed();
    }
    if (this.#guest === undefined) return;
    const status = flushes.failed ? DiskStatus.ioError : DiskStatus.ok;
    for (let i = 0; i < group.count; i++) this.#answers.add(group.rows[i], status, 0);
  }

  /** For answers that need no server. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.#delivering) setImmediate(this.#scheduledDelivery);
    else queueMicrotask(this.#scheduledDelivery);
  }

  #scheduledDelivery = (): void => {
    this.#scheduled = false;
    if (this.#guest !== undefined && this.#lost === undefined) this.#deliver();
  };

  #deliver(): void {
    const given = this.#answers;
    if (given.count > 0) {
      this.#answers = this.#given;
      this.#given = given;
      this.#held -= given.count;
      for (let i = 0; i < given.count; i++) this.#order[given.rows[i]] = 0;
      this.#delivering = true;
      this.#guest?.reply(given);
      given.clear();
    }
    if (this.#guestWaits && !this.#quiescing && this.#held < this.depth) {
      this.#guestWaits = false;
      // The guest may have closed the device inside `reply`.
      this.#guest?.ready();
    }
    this.#delivering = false;
    if (this.#held === 0) this.#quiet?.();
  }

  #tellLost = (): void => {
    if (this.#wasTold || this.#lost === undefined) return;
    this.#wasTold = true;
    this.#guest?.lost(this.#lost);
  };

  /** Until nothing is held, or the bound, or the end. */
  #drained(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done);
        this.#quiet = undefined;
        resolve();
      };
      this.#quiet = done;
      signal.addEventListener('abort', done);
    });
  }

  #silence(): void {
    if (this.#guest !== undefined) this.#connection.recall(this);
    this.#guest = undefined;
  }

  #close(): Promise<void> {
    this.#silence();
    this.#quiet?.();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
      this.#endIfIdle();
    });
  }

  /** What the server has is waited for: it may still change the export. */
  #endIfIdle(): void {
    if (this.#onIdle === undefined || (this.commands.unanswered > 0 && this.#lost === undefined)) return;
    this.#connection.remove(this);
    this.#onClosed();
    this.#onIdle();
    this.#onIdle = undefined;
  }
}
