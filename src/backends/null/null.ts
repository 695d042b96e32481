/**
 * A disk of nothing: reads give zeroes, writes vanish. It is the template for a backend, and shows what the rest of a path costs.
 */
import { checkDiskRequest, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { InstantDevice } from '../../device/instant-device.ts';
import type { MessageTable } from '../../device/message-table.ts';
import { type DiskProfile, diskProfileSchema } from '../../device/profile.ts';
import { clearBytes } from '../../device/segments.ts';
import type { BackendSource } from '../../device/source.ts';

/** Most requests that one device holds. */
const NULL_DEPTH = 1024;

export interface NullSourceOptions {
  /** A multiple of 512. */
  readonly capacityBytes: number;
  readonly readOnly?: boolean;
  readonly serial?: string;
  readonly queues?: number;
  /** Most requests that each device holds. */
  readonly depth?: number;
}

/** Throws `usage` for options that make no profile. */
export function openNullSource(options: NullSourceOptions): BackendSource {
  const profile = nullProfile(options);
  return {
    profile,
    // Nothing is kept, so nothing can be forgotten: all openings are one.
    instance: 'null',
    open: () => new InstantDevice(profile, options.depth ?? NULL_DEPTH, (table, row) => work(profile, table, row)),
    describe: () => ({ kind: 'null', capacityBytes: profile.capacityBytes }),
    refresh: async () => profile,
    close: async () => {},
  };
}

function nullProfile({ capacityBytes, readOnly = false, serial = 'null', queues = 1 }: NullSourceOptions): DiskProfile {
  const parsed = diskProfileSchema.safeParse({
    class: 'disk',
    capacityBytes,
    logicalBlockBytes: 512,
    physicalBlockBytes: 4096,
    optimalIoBytes: 0,
    readOnly,
    queues,
    discardAlignmentBytes: 4096,
    serial,
    features: [
      'flush' as const,
      ...(readOnly ? [] : (['discard', 'write-zeroes', 'write-cache-control'] as const)),
      ...(queues > 1 ? (['multi-queue'] as const) : []),
    ],
  });
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new NetbusError('usage', `a null disk cannot be made like this: ${path.join('.')}: ${message}`);
}

function work(profile: DiskProfile, table: MessageTable, row: number): number {
  const status = checkDiskRequest(table, row, profile);
  if (status === DiskStatus.ok && table.kind[row] === DiskKind.read) clearBytes(table.segments(row), 0, table.extent[row]);
  return status;
}
