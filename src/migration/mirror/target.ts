/**
 * The new disk while it is filled: opened, cut loose where it fails or says nothing, and opened again after a while. What is on its way has a row
 * of the target's own table, and is cut off with it: from then on nothing that was lent to it is used any more.
 */
import { Batch } from '../../device/batch.ts';
import type { Device } from '../../device/device.ts';
import { DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { MessageTable } from '../../device/message-table.ts';
import type { DeviceIds } from '../../filters/write-log/write-log.ts';
import type { Clock } from '../../lib/clock.ts';

/** A grant of the new disk, which nobody else has. */
export interface OpenedTarget {
  readonly device: Device;
  /** If they change, what it had not flushed may be gone. */
  readonly ids: DeviceIds;
  /** Ends the session that gave the grant, behind the device's own `close`. */
  close(): void;
}

/** Asks for it; `onEnded` is called when it is over. Rejects, for another try, with the reason. */
export type OpenTarget = (onEnded: (cause: NetbusError) => void) => Promise<OpenedTarget>;

/** Waits before it is opened again. */
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 10_000;
/** What lasted so long starts from the first wait again. */
const SERVED_MS = 30_000;
/** What has something to do and says nothing for so long is cut loose, where no guest waits for it. */
const SILENT_MS = 10_000;

export interface TargetOwner {
  /** It takes requests from now on. Returns why it cannot be used, if so. */
  opened(target: OpenedTarget): NetbusError | undefined;
  /** A row, or the flush (FLUSH_ROW), has its answer. */
  answered(row: number, status: number): void;
  /** All answers of one turn were told. */
  answeredAll(): void;
  /** It was cut loose. `rows`: what has no answer. */
  gone(cause: NetbusError, rows: readonly number[]): void;
}

export interface TargetOptions {
  readonly open: OpenTarget;
  readonly clock: Clock;
  /** Rows that may be on their way; one more is the flush. */
  readonly rows: number;
  readonly owner: TargetOwner;
}

type State =
  | { readonly name: 'away' }
  | { readonly name: 'opening' }
  | { readonly name: 'open'; readonly opened: OpenedTarget; readonly since: number }
  | { readonly name: 'closed' };

export class Target {
  /** The row of the flush. */
  readonly flushRow: number;
  readonly #options: TargetOptions;
  #state: State = { name: 'away' };
  #table!: MessageTable;
  /** What the device has not taken yet. */
  #queue!: Batch;
  #full = false;
  /** Per row: it has no answer. */
  readonly #pending: Uint8Array;
  #pendingCount = 0;
  #reason: NetbusError | undefined;
  #retryMs = RETRY_FIRST_MS;
  #heardAt = 0;
  #cancelTimer: (() => void) | undefined;
  #closing: Promise<void> = Promise.resolve();

  constructor(options: TargetOptions) {
    this.#options = options;
    this.flushRow = options.rows;
    this.#pending = new Uint8Array(options.rows + 1);
  }

  get isOpen(): boolean {
    return this.#state.name === 'open';
  }

  /** Why it is not open; undefined where it is, or was never tried. */
  get reason(): NetbusError | undefined {
    return this.isOpen ? undefined : this.#reason;
  }

  /** Where a row is filled in before `send`. Another one each time that it is opened. */
  get table(): MessageTable {
    return this.#table;
  }

  /** Whether it can make zeroes without being sent any. */
  get canZero(): boolean {
    return this.#state.name === 'open' && this.#state.opened.device.profile.features.includes('write-zeroes');
  }

  /** Opens it now, unless it is open, and keeps it open. */
  begin(): void {
    if (this.#state.name !== 'away') return;
    this.#stopTimer();
    this.#retryMs = RETRY_FIRST_MS;
    void this.#open();
  }

  /** A row that is filled in. It goes with the next `push`. Only while it is open. */
  send(row: number): void {
    if (this.#pendingCount === 0) this.#heardAt = this.#options.clock.now();
    this.#pending[row] = 1;
    this.#pendingCount++;
    this.#queue.add(row);
  }

  sendFlush(): void {
    const table = this.#table;
    const row = this.flushRow;
    table.kind[row] = DiskKind.flush;
    table.flags[row] = 0;
    table.argument[row] = 0;
    table.extent[row] = 0;
    table.outLength[row] = 0;
    table.inLength[row] = 0;
    this.send(row);
    this.push();
  }

  push(): void {
    if (this.#state.name !== 'open' || this.#full || this.#queue.count === 0) return;
    const taken = this.#state.opened.device.push(this.#queue);
    this.#queue.drop(taken);
    this.#full = this.#queue.count > 0;
    if (this.#cancelTimer === undefined) this.#watch();
  }

  /** Each part of the disk that is on its way to it. */
  eachPending(visit: (position: number, length: number) => void): void {
    for (let row = 0; row < this.flushRow; row++) {
      if (this.#pending[row] === 1) visit(this.#table.argument[row], this.#table.extent[row]);
    }
  }

  /** Cuts it loose, and opens it again after a while, once its last I/O has ended. */
  cut(cause: NetbusError): void {
    const state = this.#state;
    if (state.name !== 'open') return;
    this.#state = { name: 'away' };
    const rows: number[] = [];
    for (let row = 0; row <= this.flushRow; row++) if (this.#pending[row] === 1) rows.push(row);
    this.#end(state.opened);
    if (this.#options.clock.now() - state.since >= SERVED_MS) this.#retryMs = RETRY_FIRST_MS;
    this.#away(cause);
    this.#options.owner.gone(cause, rows);
  }

  /** Ends it for good, as `cut` does. Resolves when its last I/O has ended. */
  close(cause: NetbusError): Promise<void> {
    this.cut(cause);
    this.#state = { name: 'closed' };
    this.#stopTimer();
    return this.#closing;
  }

  async #open(): Promise<void> {
    this.#state = { name: 'opening' };
    await this.#closing;
    let ended: NetbusError | undefined;
    let opened: OpenedTarget | undefined;
    try {
      if (this.#state.name !== 'opening') return;
      opened = await this.#options.open((cause) => {
        ended = cause;
        if (this.#state.name === 'open' && this.#state.opened === opened) this.cut(cause);
      });
    } catch (thrown) {
      ended = NetbusError.from(thrown);
    }
    // `close` may have come meanwhile.
    const isWanted = (this.#state as State).name === 'opening';
    if (opened === undefined || ended !== undefined || !isWanted) {
      if (opened !== undefined) this.#end(opened);
      if (isWanted) this.#away(ended!);
      return;
    }
    this.#start(opened);
  }

  #start(opened: OpenedTarget): void {
    const { clock, owner, rows } = this.#options;
    this.#table = new MessageTable(rows + 1);
    this.#queue = new Batch(this.#table);
    this.#full = false;
    this.#heardAt = clock.now();
    this.#state = { name: 'open', opened, since: clock.now() };
    const isThis = () => this.#state.name === 'open' && this.#state.opened === opened;
    opened.device.start({
      requests: this.#table,
      reply: (replies) => {
        if (!isThis()) return;
        this.#heardAt = clock.now();
        for (let i = 0; i < replies.count && isThis(); i++) {
          const row = replies.rows[i];
          this.#pending[row] = 0;
          this.#pendingCount--;
          this.#table.segments(row).clear();
          owner.answered(row, replies.statuses[i]);
        }
        if (isThis()) owner.answeredAll();
      },
      // Of its events the capacity is the only one, and the guest keeps the one that it has.
      push: (events) => events.count,
      ready: () => {
        if (!isThis()) return;
        this.#full = false;
        this.push();
      },
      lost: (cause) => {
        if (isThis()) this.cut(cause);
      },
    });
    const cause = owner.opened(opened);
    if (cause !== undefined) this.cut(cause);
  }

  #end(opened: OpenedTarget): void {
    this.#pending.fill(0);
    this.#pendingCount = 0;
    this.#stopTimer();
    this.#closing = opened.device.close().finally(() => opened.close());
  }

  /** Tries again later. */
  #away(cause: NetbusError): void {
    this.#reason = cause;
    this.#state = { name: 'away' };
    const waitMs = cause.lasting ? RETRY_MAX_MS : this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MAX_MS);
    this.#stopTimer();
    this.#cancelTimer = this.#options.clock.after(waitMs, () => {
      this.#cancelTimer = undefined;
      void this.#open();
    });
  }

  /** While something is on its way. */
  #watch(): void {
    const { clock } = this.#options;
    const look = () => {
      this.#cancelTimer = undefined;
      if (this.#state.name !== 'open' || this.#pendingCount === 0) return;
      const leftMs = this.#heardAt + SILENT_MS - clock.now();
      if (leftMs <= 0) this.cut(new NetbusError('timeout', `the new disk did not answer for ${SILENT_MS / 1000} s`));
      else this.#cancelTimer = clock.after(leftMs, look);
    };
    this.#cancelTimer = clock.after(SILENT_MS, look);
  }

  #stopTimer(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}

/** It cannot do what it was asked for, which is a failure of its own. */
export function writeFailed(status: number): NetbusError {
  const what = status === DiskStatus.unsupported ? 'does not support a write that it has to' : 'failed a write';
  return new NetbusError('device', `the new disk ${what}: is its storage full? See the log of its host`);
}
