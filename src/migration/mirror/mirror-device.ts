/**
 * The old disk of one session, with the new one beside it. The guest's requests go to the old disk, whose answers are the guest's. Behind the first
 * pass its writes go to both, except those to regions that are dirty anyway, and are answered when both have them: then the dirty set only falls.
 *
 * A guest never waits long for the new disk: behind a bound it is cut loose, and what it has not confirmed is dirty. No payload is lent to a disk
 * any more when the guest has its answer. Both devices leave guest memory alone from their `close` on (filters/bounce.ts stands in local ones).
 */
import { Batch, Replies } from '../../device/batch.ts';
import type { Device, Guest, Quiesced } from '../../device/device.ts';
import { checkDiskRequest, DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { NetbusError } from '../../device/errors.ts';
import { MessageTable } from '../../device/message-table.ts';
import type { Profile } from '../../device/profile.ts';
import type { CopySource } from './copier.ts';
import { COPY_SLOTS } from './copy-slots.ts';
import { copyRequest, GUEST_ROWS, GuestRows, Place } from './guest-rows.ts';
import { GuestWaits } from './guest-waits.ts';
import type { Mirror } from './mirror.ts';
import { fillZeroes, ZEROES_BYTES_MAX } from './zeroes.ts';

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
    this.#closing ??= this.#old.close().then(() => this.#mirror.copier.reuse(this.#left));
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
    if (isChange && checkDiskRequest(from, guestRow, this.profile) === DiskStatus.ok) {
      rows.isChange[row] = 1;
      rows.position[row] = from.argument[guestRow];
      rows.extent[row] = from.extent[guestRow];
      if (!this.#mirror.holds(rows.position[row] + rows.extent[row])) this.#sendOld(row);
      else if (!this.#begin(row)) this.#wait(row);
    } else {
      this.#sendOld(row);
    }
  }

  /** Sends a change where it has to go; false where it has to wait for a copy or for another change. */
  #begin(row: number): boolean {
    const mirror = this.#mirror;
    const rows = this.#rows;
    const position = rows.position[row];
    const extent = rows.extent[row];
    if (!mirror.isMirroring) return this.#beginOld(row);
    if (mirror.copier.covers(position, extent)) return false;
    if (mirror.map.isDirty(position, extent) || !this.#canMirror(row)) return this.#beginOld(row);
    // Nobody would know which of two that overlap either disk did last.
    if (rows.writes.overlaps(position, extent)) return false;
    rows.writes.add(row, position, extent, 0);
    mirror.copier.spoil(position, extent);
    this.#sendPiece(row);
    return true;
  }

  #beginOld(row: number): true {
    const { position, extent, writes } = this.#rows;
    this.#mirror.map.markDirty(position[row], extent[row]);
    this.#mirror.copier.spoil(position[row], extent[row]);
    writes.add(row, position[row], extent[row], 0);
    this.#sendOld(row);
    return true;
  }

  /** What is read behind a discard is up to each disk, so both are asked for zeroes, if the old one can make them. */
  #canMirror(row: number): boolean {
    const kind = this.#guest!.requests.kind[this.#rows.guestRow[row]];
    return kind !== DiskKind.discard || this.profile.features.includes('write-zeroes');
  }

  /** The next piece, to both disks. */
  #sendPiece(row: number): void {
    const { target, zero } = this.#mirror;
    const { places, position, extent, guestRow } = this.#rows;
    const guest = this.#guest!.requests;
    if (guest.kind[guestRow[row]] === DiskKind.write) {
      this.#fill(target.table, row);
      target.table.flags[row] = 0;
    } else {
      extent[row] = Math.min(extent[row], ZEROES_BYTES_MAX);
      fillZeroes(target.table, row, { position: position[row], extent: extent[row] }, target.canZero, zero);
    }
    this.#sendOld(row);
    if (guest.kind[guestRow[row]] === DiskKind.discard) {
      this.table.kind[row] = DiskKind.writeZeroes;
      this.table.flags[row] |= DiskFlag.unmap;
    }
    places[row] |= Place.target;
    this.#mirror.send(row);
  }

  /** The guest's request; of a change, the piece alone. */
  #fill(table: MessageTable, row: number): void {
    const { guestRow, isChange, position, extent } = this.#rows;
    copyRequest(table, row, this.#guest!.requests, guestRow[row]);
    if (isChange[row] === 0) return;
    table.argument[row] = position[row];
    table.extent[row] = extent[row];
  }

  #sendOld(row: number): void {
    this.#fill(this.table, row);
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
    const { isChange, position, extent, status, guestRow, writes } = this.#rows;
    if (isChange[row] === 1 && this.#mirror.holds(position[row] + extent[row])) {
      const from = this.#guest!.requests;
      const end = from.argument[guestRow[row]] + from.extent[guestRow[row]];
      // What it did to the disk nobody knows.
      if (status[row] !== DiskStatus.ok) this.#mirror.map.markDirty(position[row], extent[row]);
      else if (position[row] + extent[row] < end) {
        this.#nextPiece(row, end);
        return;
      }
      writes.remove(row);
    }
    this.#given.add(guestRow[row], status[row], this.#rows.length[row]);
    this.table.segments(row).clear();
    this.#rows.give(row);
  }

  #nextPiece(row: number, end: number): void {
    const { position, extent, writes } = this.#rows;
    position[row] += extent[row];
    extent[row] = end - position[row];
    if (this.#mirror.isMirroring) {
      this.#sendPiece(row);
    } else {
      writes.remove(row);
      this.#beginOld(row);
    }
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
      if (!this.#begin(row)) rows.waiting[rows.waitingCount++] = row;
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
