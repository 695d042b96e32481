/**
 * The old disk of one session, with the new one beside it. The guest's requests go to the old disk, whose answers are the guest's. Behind the first
 * pass its writes go to both, except those to regions that are dirty anyway, and are answered when both have them: then the dirty set only falls.
 *
 * A guest never waits long for the new disk: behind a bound it is cut loose, and what it has not confirmed is dirty. No payload is lent to a disk
 * any more when the guest has its answer. Both devices leave guest memory alone from their `close` on (filters/bounce.ts stands in local ones).
 */
import { Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { checkDiskRequest, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { NetbusError } from '../../device/errors.ts';
import { MessageTable } from '../../device/message-table.ts';
import type { Profile } from '../../device/profile.ts';
import type { CopySource } from './copier.ts';
import { COPY_SLOTS } from './copy-slots.ts';
import { GuestChanges } from './guest-changes.ts';
import { copyRequest, GUEST_ROWS, GuestRows, Place } from './guest-rows.ts';
import { GuestWaits } from './guest-waits.ts';
import type { Mirror } from './mirror.ts';

type State =
  | 'open'
  /** Takes nothing more; what it has goes on. */
  | 'quiescing'
  /** Quiet, lost or closed. */
  | 'ended';

export class MirrorDevice implements Device, CopySource {
  readonly table = new MessageTable(GUEST_ROWS + COPY_SLOTS);
  readonly #old: Device;
  readonly #mirror: Mirror;
  readonly #rows = new GuestRows(GUEST_ROWS);
  readonly #given = new Replies(GUEST_ROWS);
  /** What the old disk has not taken yet. */
  readonly #queue = new Batch(this.table);
  #oldFull = false;
  #state: State = 'open';
  /** The old disk is being quiesced: it takes nothing more, of anybody. */
  #isOldQuiet = false;
  #guest: Guest | undefined;
  #guestWaits = false;
  #wake: (() => void) | undefined;
  readonly #waits: GuestWaits;
  #changes!: GuestChanges;
  #left: readonly number[] = [];
  #closing: Promise<void> | undefined;
  /** When the guest pushed something last. */
  #pushedAt = Number.NEGATIVE_INFINITY;

  constructor(old: Device, mirror: Mirror) {
    this.#old = old;
    this.#mirror = mirror;
    this.#waits = new GuestWaits(mirror, this.#rows, () => this.#goOn());
  }

  get profile(): Profile {
    return this.#old.profile;
  }

  /** What the copies need is taken off it. */
  get depth(): number {
    return Math.max(1, Math.min(GUEST_ROWS, this.#old.depth - COPY_SLOTS));
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#changes = new GuestChanges({
      mirror: this.#mirror,
      rows: this.#rows,
      requests: guest.requests,
      table: this.table,
      queue: this.#queue,
      canZero: this.profile.features.includes('write-zeroes'),
    });
    this.#old.start({
      requests: this.table,
      reply: (replies) => this.#reply(replies),
      push: (events) => this.#guest?.push(events) ?? events.count,
      ready: () => {
        this.#oldFull = false;
        this.#pushOld();
        this.#goOn();
      },
      lost: (cause) => this.#lost(cause),
    });
    // Not from inside the guest's call.
    queueMicrotask(() => {
      if (this.#state === 'open') this.#mirror.attach(this);
    });
  }

  push(batch: Batch): number {
    if (this.#state !== 'open' || this.#guest === undefined) return 0;
    const count = Math.min(batch.count, this.depth - this.#rows.held);
    for (let i = 0; i < count; i++) this.#take(batch.table, batch.rows[i]);
    this.#guestWaits = count < batch.count;
    if (count > 0) {
      this.#pushedAt = this.#mirror.clock.now();
      this.#pushOld();
      this.#mirror.target.push();
    }
    return count;
  }

  ready(): void {
    this.#old.ready();
  }

  /** Where the mirror is to finish, what is dirty is copied and flushed behind the guest's last request, within the same bound. */
  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    if (this.#state === 'open') this.#state = 'quiescing';
    if (!this.#mirror.finish) this.#mirror.copier.dropClaims();
    this.#goOn();
    const isLeft = () => this.#rows.held > 0;
    while (isLeft() && this.#state === 'quiescing' && !signal.aborted) await this.#woken(signal);
    if (!isLeft() && this.#mirror.finish && this.#state === 'quiescing') await this.#mirror.drain(signal);
    this.#isOldQuiet = true;
    // Its answer is about the reads of copies, too. The guest's own are all known here.
    if (this.#state === 'quiescing') await this.#old.quiesce(signal);
    const unfinished = this.#rows.unfinished();
    this.#end();
    return unfinished.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished };
  }

  close(): Promise<void> {
    this.#end();
    this.#closing ??= this.#old.close().then(() => this.#mirror.reuse(this.#left));
    return this.#closing;
  }

  // --- for the copies --------------------------------------------------------------------------------------------------

  get isStopping(): boolean {
    return this.#isOldQuiet || (this.#state !== 'open' && !this.#mirror.finish);
  }

  get busyAt(): number {
    return this.#rows.held > 0 ? this.#mirror.clock.now() : this.#pushedAt;
  }

  row(slot: number): number {
    return GUEST_ROWS + slot;
  }

  read(slot: number): void {
    this.#queue.add(this.row(slot));
    this.#pushOld();
  }

  isWriting(position: number, length: number): boolean {
    return this.#rows.writes.overlaps(position, length);
  }

  // --- for the mirror --------------------------------------------------------------------------------------------------

  /** The new disk answered a row. */
  targetAnswered(row: number, status: number): void {
    const rows = this.#rows;
    if (this.#state === 'ended') return;
    rows.places[row] &= ~Place.target;
    if (status !== DiskStatus.ok) this.#mirror.map.markDirty(rows.position[row], rows.extent[row]);
    if (rows.places[row] === 0) this.#pieceDone(row);
  }

  /** The new disk was cut loose, and `lent` has no answer of it: those are dirty now, and all go on without it. */
  targetGone(lent: readonly number[]): void {
    const rows = this.#rows;
    if (this.#state === 'ended') return;
    for (const row of lent) {
      if (row >= GUEST_ROWS || (rows.places[row] & Place.target) === 0) continue;
      this.#mirror.map.markDirty(rows.position[row], rows.extent[row]);
      rows.places[row] &= ~Place.target;
      if (rows.places[row] === 0) this.#pieceDone(row);
    }
    this.deliver();
  }

  /** Gives the guest what is answered, and begins what need not wait any more. */
  deliver(): void {
    const given = this.#given;
    if (this.#guest === undefined || this.#state === 'ended') return;
    if (given.count > 0) {
      this.#guest.reply(given);
      given.clear();
    }
    this.#goOn();
  }

  // --- the guest's requests --------------------------------------------------------------------------------------------

  #take(from: MessageTable, guestRow: number): void {
    const rows = this.#rows;
    const row = rows.take(guestRow);
    const kind = from.kind[guestRow];
    const isChange = kind === DiskKind.write || kind === DiskKind.writeZeroes || kind === DiskKind.discard;
    // What is no right request the old disk refuses.
    if (isChange && checkDiskRequest(from, guestRow, this.profile) === DiskStatus.ok) {
      rows.isChange[row] = 1;
      rows.position[row] = from.argument[guestRow];
      rows.extent[row] = from.extent[guestRow];
    }
    if (rows.isChange[row] === 0 || !this.#mirror.holds(rows.position[row] + rows.extent[row])) this.#sendOld(row);
    else if (!this.#changes.begin(row)) this.#wait(row);
  }

  #sendOld(row: number): void {
    copyRequest(this.table, row, this.#guest!.requests, this.#rows.guestRow[row]);
    this.#rows.places[row] = Place.old;
    this.#queue.add(row);
  }

  #pushOld(): void {
    if (this.#oldFull || this.#queue.count === 0 || this.#state === 'ended') return;
    this.#queue.drop(this.#old.push(this.#queue));
    this.#oldFull = this.#queue.count > 0;
  }

  #reply(replies: Replies): void {
    const { places, since, status, length } = this.#rows;
    // The guest may close it meanwhile.
    for (let i = 0; i < replies.count && this.#state !== 'ended'; i++) {
      const row = replies.rows[i];
      if (row >= GUEST_ROWS) {
        this.#mirror.copier.wasRead(row - GUEST_ROWS, replies.statuses[i]);
        continue;
      }
      places[row] &= ~Place.old;
      status[row] = replies.statuses[i];
      length[row] = replies.lengths[i];
      if (places[row] === 0) {
        this.#pieceDone(row);
      } else {
        since[row] = this.#mirror.clock.now();
        this.#waits.look();
      }
    }
    this.#mirror.target.push();
    this.deliver();
    this.#mirror.tend();
  }

  /** Both disks are done with a row, as far as they had it. */
  #pieceDone(row: number): void {
    const { isChange, position, extent, status, length, guestRow } = this.#rows;
    if (isChange[row] === 1 && this.#mirror.holds(position[row] + extent[row]) && !this.#changes.end(row)) return;
    this.#given.add(guestRow[row], status[row], length[row]);
    this.table.segments(row).clear();
    this.#rows.give(row);
  }

  /** Whatever may go on now does. */
  #goOn(): void {
    const rows = this.#rows;
    if (rows.waitingCount > 0 && this.#state !== 'ended') this.#retry();
    this.#pushOld();
    this.#mirror.target.push();
    if (rows.held === 0) this.#wake?.();
    if (this.#guestWaits && this.#state === 'open' && rows.held < this.depth) {
      this.#guestWaits = false;
      this.#guest?.ready();
    }
    this.#mirror.copier.fill();
  }

  #retry(): void {
    const rows = this.#rows;
    const count = rows.waitingCount;
    rows.waitingCount = 0;
    for (let i = 0; i < count; i++) {
      const row = rows.waiting[i];
      if (!this.#changes.begin(row)) rows.waiting[rows.waitingCount++] = row;
    }
  }

  /** Until a copy is done, or another write, or the bound comes. */
  #wait(row: number): void {
    this.#rows.wait(row, this.#mirror.clock.now());
    this.#waits.look();
  }

  // --- its end ---------------------------------------------------------------------------------------------------------

  #lost(cause: NetbusError): void {
    const guest = this.#guest;
    this.#isOldQuiet = true;
    this.#state = 'ended';
    this.#waits.stop();
    this.#wake?.();
    this.#mirror.sessionLost();
    guest?.lost(cause);
  }

  /** What has no answer is done or not, nobody knows on which disk; and the new one must not use its memory any more. */
  #end(): void {
    if (this.#guest === undefined && this.#state === 'ended') return;
    this.#state = 'ended';
    this.#guest = undefined;
    this.#waits.stop();
    this.#wake?.();
    const { places, isChange, position, extent } = this.#rows;
    let isLent = false;
    for (let row = 0; row < GUEST_ROWS; row++) {
      if (!this.#rows.isHeld(row) || isChange[row] === 0) continue;
      if (this.#mirror.holds(position[row] + extent[row])) this.#mirror.map.markDirty(position[row], extent[row]);
      if ((places[row] & Place.target) !== 0) isLent = true;
    }
    this.#left = this.#mirror.detach(this, isLent);
  }

  #woken(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done);
        this.#wake = undefined;
        resolve();
      };
      this.#wake = done;
      signal.addEventListener('abort', done);
    });
  }
}
