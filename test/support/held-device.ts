import { Batch, Replies } from '../../src/device/batch.ts';
import type { Device, Guest, Quiesced } from '../../src/device/device.ts';
import { checkDiskRequest, DiskKind, DiskStatus } from '../../src/device/disk.ts';
import type { NetbusError } from '../../src/device/errors.ts';
import { MessageTable } from '../../src/device/message-table.ts';
import type { DiskProfile } from '../../src/device/profile.ts';
import { clearBytes } from '../../src/device/segments.ts';

/**
 * A disk of zeroes that a test can hold: while it is held nothing is answered. `lateMemory: true` makes it behave as the kernel
 * does: work that was taken goes on after a cut or close and reaches the memory that it was given; only `close` waits for it.
 */
export class HeldDevice implements Device {
  readonly profile: DiskProfile;
  readonly depth: number;
  /** Rows without a reply, oldest first. */
  readonly taken: number[] = [];
  closed = false;
  readonly #lateMemory: boolean;
  #table!: MessageTable;
  #guest: Guest | undefined;
  #held = false;
  #scheduled = false;
  #delivering = false;
  #quiescing = false;
  #lost = false;
  #guestWaits = false;
  #ended: (() => void)[] = [];
  readonly #events = new Batch(new MessageTable(1));

  constructor(profile: DiskProfile, depth: number, options: { lateMemory?: boolean } = {}) {
    this.profile = profile;
    this.depth = depth;
    this.#lateMemory = options.lateMemory ?? false;
  }

  /** Answers nothing from here on. */
  hold(): void {
    this.#held = true;
  }

  /** Answers everything, and what comes. */
  release(): void {
    this.#held = false;
    this.#schedule();
  }

  /** Answers the rows in this order, although the rest is held. */
  answer(rows: readonly number[], status: number = DiskStatus.ok): void {
    if (this.#guest === undefined || rows.length === 0) return;
    const replies = new Replies(rows.length);
    for (const row of rows) {
      this.taken.splice(this.taken.indexOf(row), 1);
      const checked = checkDiskRequest(this.#table, row, this.profile);
      const result = checked === DiskStatus.ok ? status : checked;
      if (result === DiskStatus.ok) this.#work(row);
      replies.add(row, result, result === DiskStatus.ok ? this.#table.inLength[row] : 0);
    }
    this.#delivering = true;
    this.#guest.reply(replies);
    if (this.#guestWaits && !this.#quiescing) {
      this.#guestWaits = false;
      this.#guest?.ready();
    }
    this.#delivering = false;
  }

  lose(cause: NetbusError): void {
    if (this.#lost || this.#guest === undefined) return;
    this.#lost = true;
    this.#guest.lost(cause);
  }

  changeCapacity(bytes: number): void {
    const { table } = this.#events;
    table.kind[0] = DiskKind.capacityChanged;
    table.argument[0] = bytes;
    this.#events.clear();
    this.#events.add(0);
    this.ready();
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#table = guest.requests;
  }

  push(batch: Batch): number {
    if (this.#guest === undefined || this.#quiescing || this.#lost) return 0;
    const count = Math.min(batch.count, this.depth - this.taken.length);
    for (let i = 0; i < count; i++) this.taken.push(batch.rows[i]);
    this.#guestWaits = count < batch.count;
    this.#schedule();
    return count;
  }

  ready(): void {
    queueMicrotask(() => {
      if (this.#events.count > 0 && this.#guest !== undefined) this.#events.drop(this.#guest.push(this.#events));
    });
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    while (this.taken.length > 0 && !signal.aborted && this.#guest !== undefined && !this.#lost) {
      await new Promise<void>((resolve) => {
        this.#ended.push(resolve);
        signal.addEventListener('abort', () => resolve());
      });
    }
    this.#guest = undefined;
    return this.taken.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished: [...this.taken] };
  }

  async close(): Promise<void> {
    this.closed = true;
    this.#guest = undefined;
    this.#wake();
    while (this.#lateMemory && this.#held && this.taken.length > 0) {
      await new Promise<void>((resolve) => this.#ended.push(resolve));
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#held) return;
    this.#scheduled = true;
    (this.#delivering ? setImmediate : queueMicrotask)(() => {
      this.#scheduled = false;
      if (this.#held || (this.#lost && this.#guest !== undefined)) return;
      if (this.#guest !== undefined) this.answer([...this.taken]);
      else if (this.#lateMemory) for (const row of this.taken.splice(0)) this.#work(row);
      this.#wake();
    });
  }

  #wake(): void {
    for (const resolve of this.#ended.splice(0)) resolve();
  }

  #work(row: number): void {
    if (this.#table.kind[row] === DiskKind.read) clearBytes(this.#table.segments(row), 0, this.#table.inLength[row]);
  }
}
