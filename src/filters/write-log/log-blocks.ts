/**
 * The newest content per block of writes and write-zeroes that were acknowledged and not flushed. An entry is never changed in its place: new
 * content goes to a free one, which replaces the old one by a single store, so that a daemon that is killed in between leaves one of the two.
 */
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import type { SegmentList } from '../../device/segments.ts';
import { copyFromSegments } from '../copy-segments.ts';
import { LOG_BLOCK_BYTES, type LogFile } from './log-file.ts';

export const SECTORS_PER_BLOCK = LOG_BLOCK_BYTES / DISK_SECTOR_BYTES;
const ALL_SECTORS = 2 ** SECTORS_PER_BLOCK - 1;
/** In an entry's word, beside the sectors: all of them are zeroes, and the data is not looked at. */
const ZERO = 0x100;
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

  /** Entries in use. */
  get used(): number {
    return this.#entryOf.size;
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
    for (let done = 0; done < extent; ) {
      const from = position + done;
      const start = from % LOG_BLOCK_BYTES;
      const length = Math.min(LOG_BLOCK_BYTES - start, extent - done);
      const entry = this.#begin((from - start) / LOG_BLOCK_BYTES, start, length, now);
      copyFromSegments(this.file.region.handle, this.dataOffset(entry) + start, source, done, length);
      this.#commit(entry, (from - start) / LOG_BLOCK_BYTES, sectorMask(start, length), 0);
      done += length;
    }
  }

  /** As `write`, of zeroes. */
  writeZeroes(position: number, extent: number, now: number): void {
    for (let done = 0; done < extent; ) {
      const from = position + done;
      const start = from % LOG_BLOCK_BYTES;
      const length = Math.min(LOG_BLOCK_BYTES - start, extent - done);
      const entry = this.#begin((from - start) / LOG_BLOCK_BYTES, start, length, now);
      if (length < LOG_BLOCK_BYTES) this.#clear(entry, start, length);
      this.#commit(entry, (from - start) / LOG_BLOCK_BYTES, sectorMask(start, length), length < LOG_BLOCK_BYTES ? 0 : ZERO);
      done += length;
    }
  }

  /** What was written there before must not be sent again: a durable write or a discard came after it. */
  drop(position: number, extent: number): void {
    const first = Math.floor(position / LOG_BLOCK_BYTES);
    const last = Math.floor((position + extent - 1) / LOG_BLOCK_BYTES);
    // Whichever are fewer: the blocks of the range, or those that are here.
    if (last - first < this.used) for (let block = first; block <= last; block++) this.#dropIn(block, position, extent);
    else for (const block of this.#entryOf.keys()) if (block >= first && block <= last) this.#dropIn(block, position, extent);
  }

  /** A flush that was sent when `sequence` was the last one has succeeded. */
  flushed(sequence: number): void {
    const { file } = this;
    if (sequence <= file.flushedThrough) return;
    file.flushedThrough = sequence;
    while (this.#oldest >= 0 && file.sequence(this.#oldest) <= sequence) {
      const entry = this.#oldest;
      this.#entryOf.delete(file.block(entry));
      this.#unlink(entry);
    }
    // There may be memory again.
    if (this.isShort) this.#grow();
  }

  /** The blocks in use, by their position on the disk. */
  blocks(): Float64Array {
    return Float64Array.from(this.#entryOf.keys()).sort();
  }

  entry(block: number): number {
    return this.#entryOf.get(block) ?? -1;
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

  /** A free entry for new content of the block, with what of the old one stays. */
  #begin(block: number, start: number, length: number, now: number): number {
    if (this.#freeCount === 0) throw new Error('the write log was not asked for room');
    const entry = this.#free[--this.#freeCount];
    this.#times[entry] = now;
    const old = this.#entryOf.get(block);
    if (old !== undefined && length < LOG_BLOCK_BYTES && (this.sectors(old) & ~sectorMask(start, length)) !== 0) {
      const { handle } = this.file.region;
      if (this.isZero(old)) this.#clear(entry, 0, LOG_BLOCK_BYTES);
      else native.copyRegion(handle, this.dataOffset(entry), handle, this.dataOffset(old), LOG_BLOCK_BYTES);
    }
    return entry;
  }

  #commit(entry: number, block: number, sectors: number, flag: number): void {
    const { file } = this;
    const old = this.#entryOf.get(block);
    const all = old === undefined ? sectors : sectors | this.sectors(old);
    const sequence = ++this.#sequence;
    file.setBlock(entry, block);
    file.setWord(entry, wordOf(entry, block, sequence, all | flag));
    file.setSequence(entry, sequence);
    this.#entryOf.set(block, entry);
    this.#append(entry);
    if (old !== undefined) this.#remove(old);
  }

  #dropIn(block: number, position: number, extent: number): void {
    const entry = this.#entryOf.get(block);
    if (entry === undefined) return;
    const start = Math.max(0, position - block * LOG_BLOCK_BYTES);
    const end = Math.min(LOG_BLOCK_BYTES, position + extent - block * LOG_BLOCK_BYTES);
    const { file } = this;
    const word = file.word(entry) & (ALL_SECTORS | ZERO) & ~sectorMask(start, end - start);
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

function sectorMask(start: number, length: number): number {
  return ((2 ** (length / DISK_SECTOR_BYTES) - 1) << (start / DISK_SECTOR_BYTES)) & ALL_SECTORS;
}

/** An entry's word: its sectors and flag, and a check of everything that it says. */
function wordOf(entry: number, block: number, sequence: number, content: number): number {
  let hash = Math.imul(entry ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(block % 2 ** 32, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15) ^ Math.floor(block / 2 ** 32), 0x27d4eb2f) ^ Math.imul(sequence % 2 ** 32, 0x165667b1);
  hash = Math.imul(hash ^ (hash >>> 13) ^ Math.floor(sequence / 2 ** 32), 0x85ebca6b) ^ Math.imul(content + 1, 0x9e3779b1);
  return ((((hash ^ (hash >>> 16)) & 0xffff) << 16) | content) >>> 0;
}
