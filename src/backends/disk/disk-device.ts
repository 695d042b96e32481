/**
 * One use of an image. Batches go to the kernel with one system call; what the page cache answers is reaped in the same turn.
 *
 * Work in the kernel cannot be recalled. So after a cut or `close` this device says nothing more at once, but memory that was
 * lent to it is left alone only when `close` has resolved. Whoever lends a guest's own memory puts `filters/bounce.ts` above;
 * whoever stages payloads anyway keeps the staging until then (docs/decisions/0005).
 */
import { IO_COMPLETION_WORDS, IoOp } from '../../../native/index.ts';
import { Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { DiskKind, DiskStatus } from '../../device/disk.ts';
import { MessageTable } from '../../device/message-table.ts';
import type { DiskProfile } from '../../device/profile.ts';
import { DiskWork, GOES_ON } from './disk-work.ts';
import type { Engine, IoCalls } from './engine.ts';
import { FlushGroup } from './flush-group.ts';
import type { Image } from './image.ts';
import { Operations } from './operations.ts';

/** Most requests that one device holds. */
const DISK_DEPTH = 1024;
/** Completions that are taken from the engine at a time. */
const COMPLETIONS_PER_REAP = 256;
/** The tag of the flush; all other tags are rows. */
const FLUSH_TAG = -1;

export class DiskDevice implements Device {
  readonly depth = DISK_DEPTH;
  readonly #image: Image;
  readonly #calls: IoCalls;
  /** An engine of its own: a row is the tag, and all I/O of this use has ended when it is empty. */
  readonly #engine: number;
  readonly #onClosed: () => void;
  readonly #operations: Operations;
  readonly #completions = new Float64Array(COMPLETIONS_PER_REAP * IO_COMPLETION_WORDS);
  readonly #event = new Batch(new MessageTable(1));
  /** Gone after a cut or `close`: nothing more is said, and nothing more is begun. */
  #guest: Guest | undefined;
  #work!: DiskWork;
  #flush!: FlushGroup;
  /** Rows that go to the engine next, oldest first. */
  #queue!: Batch;
  /** Per row: when it was taken (1, 2, 3 …); 0 = not held. */
  #order!: Float64Array;
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
  #quiet: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;
  /** The engine is gone. */
  #ended = false;

  /** Throws where the host has no room for another engine. `onClosed` is called when the last I/O has ended. */
  constructor(image: Image, calls: IoCalls, engine: Engine, onClosed: () => void) {
    this.#image = image;
    this.#calls = calls;
    this.#onClosed = onClosed;
    this.#operations = new Operations(image.fd);
    this.#engine = calls.ioCreate({ entries: DISK_DEPTH, engine }, () => this.#reap());
  }

  get profile(): DiskProfile {
    return this.#image.profile;
  }

  start(guest: Guest): void {
    const rows = guest.requests.capacity;
    this.#guest = guest;
    this.#work = new DiskWork(this.#image, guest.requests);
    this.#flush = new FlushGroup(guest.requests);
    this.#queue = new Batch(guest.requests);
    this.#order = new Float64Array(rows);
    this.#answers = new Replies(rows);
    this.#given = new Replies(rows);
  }

  push(batch: Batch): number {
    if (this.#guest === undefined || this.#quiescing) return 0;
    const count = Math.min(batch.count, this.depth - this.#held);
    this.#held += count;
    for (let i = 0; i < count; i++) {
      const row = batch.rows[i];
      this.#order[row] = ++this.#taken;
      this.#go(row, this.#work.begin(row));
    }
    this.#guestWaits = count < batch.count;
    this.#submit();
    if (count > 0) this.#schedule();
    return count;
  }

  ready(): void {
    if (this.#event.count > 0) queueMicrotask(this.#pushEvent);
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    if (this.#held > 0 && !signal.aborted && this.#guest !== undefined) await this.#drained(signal);
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

  /** From the source: the size is not what it was. */
  capacityChanged(): void {
    const { table } = this.#event;
    table.kind[0] = DiskKind.capacityChanged;
    table.argument[0] = this.profile.capacityBytes;
    this.#event.clear();
    this.#event.add(0);
    queueMicrotask(this.#pushEvent);
  }

  /** Puts a row where it goes on, or its answer among the others. */
  #go(row: number, status: number): void {
    if (status !== GOES_ON) {
      const length = status === DiskStatus.ok && this.#guest !== undefined ? this.#guest.requests.inLength[row] : 0;
      this.#answers.add(row, status, length);
    } else if (this.#work.next(row) !== IoOp.flush) {
      this.#queue.add(row);
    } else if (this.#image.flushes.failed) {
      this.#answers.add(row, DiskStatus.ioError, 0);
    } else {
      this.#flush.add(row);
    }
  }

  /** Hands over what is queued, as far as the engine takes it. */
  #submit(): void {
    const operations = this.#operations;
    while (this.#queue.count > 0 || this.#flush.canBegin) {
      operations.clear();
      const flushes = this.#flush.canBegin ? 1 : 0;
      if (flushes === 1) operations.addRange(IoOp.flush, FLUSH_TAG, 0, 0);
      for (let i = 0; i < this.#queue.count && !operations.full; i++) this.#work.encode(this.#queue.rows[i], operations);
      const taken = this.#calls.ioSubmit(this.#engine, operations.words, operations.count);
      if (taken <= 0) {
        // The kernel is short of something. The next completion tries again; where none is to come, nothing would.
        if (this.#calls.ioPending(this.#engine) === 0) this.#failQueued(-taken);
        return;
      }
      if (flushes === 1) this.#flush.begin(this.#image.flushes.begin());
      this.#queue.drop(taken - flushes);
    }
  }

  #failQueued(errno: number): void {
    const { rows, count } = this.#queue;
    for (let i = 0; i < count; i++) this.#answers.add(rows[i], this.#work.fail(rows[i], errno), 0);
    this.#queue.clear();
    if (!this.#flush.canBegin) return;
    this.#flush.begin(0);
    this.#flushEnded(-errno);
  }

  /** Takes all that is finished, goes on with what has further steps, and answers once. */
  #reap = (): void => {
    this.#scheduled = false;
    if (this.#ended) return;
    const completions = this.#completions;
    let count: number;
    do {
      count = this.#calls.ioReap(this.#engine, completions);
      for (let at = 0; at < count * IO_COMPLETION_WORDS; at += IO_COMPLETION_WORDS) {
        this.#completed(completions[at], completions[at + 1]);
      }
    } while (count === COMPLETIONS_PER_REAP);
    if (this.#guest === undefined) {
      this.#endIfIdle();
    } else {
      this.#submit();
      this.#deliver();
    }
  };

  #completed(tag: number, result: number): void {
    if (tag === FLUSH_TAG) this.#flushEnded(result);
    else if (this.#guest === undefined) this.#work.finishUnheard(tag, result);
    else this.#go(tag, this.#work.finish(tag, result));
  }

  #flushEnded(result: number): void {
    const { flushes, failures, onFlushFailed } = this.#image;
    const group = this.#flush.end();
    // Also after a cut: the kernel says it once, and the next device of this image has to know.
    if (result >= 0) {
      flushes.flushed(this.#flush.covers);
    } else if (!flushes.failed) {
      flushes.flushFailed();
      failures.report('flush', 0, 0, -result);
      onFlushFailed();
    }
    if (this.#guest === undefined) return;
    const status = flushes.failed ? DiskStatus.ioError : DiskStatus.ok;
    for (let i = 0; i < group.count; i++) this.#answers.add(group.rows[i], status, 0);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.#delivering) setImmediate(this.#reap);
    else queueMicrotask(this.#reap);
  }

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

  #pushEvent = (): void => {
    if (this.#event.count > 0 && this.#guest !== undefined) this.#event.drop(this.#guest.push(this.#event));
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

  /** Work in the kernel is waited for: it uses memory that was lent to it. */
  #endIfIdle(): void {
    if (this.#ended || this.#onIdle === undefined || this.#calls.ioPending(this.#engine) > 0) return;
    this.#ended = true;
    this.#calls.ioDestroy(this.#engine);
    this.#onClosed();
    this.#onIdle();
  }
}
