/**
 * The write log's file, mapped: a header, a column of each kind for the entries, and a block of data per entry. It belongs on tmpfs, so that it
 * outlives the daemon and ends with the VM's host. All state is in single stores: whoever is killed leaves the old one or the new one.
 *
 * An entry is there when its sequence is above `flushedThrough`; that is stored last, when data and the rest of the entry are in place.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { NativeRegion } from '../../../native/region.ts';
import { NetbusError } from '../../device/errors.ts';

export const LOG_BLOCK_BYTES = 4096;

/** The file takes memory in steps of so many entries. */
const STEP_ENTRIES = 256;
/** The folder is the host's, for sockets and much else: the last of its memory is left to them. */
const LEFT_FREE_BYTES = 1024 * 1024;
const HEADER_BYTES = 4096;
const MAGIC = 'netbus write log 1';
const IDENTITY_BYTES = 32;

/** Places in the header, in bytes. */
const At = {
  magic: 0,
  entries: 64,
  identity: 128,
  flushedThrough: 256,
  complete: 264,
  sending: 272,
  ready: 280,
  device: 288,
} as const;

const zeroes = new Uint8Array(STEP_ENTRIES * LOG_BLOCK_BYTES);

export interface LogFileOptions {
  readonly path: string;
  /** Bytes of data, a multiple of the block. */
  readonly boundBytes: number;
  /** Whose log it is; a file of somebody else is not used. */
  readonly owner: string;
}

export class LogFile {
  readonly region: NativeRegion;
  /** Most entries. */
  readonly entries: number;
  readonly dataOffset: number;
  readonly #path: string;
  readonly #fd: number;
  readonly #header: Float64Array;
  readonly #sequences: Float64Array;
  readonly #blocks: Float64Array;
  readonly #words: Uint32Array;
  #closed = false;

  private constructor(path: string, fd: number, entries: number) {
    const { columnsBytes, dataOffset } = layout(entries);
    this.#path = path;
    this.#fd = fd;
    this.entries = entries;
    this.dataOffset = dataOffset;
    this.region = NativeRegion.map(fd, 0, dataOffset + entries * LOG_BLOCK_BYTES);
    const { buffer, byteOffset } = this.region.bytes(0, HEADER_BYTES + columnsBytes);
    this.#header = new Float64Array(buffer, byteOffset, HEADER_BYTES / 8);
    this.#sequences = new Float64Array(buffer, byteOffset + HEADER_BYTES, entries);
    this.#blocks = new Float64Array(buffer, byteOffset + HEADER_BYTES + 8 * entries, entries);
    this.#words = new Uint32Array(buffer, byteOffset + HEADER_BYTES + 16 * entries, entries);
  }

