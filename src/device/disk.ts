/**
 * The disk class: what its messages mean. Columns of the message table:
 *
 * | kind | argument | extent | out payload | in payload |
 * |---|---|---|---|---|
 * | read | byte position | bytes | - | extent bytes |
 * | write | byte position | bytes | extent bytes | - |
 * | flush | 0 | 0 | - | - |
 * | discard | byte position | bytes | - | - |
 * | writeZeroes | byte position | bytes | - | - |
 * | capacityChanged (event) | new bytes | 0 | - | - |
 */
import type { MessageTable } from './message-table.ts';
import { DISK_SECTOR_BYTES, DISK_TRANSFER_BYTES_MAX, type DiskProfile } from './profile.ts';

export const DiskKind = { read: 1, write: 2, flush: 3, discard: 4, writeZeroes: 5, capacityChanged: 16 } as const;

export const DiskFlag = {
  /** The data is on stable storage when the reply comes (a driver without FLUSH, or one that chose write-through). */
  durable: 1,
  /** writeZeroes may give the space back (virtio 1.2, 5.2.6.2: unmap). */
  unmap: 2,
} as const;

/** The values are virtio-blk's status bytes. */
export const DiskStatus = { ok: 0, ioError: 1, unsupported: 2 } as const;

/**
 * Checks one request against the profile: the message is validated here once, wherever it enters from outside (a guest's queue
 * or a peer's frame), and trusted afterwards. Returns the status to answer at once, or `ok` to let it pass.
 */
export function checkDiskRequest(table: MessageTable, row: number, profile: DiskProfile): number {
  const position = table.argument[row];
  const extent = table.extent[row];
  const out = table.outLength[row];
  const room = table.inLength[row];
  switch (table.kind[row]) {
    case DiskKind.read:
      return out === 0 && room === extent && extent <= DISK_TRANSFER_BYTES_MAX
        ? checkRange(position, extent, profile)
        : DiskStatus.ioError;
    case DiskKind.write:
      if (profile.readOnly) return DiskStatus.ioError;
      return room === 0 && out === extent && extent <= DISK_TRANSFER_BYTES_MAX
        ? checkRange(position, extent, profile)
        : DiskStatus.ioError;
    case DiskKind.flush:
      return out === 0 && room === 0 ? DiskStatus.ok : DiskStatus.ioError;
    case DiskKind.discard:
    case DiskKind.writeZeroes:
      if (profile.readOnly || out !== 0 || room !== 0) return DiskStatus.ioError;
      return checkRange(position, extent, profile);
    default:
      return DiskStatus.unsupported;
  }
}

/** Whole sectors inside the capacity, and at least one. Written so that no sum can overflow. */
function checkRange(position: number, extent: number, profile: DiskProfile): number {
  const inside =
    position % DISK_SECTOR_BYTES === 0 &&
    extent % DISK_SECTOR_BYTES === 0 &&
    extent > 0 &&
    position >= 0 &&
    position <= profile.capacityBytes &&
    extent <= profile.capacityBytes - position;
  return inside ? DiskStatus.ok : DiskStatus.ioError;
}
