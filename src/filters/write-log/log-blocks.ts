/**
 * The newest content per block of writes and write-zeroes that were acknowledged and not flushed. An entry is never changed in its place: new
 * content goes to a free one, which replaces the old one by a single store, so that a daemon that is killed in between leaves one of the two.
 */
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import type { SegmentList } from '../../device/segments.ts';
import { copyFromSegments } from '../copy-segments.ts';
import { ALL_SECTORS, endIn, sectorsIn, startIn, wordOf, ZERO } from './block-sectors.ts';
import { LOG_BLOCK_BYTES, type LogFile } from './log-file.ts';

const zeroBlock = new Uint8Array(LOG_BLOCK_BYTES);

export class LogBlocks {
  readonly file: LogFile;
  /** Block number to entry. */
  readonly #entryOf = new Map<number, number>();
  /** The entries in the order of their sequences. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #oldest = -1;
  #newest = -1;
  readonly #free: Int32Array;
  #freeCount = 0;
  /** Wall time of each entry. */
  readonly #times: Float64Array;
  #sequence = 0;
  #capacity: number;

  /** What the file has. Throws `device` where it is damaged; `now`: milliseconds since 1970. */
  constructor(file: LogFile, now: number) {
    this.file = file;
    const { entries } = file;
    this.#capacity = entries;
    this.#next = new Int32Array(entries);
    this.#previous = new Int32Array(entries);
    this.#free = new Int32Array(entries);
    this.#times = new Float64Array(entries);
    this.#load(now);
  }

  /** Entries in use, those included that a flush covers and `release` has not taken back yet. */
  get used(): number {
    return this.#entryOf.size;
  }

  /** Whether `release` has something to take back. */
  get releasing(): boolean {
    return this.#oldest >= 0 && this.#isFlushed(this.#oldest);
  }

  /** Of the last acknowledgement. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Wall time of the oldest entry; undefined where there is none. */
  get oldestTime(): number | undefined {
    return this.#oldest < 0 ? undefined : this.#times[this.#oldest];
  }

  /** Whether so many entries are free, or can be made. */
  hasRoom(count: number): boolean {
    if (this.#freeCount < count) this.release(count - this.#freeCount);
    while (this.#freeCount < count) if (!this.#grow()) return false;
    return true;
  }

  /** Most entries: those of the file, or fewer where there was no memory for more. */
  get capacity(): number {
    return this.#capacity;
  }

  /** It has all the memory that there is, and less than it may have. */
  get isShort(): boolean {
    return this.#capacity < this.file.entries;
  }

  /** A write was acknowledged: `extent` bytes at `position`, from `source`. Room was made before. */
  write(position: number, extent: number, source: SegmentList, now: number): void {
    const first = Math.floor(position / LOG_BLOCK_BYTES);
    const last = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES);
    this.#keepAround(first, last, position, extent);
    const { handle } = this.file.region;
    let start = position - first * LOG_BLOCK_BYTES;
    for (let block = first, done = 0; block <= last; start = 0) {
      const entry = this.#freeEntry(block - first);
      let end = block + 1;
      while (end <= last && this.#freeEntry(end - first) === entry + end - block) end++;
      const length = Math.min((end - block) * LOG_BLOCK_BYTES - start, extent - done);
      copyFromSegments(handle, this.dataOffset(entry) + start, source, done, length);
      done += length;
      block = end;
    }
    this.#commit(first, last, position, extent, 0, now);
  }

  /** As `write`, of zeroes. */
  writeZeroes(position: number, extent: number, now: number): void {
    const first = Math.floor(position / LOG_BLOCK_BYTES);
    const last = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES);
    this.#keepAround(first, last, position, extent);
    // Of a block that is zeroes throughout the data is not looked at.
    for (const block of first === last ? [first] : [first, last]) {
      const start = startIn(block, position);
      const end = endIn(block, position + extent);
      if (end - start < LOG_BLOCK_BYTES) this.#clear(this.#freeEntry(block - first), start, end - start);
    }
    this.#commit(first, last, position, extent, ZERO, now);
  }

  /** What was written there before must not be sent again: a durable write or a discard came after it. */
  drop(position: number, extent: number): void {
    const first = Math.floor(position / LOG_BLOCK_BYTES);
    const last = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES);
    // Whichever are fewer: the blocks of the range, or those that are here.
    if (last - first < this.used) for (let block = first; block <= last; block++) this.#dropIn(block, position, extent);
    else for (const block of this.#entryOf.keys()) if (block >= first && block <= last) this.#dropIn(block, position, extent);
  }

  /** A flush that was sent when `sequence` was the last one has succeeded: what it covers is no longer there, and `release` makes it free. */
  flushed(sequence: number): void {
    if (sequence <= this.file.flushedThrough) return;
    this.file.flushedThrough = sequence;
    // There may be memory again.
    if (this.isShort) this.#grow();
  }

  /** Takes back at most `count` entries that a flush covers: in pieces, because a flush may cover very many. */
  release(count: number): void {
    for (let left = count; left > 0 && this.releasing; left--) {
      const entry = this.#oldest;
      this.#entryOf.delete(this.file.block(entry));
      this.#unlink(entry);
    }
  }

  /** The blocks that no flush covers, by their position on the disk. */
  blocks(): Float64Array {
    this.release(this.used);
    return Float64Array.from(this.#entryOf.keys()).sort();
  }

  /** Of a block that no flush covers; -1 where there is none. */
  entry(block: number): number {
    const entry = this.#entryOf.get(block);
    return entry === undefined || this.#isFlushed(entry) ? -1 : entry;
  }

  /** One bit for each sector that the entry has. */
  sectors(entry: number): number {
    return this.file.word(entry) & ALL_SECTORS;
  }

  isZero(entry: number): boolean {
    return (this.file.word(entry) & ZERO) !== 0;
  }

  /** Where the entry's data is in the file's region. */
  dataOffset(entry: number): number {
    return this.file.dataOffset + entry * LOG_BLOCK_BYTES;
  }

  #grow(): boolean {
    const { file } = this;
    const first = file.ready;
    const grown = file.grow();
    this.#capacity = grown ? file.entries : first;
    if (!grown) return false;
    // The first one on top: memory is used from the front.
    for (let entry = file.ready - 1; entry >= first; entry--) this.#free[this.#freeCount++] = entry;
    return true;
  }

  /** The entry that block `n` of a request gets: those on top of the stack of free ones, so that what was together stays together. */
  #freeEntry(n: number): number {
    return this.#free[this.#freeCount - 1 - n];
  }

