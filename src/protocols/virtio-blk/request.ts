/** One virtio-blk request: from a descriptor chain to a row of a message table. Plain functions over columns: nothing is allocated. */
import { DiskFlag, DiskKind, DiskStatus } from '../../device/disk.ts';
import type { MessageTable } from '../../device/message-table.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';
import type { Chain } from '../virtqueue/index.ts';
import {
  BLOCK_DISCARD_SECTORS_MAX,
  BLOCK_HEADER_BYTES,
  BLOCK_RANGE_BYTES,
  BLOCK_WRITE_ZEROES_SECTORS_MAX,
  BlockRequest,
  RANGE_FLAG_UNMAP,
} from './numbers.ts';

const HIGH_WORD = 0x1_0000_0000;

/**
 * Reads the requests of one device. A header may be cut across descriptors as the driver likes (VERSION_1 implies any layout), so
 * it is copied into scratch space first, which is also what keeps the driver from changing it afterwards.
 */
export class BlockRequestReader {
  readonly #scratch = new Uint8Array(BLOCK_HEADER_BYTES + BLOCK_RANGE_BYTES);
  readonly #fields = new DataView(this.#scratch.buffer);
  /** The type of the last request that was read: what GET_ID, which is no message of a disk, is known by. */
  type = 0;

  /**
   * Fills a row. The chain has room for header and status (`isBlockRequest`). Returns `ok` for a request that is to be checked and
   * sent, or the status to answer at once. `durable` is set on writes where there is no write cache.
   */
  read(chain: Chain, table: MessageTable, row: number, durable: boolean): number {
    chain.read(0, this.#scratch, BLOCK_HEADER_BYTES);
    const fields = this.#fields;
    this.type = fields.getUint32(0, true);
    const position = (fields.getUint32(8, true) + fields.getUint32(12, true) * HIGH_WORD) * DISK_SECTOR_BYTES;
    const out = chain.readableBytes - BLOCK_HEADER_BYTES;
    const room = chain.writableBytes - 1;
    const segments = table.segments(row);
    segments.clear();
    table.flags[row] = 0;
    table.outLength[row] = 0;
    table.inLength[row] = 0;
    switch (this.type) {
      case BlockRequest.in:
        table.kind[row] = DiskKind.read;
        table.argument[row] = position;
        table.extent[row] = room;
        table.inLength[row] = room;
        if (out !== 0) return DiskStatus.ioError;
        return chain.appendWritable(segments, 0, room) ? DiskStatus.ok : DiskStatus.ioError;
      case BlockRequest.out:
        table.kind[row] = DiskKind.write;
        table.flags[row] = durable ? DiskFlag.durable : 0;
        table.argument[row] = position;
        table.extent[row] = out;
        table.outLength[row] = out;
        if (room !== 0) return DiskStatus.ioError;
        return chain.appendReadable(segments, BLOCK_HEADER_BYTES, out) ? DiskStatus.ok : DiskStatus.ioError;
      case BlockRequest.flush:
        table.kind[row] = DiskKind.flush;
        table.argument[row] = 0;
        table.extent[row] = 0;
        return out === 0 && room === 0 ? DiskStatus.ok : DiskStatus.ioError;
      case BlockRequest.discard:
        table.kind[row] = DiskKind.discard;
        return this.#readRange(chain, table, row, out, room, BLOCK_DISCARD_SECTORS_MAX, 0);
      case BlockRequest.writeZeroes:
        table.kind[row] = DiskKind.writeZeroes;
        table.flags[row] = durable ? DiskFlag.durable : 0;
        return this.#readRange(chain, table, row, out, room, BLOCK_WRITE_ZEROES_SECTORS_MAX, RANGE_FLAG_UNMAP);
      default:
        return DiskStatus.unsupported;
    }
  }

  /** The range of a discard or write zeroes (5.2.6): sector, count, flags. Flags beyond `flagsAllowed` are unsupported by definition. */
  #readRange(
    chain: Chain,
    table: MessageTable,
    row: number,
    out: number,
    room: number,
    sectorsMax: number,
    flagsAllowed: number,
  ): number {
    if (out !== BLOCK_RANGE_BYTES || room !== 0) return DiskStatus.ioError;
    chain.read(0, this.#scratch, BLOCK_HEADER_BYTES + BLOCK_RANGE_BYTES);
    const fields = this.#fields;
    const at = BLOCK_HEADER_BYTES;
    const sectors = fields.getUint32(at + 8, true);
    const flags = fields.getUint32(at + 12, true);
    if ((flags & ~flagsAllowed) !== 0) return DiskStatus.unsupported;
    if (sectors > sectorsMax) return DiskStatus.ioError;
    if ((flags & RANGE_FLAG_UNMAP) !== 0) table.flags[row] |= DiskFlag.unmap;
    table.argument[row] = (fields.getUint32(at, true) + fields.getUint32(at + 4, true) * HIGH_WORD) * DISK_SECTOR_BYTES;
    table.extent[row] = sectors * DISK_SECTOR_BYTES;
    return DiskStatus.ok;
  }
}

/** Whether a chain has room for what every request has: a header to read and a status to write. */
export function isBlockRequest(chain: Chain): boolean {
  return chain.readableBytes >= BLOCK_HEADER_BYTES && chain.writableBytes >= 1;
}

/** A request's header as a driver writes it. */
export function encodeBlockHeader(type: number, sector: bigint): Uint8Array {
  const bytes = new Uint8Array(BLOCK_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, sector, true);
  return bytes;
}

/** The range of a discard or write zeroes as a driver writes it. */
export function encodeBlockRange(sector: bigint, sectors: number, unmap: boolean): Uint8Array {
  const bytes = new Uint8Array(BLOCK_RANGE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, sector, true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, unmap ? RANGE_FLAG_UNMAP : 0, true);
  return bytes;
}
