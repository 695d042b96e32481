/**
 * The copies under way, as columns: which part of the disk each one has, how far it is, and what the guest wrote to that part meanwhile. Each has its
 * piece of memory.
 */

/** Copies at a time. */
export const COPY_SLOTS = 8;
/** Most bytes of one piece. */
export const PIECE_BYTES = 512 * 1024;

export const SlotState = {
  free: 0,
  /** The guest's writes to it wait, and it waits for those that are on their way. */
  claimed: 1,
  reading: 2,
  writing: 3,
  /** Its session was cut: its memory is not used again before the old disk is closed. */
  left: 4,
} as const;

export class CopySlots {
  readonly state = new Uint8Array(COPY_SLOTS);
  /** The part of the disk: whole regions, at most PIECE_BYTES of them or one that is larger. */
  readonly start = new Float64Array(COPY_SLOTS);
  readonly end = new Float64Array(COPY_SLOTS);
  /** The piece of it that is in memory, and how much of that is written. */
  readonly piece = new Float64Array(COPY_SLOTS);
  readonly length = new Float64Array(COPY_SLOTS);
  readonly done = new Float64Array(COPY_SLOTS);
  /** Copies under way. */
  busy = 0;
  readonly #regionBytes: number;
  /** Regions that the guest wrote to meanwhile, as bits. */
  readonly #spoiled = new Uint32Array(COPY_SLOTS);
  /** The guest's writes do not wait for it any more. */
  readonly #released = new Uint8Array(COPY_SLOTS);

  constructor(regionBytes: number) {
    this.#regionBytes = regionBytes;
  }

  /** Takes a free one for the part [start, end). */
  begin(slot: number, start: number, end: number): void {
    this.busy++;
    this.state[slot] = SlotState.claimed;
    this.start[slot] = start;
    this.end[slot] = end;
    this.piece[slot] = start;
    this.#spoiled[slot] = 0;
    this.#released[slot] = 0;
  }

  free(slot: number, state: number = SlotState.free): void {
    this.state[slot] = state;
    this.busy--;
  }

  freeAll(state: number): void {
    for (let slot = 0; slot < COPY_SLOTS; slot++) if (this.state[slot] === state) this.free(slot);
  }

  /** It has some of this part. */
  meets(slot: number, position: number, length: number): boolean {
    const state = this.state[slot];
    if (state === SlotState.free || state === SlotState.left) return false;
    return this.start[slot] < position + length && position < this.end[slot];
  }

  meetsAny(position: number, length: number): boolean {
    for (let slot = 0; slot < COPY_SLOTS; slot++) if (this.meets(slot, position, length)) return true;
    return false;
  }

  /** A write of the guest to this part has to wait. */
  covers(position: number, length: number): boolean {
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      if (this.#released[slot] === 0 && this.meets(slot, position, length)) return true;
    }
    return false;
  }

  spoil(position: number, length: number): void {
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      if (!this.meets(slot, position, length)) continue;
      for (let at = this.start[slot], bit = 1; at < this.end[slot]; at += this.#regionBytes, bit *= 2) {
        if (at < position + length && position < at + this.#regionBytes) this.#spoiled[slot] |= bit;
      }
    }
  }

  /** The guest wrote nothing to the region meanwhile that has this place among those of the slot. */
  isGood(slot: number, place: number): boolean {
    return (this.#spoiled[slot] & (1 << place)) === 0;
  }

  /** Writes of the guest to this part wait no more. True where one of the copies is on its way to the new disk. */
  release(position: number, length: number): boolean {
    let isWriting = false;
    for (let slot = 0; slot < COPY_SLOTS; slot++) {
      if (!this.meets(slot, position, length)) continue;
      isWriting ||= this.state[slot] === SlotState.writing;
      if (this.state[slot] === SlotState.claimed) this.free(slot);
      else this.#released[slot] = 1;
    }
    return isWriting;
  }
}
