/** What a chain asks of a disk: the virtio-blk side of the data path. */
import { checkDiskRequest, DiskKind, DiskStatus } from '../../device/disk.ts';
import { DISK_SERIAL_BYTES_MAX, type DiskProfile } from '../../device/profile.ts';
import { scatter } from '../../device/segments.ts';
import { hasFeature } from '../../protocols/vhost-user/index.ts';
import { BlockFeature, BlockRequest, BlockRequestReader, isBlockRequest } from '../../protocols/virtio-blk/index.ts';
import type { Chain } from '../../protocols/virtqueue/index.ts';
import { type DiskStatistics, diskOperations } from './disk-statistics.ts';
import type { RequestRows } from './request-rows.ts';
import { type ChainReader, TO_DEVICE } from './ring-pump.ts';

const GET_ID_OPERATION = diskOperations.indexOf('get-id');
const OTHER_OPERATION = diskOperations.indexOf('other');

export class DiskRequests implements ChainReader {
  /** Its capacity bounds what is asked for. */
  profile: DiskProfile;
  /** No write cache: each write is on stable storage when it is answered. */
  durable = true;
  written = 0;
  readonly #rows: RequestRows;
  readonly #statistics: DiskStatistics;
  readonly #reader = new BlockRequestReader();
  readonly #offersDiscard: boolean;
  readonly #offersWriteZeroes: boolean;

  /** `features` are the bits that are offered. */
  constructor(profile: DiskProfile, features: bigint, rows: RequestRows, statistics: DiskStatistics) {
    this.profile = profile;
    this.#rows = rows;
    this.#statistics = statistics;
    this.#offersDiscard = hasFeature(features, BlockFeature.discard);
    this.#offersWriteZeroes = hasFeature(features, BlockFeature.writeZeroes);
  }

  fault(chain: Chain): string | undefined {
    if (isBlockRequest(chain)) return undefined;
    return `no room for a header and a status (${chain.readableBytes} readable, ${chain.writableBytes} writable bytes)`;
  }

  read(chain: Chain, row: number): number {
    const { table } = this.#rows;
    this.written = 0;
    const status = this.#reader.read(chain, table, row, this.durable);
    const { type } = this.#reader;
    this.#rows.operation[row] = operationOf(type);
    if (type === BlockRequest.getId) return this.#answerId(chain, row);
    if (type === BlockRequest.discard && !this.#offersDiscard) return DiskStatus.unsupported;
    if (type === BlockRequest.writeZeroes && !this.#offersWriteZeroes) return DiskStatus.unsupported;
    if (status !== DiskStatus.ok) return status;
    const checked = checkDiskRequest(table, row, this.profile);
    return checked === DiskStatus.ok ? TO_DEVICE : checked;
  }

  answered(row: number, status: number, written: number, nowMs: number): number {
    const rows = this.#rows;
    const operation = rows.operation[row];
    const bytes = operation < GET_ID_OPERATION ? rows.table.extent[row] : 0;
    const ok = status === DiskStatus.ok;
    this.#statistics.record(operation, bytes, !ok, (nowMs - rows.startedMs[row]) / 1000);
    if (!ok) return 1;
    // The status byte comes after the room for data, so it counts where that is filled.
    return written < rows.table.inLength[row] ? written : written + 1;
  }

  /** virtio 1.2, 5.2.6: the identity has 20 bytes, without a terminator where it fills them. */
  #answerId(chain: Chain, row: number): number {
    const room = chain.writableBytes - 1;
    const length = Math.min(DISK_SERIAL_BYTES_MAX, room);
    const id = new Uint8Array(DISK_SERIAL_BYTES_MAX);
    id.set(new TextEncoder().encode(this.profile.serial).subarray(0, DISK_SERIAL_BYTES_MAX));
    const segments = this.#rows.table.segments(row);
    chain.appendWritable(segments, 0, length);
    scatter(segments, 0, id, 0, length);
    this.#rows.table.inLength[row] = room;
    this.written = length;
    return DiskStatus.ok;
  }
}

/** The index in `diskOperations` of a request type: the kinds of a disk's messages, less one, then what never leaves this host. */
function operationOf(type: number): number {
  switch (type) {
    case BlockRequest.in:
      return DiskKind.read - 1;
    case BlockRequest.out:
      return DiskKind.write - 1;
    case BlockRequest.flush:
      return DiskKind.flush - 1;
    case BlockRequest.discard:
      return DiskKind.discard - 1;
    case BlockRequest.writeZeroes:
      return DiskKind.writeZeroes - 1;
    case BlockRequest.getId:
      return GET_ID_OPERATION;
    default:
      return OTHER_OPERATION;
  }
}
