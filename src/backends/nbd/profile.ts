import { availableParallelism } from 'node:os';
import { NetbusError } from '../../device/errors.ts';
import {
  DISK_CAPACITY_BYTES_MAX,
  DISK_SECTOR_BYTES,
  DISK_SERIAL_BYTES_MAX,
  DISK_TRANSFER_BYTES_MAX,
  type DiskProfile,
  diskProfileSchema,
} from '../../device/profile.ts';
import { TransmissionFlag } from '../../protocols/nbd/constants.ts';
import type { NbdExport } from '../../protocols/nbd/negotiation.ts';
import type { NbdTarget } from '../../protocols/nbd/uri.ts';

const QUEUES_DEFAULT_MAX = 4;
/** Pages of the caches behind nearly every server. */
const PHYSICAL_BLOCK_BYTES = 4096;
const DISCARD_ALIGNMENT_BYTES_MAX = 2 ** 30;

/** What a guest sees of a server's export. Throws `usage` or `denied` where it cannot be a disk, and says what to do. */
export function nbdProfile(target: NbdTarget, served: NbdExport, readOnly: boolean, queues?: number): DiskProfile {
  const { uri } = target;
  const { sizeBytes, flags, minimumBlockBytes, preferredBlockBytes } = served;
  const has = (flag: number) => (flags & flag) !== 0;
  const wrong = (message: string) => new NetbusError('usage', `${uri}: ${message}`);
  if (!readOnly && has(TransmissionFlag.readOnly))
    throw new NetbusError('denied', `${uri}: the NBD server lets it be read only: export it with --read-only`);
  // Nobody could tell when a write is safe (a flush would be a lie).
  if (!readOnly && !has(TransmissionFlag.sendFlush) && !has(TransmissionFlag.sendFua))
    throw wrong(
      'the NBD server offers neither flush nor FUA, so no write would ever be known to be safe: export it with --read-only',
    );
  if (sizeBytes === 0) throw wrong('the export has no bytes: give what is behind the NBD server a size');
  if (sizeBytes % DISK_SECTOR_BYTES !== 0)
    throw wrong(
      `its size of ${sizeBytes} bytes is not a multiple of 512: make it one (with nbdkit: --filter=truncate round-up=512)`,
    );
  if (sizeBytes > DISK_CAPACITY_BYTES_MAX) throw wrong(`its size of ${sizeBytes} bytes is more than a disk can have`);
  const logicalBlockBytes = Math.max(DISK_SECTOR_BYTES, minimumBlockBytes);
  const parsed = diskProfileSchema.safeParse({
    class: 'disk',
    capacityBytes: sizeBytes - (sizeBytes % logicalBlockBytes),
    logicalBlockBytes,
    physicalBlockBytes: Math.max(PHYSICAL_BLOCK_BYTES, logicalBlockBytes),
    optimalIoBytes:
      preferredBlockBytes > PHYSICAL_BLOCK_BYTES && preferredBlockBytes <= DISK_TRANSFER_BYTES_MAX ? preferredBlockBytes : 0,
    readOnly,
    queues: queues ?? Math.min(availableParallelism(), QUEUES_DEFAULT_MAX),
    discardAlignmentBytes: Math.min(
      Math.max(PHYSICAL_BLOCK_BYTES, preferredBlockBytes, logicalBlockBytes),
      DISCARD_ALIGNMENT_BYTES_MAX,
    ),
    serial: defaultSerial(target.exportName),
    features: [
      'flush',
      ...(readOnly ? [] : ['discard', 'write-zeroes', 'write-cache-control']),
      ...((queues ?? availableParallelism()) > 1 ? ['multi-queue'] : []),
    ],
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw wrong(`it cannot be offered as a disk: ${issue.path.join('.')}: ${issue.message}`);
}

/** The export's name, as far as it has characters that every guest's tools can show. */
function defaultSerial(exportName: string): string {
  return (exportName || 'nbd').replaceAll(/[^A-Za-z0-9._-]/g, '-').slice(0, DISK_SERIAL_BYTES_MAX);
}
