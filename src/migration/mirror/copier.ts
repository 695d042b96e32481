/**
 * Copies dirty regions from the old disk to the new one, a few pieces at a time. A region is clean when all of it is written and the guest wrote
 * nothing to it meanwhile.
 *
 * In the first pass a guest's write to a region that is being copied goes on at once and spoils the copy: the region stays dirty. Behind that, the
 * guest's write waits for the copy, so that each copy makes the dirty set smaller; a region that the guest writes all the time is claimed for that.
 */
import { DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Region } from '../../device/region.ts';
import type { Clock } from '../../lib/clock.ts';
import { COPY_SLOTS, CopySlots, PIECE_BYTES, SlotState } from './copy-slots.ts';
import { type DirtyMap, REGION_BYTES_MIN } from './dirty-map.ts';
import type { Rate } from './rate.ts';
import type { Target } from './target.ts';
import { fillZeroes, ZERO_BYTES } from './zeroes.ts';

/** Memory that the copies use. */
export const COPY_BYTES = COPY_SLOTS * PIECE_BYTES + ZERO_BYTES;
/** While the guest is busy: fewer and smaller ones. What is done in one turn of the loop is what its own requests wait for. */
const BUSY_SLOTS = 4;
const BUSY_PIECE_BYTES = 128 * 1024;
const BUSY_MS = 100;
/** Dirty regions that are looked at before it waits for the guest. */
const LOOKS_MAX = 256;

/** What it reads from: the session's old disk. */
export interface CopySource {
  /** Takes no more reads. */
  readonly isStopping: boolean;
  /** When the guest was busy last, on the clock. */
  readonly busyAt: number;
  /** Where the row of a slot is filled in before `read`. */
  readonly table: MessageTable;
  row(slot: number): number;
  read(slot: number): void;
  /** A write of the guest to this part is on its way. */
  isWriting(position: number, length: number): boolean;
}

export interface CopierOwner {
  readonly map: DirtyMap;
  readonly target: Target;
  readonly clock: Clock;
  readonly rate: Rate;
  /** Copying may go on. */
  readonly isCopying: boolean;
  /** Guests' writes go to both. */
  readonly isMirroring: boolean;
  /** Everything that is left is copied now, at any speed. */
  readonly isDraining: boolean;
  /** What was never touched is zeroes on the new disk. */
  readonly blankTarget: boolean;
  /** Each region was looked at once. */
  passed(): void;
  /** Sends a row of the target's table that is filled in. */
  send(row: number): void;
  fail(cause: NetbusError): void;
}

export class Copier {
  readonly memory: Region;
  readonly zero: { region: Region; offset: number };
  readonly #owner: CopierOwner;
  readonly #firstRow: number;
  readonly #zeroes = Buffer.alloc(REGION_BYTES_MIN);
  readonly #bytes: Buffer[] = [];
  readonly #slots: CopySlots;
  #source: CopySource | undefined;
  #cursor = 0;
  #cancelWait: (() => void) | undefined;

