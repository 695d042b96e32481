/**
 * Where a guest's writes, zeroes and discards go. In the first pass, and while there is no new disk, to the old one alone: their regions are dirty before
 * they leave. Behind it to both, unless all of their regions are dirty anyway.
 */
import type { Batch } from '../../device/batch.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { MessageTable } from '../../device/message-table.ts';
import type { Copier } from './copier.ts';
import type { DirtyMap } from './dirty-map.ts';
import { copyRequest, type GuestRows, Place } from './guest-rows.ts';
import type { Target } from './target.ts';
import { fillZeroes, ZEROES_BYTES_MAX } from './zeroes.ts';

export interface ChangesMirror {
  readonly map: DirtyMap;
  readonly copier: Copier;
  readonly target: Target;
  /** Writes go to both. */
  readonly isMirroring: boolean;
  /** A row of the target's table is filled in. */
  send(row: number): void;
}

export interface GuestChangesOptions {
  readonly mirror: ChangesMirror;
  readonly rows: GuestRows;
  /** The guest's. */
  readonly requests: MessageTable;
  /** The old disk's, and the rows that go to it next. */
  readonly table: MessageTable;
  readonly queue: Batch;
  /** The old disk can make zeroes. */
  readonly canZero: boolean;
}

export class GuestChanges {
  readonly #options: GuestChangesOptions;

  constructor(options: GuestChangesOptions) {
    this.#options = options;
  }

  /** Sends a change where it has to go; false where it has to wait for a copy or for another change. */
  begin(row: number): boolean {
    const { mirror, rows } = this.#options;
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

  /** Whatever was sent of it is done. False where that was a piece of it, and the next one is on its way. */
  end(row: number): boolean {
    const { mirror, requests } = this.#options;
    const { position, extent, status, guestRow, writes } = this.#options.rows;
    const end = requests.argument[guestRow[row]] + requests.extent[guestRow[row]];
    // What it did to the disk nobody knows.
    if (status[row] !== DiskStatus.ok) mirror.map.markDirty(position[row], extent[row]);
    else if (position[row] + extent[row] < end) {
      this.#sendNext(row, end);
      return false;
    }
    writes.remove(row);
    return true;
  }

  #beginOld(row: number): true {
    const { mirror, rows } = this.#options;
    const { position, extent, writes } = rows;
    mirror.map.markDirty(position[row], extent[row]);
    mirror.copier.spoil(position[row], extent[row]);
    writes.add(row, position[row], extent[row], 0);
    this.#sendOld(row);
    return true;
  }

  /** What is read behind a discard is up to each disk, so both are asked for zeroes, if the old one can make them. */
  #canMirror(row: number): boolean {
    const { requests, rows, canZero } = this.#options;
    return requests.kind[rows.guestRow[row]] !== DiskKind.discard || canZero;
  }

  #sendNext(row: number, end: number): void {
    const { position, extent, writes } = this.#options.rows;
    position[row] += extent[row];
    extent[row] = end - position[row];
    if (this.#options.mirror.isMirroring) {
      this.#sendPiece(row);
    } else {
      writes.remove(row);
      this.#beginOld(row);
    }
  }

  /** The next piece, to both disks. */
  #sendPiece(row: number): void {
    const { mirror, requests, table } = this.#options;
    const { places, position, extent, guestRow } = this.#options.rows;
    const { target, copier } = mirror;
    const kind = requests.kind[guestRow[row]];
    if (kind === DiskKind.write) {
      this.#fill(target.table, row);
      // Until a flush covers it, it counts as unflushed anyway.
      target.table.flags[row] = 0;
    } else {
      extent[row] = Math.min(extent[row], ZEROES_BYTES_MAX);
      fillZeroes(target.table, row, { position: position[row], extent: extent[row] }, target.canZero, copier.zero);
    }
    this.#sendOld(row);
    if (kind === DiskKind.discard) {
      table.kind[row] = DiskKind.writeZeroes;
      table.flags[row] |= DiskFlag.unmap;
    }
    places[row] |= Place.target;
    mirror.send(row);
  }

  #sendOld(row: number): void {
    this.#fill(this.#options.table, row);
    this.#options.rows.places[row] = Place.old;
    this.#options.queue.add(row);
  }

  /** The guest's request; of zeroes and discards, the present piece. */
  #fill(table: MessageTable, row: number): void {
    const { requests, rows } = this.#options;
    copyRequest(table, row, requests, rows.guestRow[row]);
    table.argument[row] = rows.position[row];
    table.extent[row] = rows.extent[row];
  }
}