  /** What the log has of the first and the last block of a request, beside the request. */
  #keepAround(first: number, last: number, position: number, extent: number): void {
    if (this.#freeCount <= last - first) throw new Error('the write log was not asked for room');
    this.#keep(first, this.#freeEntry(0), position, extent);
    if (last !== first) this.#keep(last, this.#freeEntry(last - first), position, extent);
  }

  #keep(block: number, entry: number, position: number, extent: number): void {
    const beside = ALL_SECTORS & ~sectorsIn(block, position, extent);
    if (beside === 0) return;
    const old = this.entry(block);
    if (old < 0 || (this.sectors(old) & beside) === 0) return;
    const { handle } = this.file.region;
    if (this.isZero(old)) this.#clear(entry, 0, LOG_BLOCK_BYTES);
    else native.copyRegion(handle, this.dataOffset(entry), handle, this.dataOffset(old), LOG_BLOCK_BYTES);
  }

  /** Puts the entries in their places. The last block first: then those that they replace lie on the stack in the order of the disk, too. */
  #commit(first: number, last: number, position: number, extent: number, zero: 0 | typeof ZERO, now: number): void {
    const { file } = this;
    // A replaced entry goes to a place of the stack that has been read: there are never more of them than entries in use.
    const bottom = this.#freeCount - 1 - (last - first);
    this.#freeCount = bottom;
    for (let block = last; block >= first; block--) {
      const entry = this.#free[bottom + last - block];
      const old = this.#entryOf.get(block);
      const sectors = sectorsIn(block, position, extent);
      const all = old === undefined || this.#isFlushed(old) ? sectors : sectors | this.sectors(old);
      const sequence = ++this.#sequence;
      file.setBlock(entry, block);
      file.setWord(entry, wordOf(entry, block, sequence, sectors === ALL_SECTORS ? all | zero : all));
      file.setSequence(entry, sequence);
      this.#times[entry] = now;
      this.#entryOf.set(block, entry);
      this.#append(entry);
      if (old !== undefined) this.#remove(old);
    }
  }

  #isFlushed(entry: number): boolean {
    return this.file.sequence(entry) <= this.file.flushedThrough;
  }

  #dropIn(block: number, position: number, extent: number): void {
    const entry = this.entry(block);
    if (entry < 0) return;
    const { file } = this;
    const word = file.word(entry) & (ALL_SECTORS | ZERO) & ~sectorsIn(block, position, extent);
    if ((word & ALL_SECTORS) === 0) {
      this.#entryOf.delete(block);
      this.#remove(entry);
    } else {
      file.setWord(entry, wordOf(entry, block, file.sequence(entry), word));
    }
  }

  #remove(entry: number): void {
    this.file.setSequence(entry, 0);
    this.#unlink(entry);
  }

  #append(entry: number): void {
    this.#next[entry] = -1;
    this.#previous[entry] = this.#newest;
    if (this.#newest >= 0) this.#next[this.#newest] = entry;
    else this.#oldest = entry;
    this.#newest = entry;
  }

  #unlink(entry: number): void {
    const next = this.#next[entry];
    const previous = this.#previous[entry];
    if (previous >= 0) this.#next[previous] = next;
    else this.#oldest = next;
    if (next >= 0) this.#previous[next] = previous;
    else this.#newest = previous;
    this.#free[this.#freeCount++] = entry;
  }

  #clear(entry: number, start: number, length: number): void {
    this.file.region
      .bytes(this.dataOffset(entry) + start, length)
      .set(length === LOG_BLOCK_BYTES ? zeroBlock : zeroBlock.subarray(0, length));
  }

  #load(now: number): void {
    const { file } = this;
    const through = file.flushedThrough;
    this.#sequence = through;
    const found: number[] = [];
    for (let entry = file.ready - 1; entry >= 0; entry--) {
      const sequence = file.sequence(entry);
      if (sequence <= through) {
        this.#free[this.#freeCount++] = entry;
        continue;
      }
      const word = file.word(entry);
      if (!Number.isSafeInteger(sequence) || word !== wordOf(entry, file.block(entry), sequence, word & (ALL_SECTORS | ZERO))) {
        throw new NetbusError('device', `the write log is damaged at entry ${entry}`);
      }
      found.push(entry);
    }
    found.sort((a, b) => file.sequence(a) - file.sequence(b));
    for (const entry of found) {
      const block = file.block(entry);
      const old = this.#entryOf.get(block);
      this.#sequence = file.sequence(entry);
      this.#times[entry] = now;
      this.#entryOf.set(block, entry);
      this.#append(entry);
      // Replaced, and the daemon ended before the old one was taken away.
      if (old !== undefined) this.#remove(old);
    }
    if (!(through >= 0)) throw new NetbusError('device', 'the write log is damaged in its header');
  }
}