  /** `memory` has COPY_BYTES. Its rows in the target's table begin with `firstRow`. */
  constructor(owner: CopierOwner, memory: Region, firstRow: number) {
    this.#owner = owner;
    this.memory = memory;
    this.#slots = new CopySlots(owner.map.regionBytes);
    this.zero = { region: memory, offset: COPY_SLOTS * PIECE_BYTES };
    this.#firstRow = firstRow;
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      const { buffer, byteOffset } = memory.bytes(slot * PIECE_BYTES, PIECE_BYTES);
      this.#bytes.push(Buffer.from(buffer, byteOffset, PIECE_BYTES));
    }
  }

  /** Copies under way. */
  get busy(): number {
    return this.#slots.busy;
  }

  /** An old disk may still use its memory. */
  get isReading(): boolean {
    const { state } = this.#slots;
    return state.includes(SlotState.reading) || state.includes(SlotState.left);
  }

  attach(source: CopySource): void {
    this.#source = source;
  }

  /** The session is over. Returns the slots whose memory its disk may still use, for `reuse`. */
  detach(source: CopySource): number[] {
    if (this.#source !== source) return [];
    this.#source = undefined;
    this.dropClaims();
    const left: number[] = [];
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      if (this.#slots.state[slot] !== SlotState.reading) continue;
      this.#slots.free(slot, SlotState.left);
      left.push(slot);
    }
    return left;
  }

  reuse(slots: readonly number[]): void {
    for (const slot of slots) this.#slots.state[slot] = SlotState.free;
    this.fill();
  }

  stop(): void {
    this.stopWaiting();
    this.dropClaims();
  }

  /** The bound in bytes per second is another one. */
  stopWaiting(): void {
    this.#cancelWait?.();
    this.#cancelWait = undefined;
  }

  dropClaims(): void {
    this.#slots.freeAll(SlotState.claimed);
  }

  /** Nothing goes to the new disk any more: what was on its way there stays dirty. */
  targetGone(): void {
    this.dropClaims();
    this.#slots.freeAll(SlotState.writing);
  }

  /** A write of the guest to this part has to wait for a copy. */
  covers(position: number, length: number): boolean {
    return this.#slots.covers(position, length);
  }

  /** A write of the guest to this part begins: what is copied of it now is not what it will be. */
  spoil(position: number, length: number): void {
    this.#slots.spoil(position, length);
  }

  /** A write of the guest waited for this part too long, and waits no more. True where that is for the new disk alone to end. */
  release(position: number, length: number): boolean {
    return this.#slots.release(position, length);
  }

  /** Begins as many copies as may go now. */
  fill(): void {
    const owner = this.#owner;
    const source = this.#source;
    if (source === undefined || source.isStopping || !owner.isCopying) return;
    this.#beginClaimed(source);
    const isBusy = !owner.isDraining && owner.clock.now() - source.busyAt < BUSY_MS;
    const slots = isBusy ? BUSY_SLOTS : COPY_SLOTS;
    while (this.#slots.busy < slots && !this.#waits()) {
      const slot = this.#slots.state.indexOf(SlotState.free);
      if (slot === -1 || !this.#pick(slot, source, isBusy ? BUSY_PIECE_BYTES : PIECE_BYTES)) return;
    }
  }

  /** A piece came from the old disk. */
  wasRead(slot: number, status: number): void {
    const slots = this.#slots;
    if (slots.state[slot] !== SlotState.reading) return;
    if (status === DiskStatus.ok) {
      this.#write(slot);
      return;
    }
    slots.free(slot);
    const at = `${slots.length[slot]} bytes at ${slots.piece[slot]}`;
    this.#owner.fail(new NetbusError('device', `the old disk failed a read of ${at}: see the log of its host`));
  }

  /** A part of a piece is on the new disk. */
  wasWritten(row: number): void {
    const slot = row - this.#firstRow;
    if (this.#slots.state[slot] === SlotState.writing) this.#write(slot);
  }

  /** The bound in bytes per second says so; it goes on by itself. */
  #waits(): boolean {
    const { rate, clock, isDraining } = this.#owner;
    const waitMs = isDraining ? 0 : rate.waitMs;
    if (waitMs === 0) return false;
    this.#cancelWait ??= clock.after(Math.ceil(waitMs), () => {
      this.#cancelWait = undefined;
      this.fill();
    });
    return true;
  }

  /** Finds the next dirty regions and begins with them; false where there are none that can be copied now. */
  #pick(slot: number, source: CopySource, most: number): boolean {
    const { map } = this.#owner;
    const { regionBytes } = map;
    let busyRegion = -1;
    let hasWrapped = false;
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const region = map.nextDirty(this.#cursor);
      if (region === -1) {
        // The first pass ends with its last copy: until then no write of the guest waits for one.
        if (!map.blocking && this.#slots.busy > 0) return false;
        if (hasWrapped || map.dirty === 0) break;
        hasWrapped = true;
        this.#cursor = 0;
        this.#owner.passed();
        continue;
      }
      this.#cursor = region + 1;
      if (!this.#isFree(region, source)) {
        if (!this.#slots.meetsAny(region * regionBytes, regionBytes)) busyRegion = region;
        continue;
      }
      let last = region;
      while ((last + 2 - region) * regionBytes <= most && map.has(last + 1) && this.#isFree(last + 1, source)) last++;
      this.#cursor = last + 1;
      this.#begin(slot, region, last);
      this.#read(slot, source);
      return true;
    }
    if (map.dirty === 0) this.#owner.passed();
    // What the guest writes to all the time would never be free.
    if (busyRegion !== -1 && this.#owner.isMirroring && this.#slots.busy === 0) {
      this.#begin(slot, busyRegion, busyRegion);
    }
    return false;
  }

  #isFree(region: number, source: CopySource): boolean {
    const { regionBytes } = this.#owner.map;
    const position = region * regionBytes;
    return !this.#slots.meetsAny(position, regionBytes) && !source.isWriting(position, regionBytes);
  }

  #beginClaimed(source: CopySource): void {
    const { state, start, end } = this.#slots;
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      if (state[slot] !== SlotState.claimed) continue;
      if (!source.isWriting(start[slot], end[slot] - start[slot])) this.#read(slot, source);
    }
  }

  #begin(slot: number, first: number, last: number): void {
    const { regionBytes, capacityBytes } = this.#owner.map;
    this.#slots.begin(slot, first * regionBytes, Math.min((last + 1) * regionBytes, capacityBytes));
  }

  #read(slot: number, source: CopySource): void {
    const slots = this.#slots;
    slots.state[slot] = SlotState.reading;
    const length = Math.min(PIECE_BYTES, slots.end[slot] - slots.piece[slot]);
    slots.length[slot] = length;
    slots.done[slot] = 0;
    this.#owner.rate.take(length);
    const { table } = source;
    const row = source.row(slot);
    table.kind[row] = DiskKind.read;
    table.flags[row] = 0;
    table.argument[row] = slots.piece[slot];
    table.extent[row] = length;
    table.outLength[row] = 0;
    table.inLength[row] = length;
    const segments = table.segments(row);
    segments.clear();
    segments.add(this.memory, slot * PIECE_BYTES, length);
    source.read(slot);
  }

  /** Writes what is next of the piece, zeroes and others apart; behind the last, the region is clean. */
  #write(slot: number): void {
    const slots = this.#slots;
    const { map, rate, blankTarget } = this.#owner;
    if (!this.#owner.isCopying) {
      slots.free(slot);
      return;
    }
    while (slots.done[slot] < slots.length[slot]) {
      const done = slots.done[slot];
      const position = slots.piece[slot] + done;
      const isZero = this.#isZero(slot, done);
      let length = 0;
      do length = Math.min(length + REGION_BYTES_MIN, slots.length[slot] - done);
      while (done + length < slots.length[slot] && this.#isZero(slot, done + length) === isZero);
      slots.done[slot] = done + length;
      if (isZero && blankTarget && !map.wasTouched(position, length)) continue;
      this.#fillWrite(slot, position, done, length, isZero);
      slots.state[slot] = SlotState.writing;
      this.#owner.send(this.#firstRow + slot);
      return;
    }
    rate.done(slots.length[slot]);
    slots.piece[slot] += slots.length[slot];
    if (slots.piece[slot] === slots.end[slot]) this.#finish(slot);
    // A region that is larger than one piece goes on, unless nobody can read it now.
    else if (this.#source === undefined || this.#source.isStopping) slots.free(slot);
    else this.#read(slot, this.#source);
  }

  #fillWrite(slot: number, position: number, from: number, length: number, isZero: boolean): void {
    const { table, canZero } = this.#owner.target;
    const row = this.#firstRow + slot;
    if (isZero) {
      fillZeroes(table, row, { position, extent: length }, canZero, this.zero);
      return;
    }
    table.kind[row] = DiskKind.write;
    table.flags[row] = 0;
    table.argument[row] = position;
    table.extent[row] = length;
    table.outLength[row] = length;
    table.inLength[row] = 0;
    const segments = table.segments(row);
    segments.clear();
    segments.add(this.memory, slot * PIECE_BYTES + from, length);
  }

  #finish(slot: number): void {
    const { map } = this.#owner;
    const { start, end } = this.#slots;
    const first = start[slot] / map.regionBytes;
    const regions = Math.ceil((end[slot] - start[slot]) / map.regionBytes);
    for (let place = 0; place < regions; place++) if (this.#slots.isGood(slot, place)) map.clean(first + place);
    this.#slots.free(slot);
  }

  #isZero(slot: number, from: number): boolean {
    const end = Math.min(from + REGION_BYTES_MIN, this.#slots.length[slot]);
    return this.#bytes[slot].compare(this.#zeroes, 0, end - from, from, end) === 0;
  }
}
