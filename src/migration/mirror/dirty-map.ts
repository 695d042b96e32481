/**
 * What the new disk does not have yet, and what it may forget: bits for the regions of the disk, in a mapped file that belongs on tmpfs. It outlives
 * the daemon, whose next start goes on with it, and ends with the VM's host, after which the job starts anew.
 *
 * - dirty: the region is not the same on both. Set before a write leaves for the old disk alone.
 * - unflushed: something of the region left for the new disk, and no flush covers it. Set before it leaves; becomes dirty where that disk forgot.
 * - touched: something of the region ever left for the new disk.
 *
 * All state is in single stores, so whoever is killed leaves the old one or the new one, in their order.
 */
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { NativeRegion } from '../../../native/region.ts';
import { Bits, bitsBytes } from './bits.ts';

/** The smallest region. */
export const REGION_BYTES_MIN = 64 * 1024;
/** Most bytes of one of the maps: a larger disk has larger regions. */
const MAP_BYTES_MAX = 8 * 1024 * 1024;
const MAPS = 3;
const HEADER_BYTES = 4096;
const FILL_STEP_BYTES = 1024 * 1024;
const MAGIC = 'netbus mirror map 1';
const IDENTITY_BYTES = 32;

/** Places in the header, in bytes. */
const At = { magic: 0, identity: 128, target: 256, blocking: 264, epoch: 272, known: 280, old: 288 } as const;

export interface DirtyMapOptions {
  readonly path: string;
  /** Names the job and this boot of this host: a file of another one is not used. */
  readonly owner: string;
  readonly capacityBytes: number;
}

/** How maps are had: as the class does it. */
export type DirtyMaps = Pick<typeof DirtyMap, 'open' | 'create'>;

/** A part of the disk, in bytes. */
export interface Extent {
  readonly position: number;
  readonly length: number;
}

export class DirtyMap {
  readonly capacityBytes: number;
  readonly regionBytes: number;
  readonly regions: number;
  readonly #fd: number;
  readonly #memory: NativeRegion;
  readonly #header: Float64Array;
  readonly #dirty: Bits;
  readonly #unflushed: Bits;
  readonly #touched: Bits;
  /** What is unflushed and not covered by the flush that is under way. `unflushed` is this and what that flush covers. */
  readonly #since: Bits;
  #closed = false;

  private constructor(fd: number, capacityBytes: number) {
    const { regionBytes, regions, mapBytes } = layout(capacityBytes);
    this.capacityBytes = capacityBytes;
    this.regionBytes = regionBytes;
    this.regions = regions;
    this.#fd = fd;
    this.#memory = NativeRegion.map(fd, 0, HEADER_BYTES + MAPS * mapBytes);
    const { buffer, byteOffset } = this.#memory.bytes(0, HEADER_BYTES);
    this.#header = new Float64Array(buffer, byteOffset, HEADER_BYTES / 8);
    const bits = (place: number) => new Bits(regions, this.#memory.bytes(HEADER_BYTES + place * mapBytes, bitsBytes(regions)));
    this.#dirty = bits(0);
    this.#unflushed = bits(1);
    this.#touched = bits(2);
    this.#since = new Bits(regions);
  }

  /**
   * The map that a daemon before this one left; undefined where there is none that can be used: another owner's, another disk's, one that was cut
   * short. What it had on its way to the new disk is dirty now.
   */
  static open({ path, owner, capacityBytes }: DirtyMapOptions): DirtyMap | undefined {
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
    } catch {
      return undefined;
    }
    try {
      const { mapBytes } = layout(capacityBytes);
      const header = Buffer.alloc(HEADER_BYTES);
      const isWhole =
        fstatSync(fd).size === HEADER_BYTES + MAPS * mapBytes &&
        readSync(fd, header, 0, HEADER_BYTES, 0) === HEADER_BYTES &&
        header.toString('latin1', At.magic, At.magic + MAGIC.length) === MAGIC &&
        header.subarray(At.identity, At.identity + IDENTITY_BYTES).equals(identity(owner, capacityBytes));
      if (isWhole) {
        const map = new DirtyMap(fd, capacityBytes);
        map.forget();
        return map;
      }
    } catch {
      // It cannot be read or mapped: the job starts anew.
    }
    closeSync(fd);
    return undefined;
  }

  /**
   * A new one, whole or not at all, in the place of whatever was there. Dirty is the whole disk, or what `extents` names: all that is not zeroes on
   * the old disk, where the new one is zeroes everywhere. Throws the system's error.
   */
  static create({ path, owner, capacityBytes }: DirtyMapOptions, extents?: readonly Extent[]): DirtyMap {
    const temporary = `${path}.new`;
    const fd = openSync(temporary, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600);
    try {
      const header = Buffer.alloc(HEADER_BYTES);
      header.write(MAGIC, At.magic, 'latin1');
      identity(owner, capacityBytes).copy(header, At.identity);
      fill(fd, 0, header);
      // Written, because a mapping could not say that there is no memory.
      const { mapBytes } = layout(capacityBytes);
      const zeroes = Buffer.alloc(Math.min(FILL_STEP_BYTES, mapBytes));
      const end = HEADER_BYTES + MAPS * mapBytes;
      for (let at = HEADER_BYTES; at < end; at += zeroes.length) fill(fd, at, zeroes.subarray(0, end - at));
      const map = new DirtyMap(fd, capacityBytes);
      for (const { position, length } of extents ?? [{ position: 0, length: capacityBytes }]) map.markDirty(position, length);
      renameSync(temporary, path);
      return map;
    } catch (thrown) {
      closeSync(fd);
      DirtyMap.remove(temporary);
      throw thrown;
    }
  }