  /** The file that is there; undefined where there is none, or one of another owner. Throws `device` with the reason where it cannot be used. */
  static open({ path, owner }: LogFileOptions): LogFile | undefined {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw damaged(path, (thrown as Error).message);
    }
    try {
      const header = Buffer.alloc(HEADER_BYTES);
      if (readSync(fd, header, 0, HEADER_BYTES, 0) < HEADER_BYTES) throw damaged(path, 'it has no whole header');
      if (header.toString('latin1', 0, MAGIC.length) !== MAGIC) throw damaged(path, 'it is not a write log of this release');
      const entries = header.readDoubleLE(At.entries);
      if (!header.subarray(At.identity, At.identity + IDENTITY_BYTES).equals(identity(owner, entries))) {
        closeSync(fd);
        return undefined;
      }
      const { dataOffset } = layout(entries);
      if (fstatSync(fd).size !== dataOffset + entries * LOG_BLOCK_BYTES)
        throw damaged(path, 'it has another size than it says');
      const ready = header.readDoubleLE(At.ready);
      if (!Number.isInteger(ready) || ready < 0 || ready > entries) throw damaged(path, 'its header is damaged');
      return new LogFile(path, fd, entries);
    } catch (thrown) {
      closeSync(fd);
      throw NetbusError.from(thrown, 'device');
    }
  }

  /** A new one, whole or not at all, in the place of whatever was there. Throws the system's error. */
  static create({ path, owner, boundBytes }: LogFileOptions): LogFile {
    const entries = Math.floor(boundBytes / LOG_BLOCK_BYTES);
    const temporary = `${path}.new`;
    const fd = openSync(temporary, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600);
    try {
      const header = Buffer.alloc(HEADER_BYTES);
      header.write(MAGIC, At.magic, 'latin1');
      header.writeDoubleLE(entries, At.entries);
      identity(owner, entries).copy(header, At.identity);
      writeSync(fd, header, 0, HEADER_BYTES, 0);
      ftruncateSync(fd, layout(entries).dataOffset + entries * LOG_BLOCK_BYTES);
      renameSync(temporary, path);
      return new LogFile(path, fd, entries);
    } catch (thrown) {
      closeSync(fd);
      removeFile(temporary);
      throw thrown;
    }
  }

  /** All entries up to this sequence are on stable storage. */
  get flushedThrough(): number {
    return this.#header[At.flushedThrough / 8];
  }

  set flushedThrough(sequence: number) {
    this.#header[At.flushedThrough / 8] = sequence;
  }

  /** Whatever is acknowledged and not flushed is in here. */
  get complete(): boolean {
    return this.#header[At.complete / 8] === 1;
  }

  set complete(complete: boolean) {
    this.#header[At.complete / 8] = complete ? 1 : 0;
  }

  /** The device's host forgot; its answer to a flush behind the log is not there yet. */
  get sending(): boolean {
    return this.#header[At.sending / 8] === 1;
  }

  set sending(sending: boolean) {
    this.#header[At.sending / 8] = sending ? 1 : 0;
  }

  /** The device that the entries were acknowledged by, as `deviceNumber` has it; 0: none yet. */
  get device(): number {
    return this.#header[At.device / 8];
  }

  set device(device: number) {
    this.#header[At.device / 8] = device;
  }

  /** Entries that have memory. */
  get ready(): number {
    return this.#header[At.ready / 8];
  }

  /** The file was cut short, or its memory is gone: what was stored since is lost. */
  get faulty(): boolean {
    return this.region.faults > 0;
  }

  sequence(entry: number): number {
    return this.#sequences[entry];
  }

  /** Makes the entry be there, with a sequence above `flushedThrough`, or be gone, with 0. */
  setSequence(entry: number, sequence: number): void {
    this.#sequences[entry] = sequence;
  }

  block(entry: number): number {
    return this.#blocks[entry];
  }

  setBlock(entry: number, block: number): void {
    this.#blocks[entry] = block;
  }

  word(entry: number): number {
    return this.#words[entry];
  }

  setWord(entry: number, word: number): void {
    this.#words[entry] = word;
  }

  /** Takes memory for more entries; false where all have it, or there is none. Written, because a mapping could not say that there is none. */
  grow(): boolean {
    const first = this.ready;
    const count = Math.min(STEP_ENTRIES, this.entries - first);
    if (count === 0) return false;
    const columns = HEADER_BYTES;
    try {
      if (!hasMemory(this.#path, count * LOG_BLOCK_BYTES + LEFT_FREE_BYTES)) return false;
      this.#fill(columns + 8 * first, 8 * count);
      this.#fill(columns + 8 * (this.entries + first), 8 * count);
      this.#fill(columns + 16 * this.entries + 4 * first, 4 * count);
      this.#fill(this.dataOffset + first * LOG_BLOCK_BYTES, count * LOG_BLOCK_BYTES);
    } catch {
      return false;
    }
    this.#header[At.ready / 8] = first + count;
    return true;
  }

  /** The content stays in the file. Twice is once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.region.release();
    closeSync(this.#fd);
  }

  #fill(position: number, length: number): void {
    if (writeSync(this.#fd, zeroes, 0, length, position) !== length) throw new Error('no memory');
  }
}

export function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
  }
}

/** A tmpfs without a bound says that it has no blocks. */
function hasMemory(path: string, bytes: number): boolean {
  const { blocks, bavail, bsize } = statfsSync(path);
  return blocks === 0 || bavail * bsize >= bytes;
}

function layout(entries: number): { columnsBytes: number; dataOffset: number } {
  const columnsBytes = 20 * entries;
  return { columnsBytes, dataOffset: Math.ceil((HEADER_BYTES + columnsBytes) / LOG_BLOCK_BYTES) * LOG_BLOCK_BYTES };
}

/** Of the parts of the header that never change. */
function identity(owner: string, entries: number): Buffer {
  return createHash('sha256').update(`${MAGIC}\n${owner}\n${entries}`).digest();
}

function damaged(path: string, reason: string): NetbusError {
  return new NetbusError('device', `the write log ${path} cannot be used: ${reason}`);
}