  /** Takes away the file, if there is one. */
  static remove(path: string): void {
    try {
      unlinkSync(path);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
    }
  }

  /** Regions that are not the same on both. */
  get dirty(): number {
    return this.#dirty.count;
  }

  get dirtyBytes(): number {
    return Math.min(this.#dirty.count * this.regionBytes, this.capacityBytes);
  }

  /** Regions that the new disk may forget. */
  get unflushed(): number {
    return this.#unflushed.count;
  }

  /** The file was cut short, or its memory is gone, or it is closed: what was stored since is lost. */
  get faulty(): boolean {
    return this.#closed || this.#memory.faults > 0;
  }

  /** Every region was looked at once: writes go to both from here on. */
  get blocking(): boolean {
    return this.#header[At.blocking / 8] === 1;
  }

  set blocking(blocking: boolean) {
    this.#header[At.blocking / 8] = blocking ? 1 : 0;
  }

  /** Names what acknowledged the writes that are unflushed; 0: nothing did. */
  get target(): number {
    return this.#header[At.target / 8];
  }

  set target(target: number) {
    this.#header[At.target / 8] = target;
  }

  /** Of the lease under which it was kept last; 0: none yet. Under a later one that was granted without it anything may have been written. */
  get epoch(): number {
    return this.#header[At.epoch / 8];
  }

  set epoch(epoch: number) {
    this.#header[At.epoch / 8] = epoch;
  }

  /** Names what answered the writes to the old disk; 0: nothing did yet. Another one may have forgotten what this disk has of them. */
  get old(): number {
    return this.#header[At.old / 8];
  }

  set old(old: number) {
    this.#header[At.old / 8] = old;
  }

  /** All that was on the old disk when the copy began is marked. One that is not is of no use to a later daemon. */
  get known(): boolean {
    return this.#header[At.known / 8] === 1;
  }

  set known(known: boolean) {
    this.#header[At.known / 8] = known ? 1 : 0;
  }

  /** The regions of this part are not the same on both, from before its write leaves on. */
  markDirty(position: number, length: number): void {
    this.#dirty.addRange(this.#region(position), this.#region(position + length - 1));
  }

  /** The new disk has this region; what of it can be forgotten is marked as unflushed. */
  clean(region: number): void {
    this.#dirty.delete(region);
  }

  /** All regions of this part are dirty. */
  isDirty(position: number, length: number): boolean {
    return this.#dirty.hasRange(this.#region(position), this.#region(position + length - 1));
  }

  has(region: number): boolean {
    return this.#dirty.has(region);
  }

  /** The first dirty region that is not below `region`, or -1. */
  nextDirty(region: number): number {
    return this.#dirty.next(region);
  }

  /** Something of this part leaves for the new disk. */
  markUnflushed(position: number, length: number): void {
    const first = this.#region(position);
    const last = this.#region(position + length - 1);
    this.#touched.addRange(first, last);
    this.#unflushed.addRange(first, last);
    this.#since.addRange(first, last);
  }

  /** Something of this part left for the new disk at some time. */
  wasTouched(position: number, length: number): boolean {
    return this.#touched.meetsRange(this.#region(position), this.#region(position + length - 1));
  }

  /** A flush leaves. What is on its way at this moment has to be marked again right behind this: the flush does not cover it. */
  beginFlush(): void {
    this.#since.clear();
  }

  /** The flush that began last was answered. */
  flushed(): void {
    this.#unflushed.copy(this.#since);
  }

  /** The flush that began last has no answer, and none will come. */
  flushEnded(): void {
    this.#since.copy(this.#unflushed);
  }

  /** The new disk may have forgotten all that no flush covers. In this order: whoever is killed in between copies once more than is needed. */
  forget(): void {
    this.#dirty.addAll(this.#unflushed);
    this.#unflushed.clear();
    this.#since.clear();
  }

  /** The content stays in the file. Twice is once; nothing is stored any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const bits of [this.#dirty, this.#unflushed, this.#touched, this.#since]) bits.release();
    this.#memory.release();
    closeSync(this.#fd);
  }

  #region(position: number): number {
    return Math.floor(position / this.regionBytes);
  }
}

function layout(capacityBytes: number): { regionBytes: number; regions: number; mapBytes: number } {
  let regionBytes = REGION_BYTES_MIN;
  while (capacityBytes / regionBytes > MAP_BYTES_MAX * 8) regionBytes *= 2;
  const regions = Math.ceil(capacityBytes / regionBytes);
  return { regionBytes, regions, mapBytes: Math.ceil(bitsBytes(regions) / 8) * 8 };
}

function fill(fd: number, position: number, bytes: Buffer): void {
  if (writeSync(fd, bytes, 0, bytes.length, position) !== bytes.length) throw new Error('no memory for the map of the copy');
}

/** Of the parts of the header that never change. */
function identity(owner: string, capacityBytes: number): Buffer {
  return createHash('sha256').update(`${MAGIC}\n${owner}\n${capacityBytes}`).digest();
}
