/**
 * What the guest's driver sees of a device. It is frozen in the attachment's record when the device is attached: every host
 * offers exactly it, whatever stands behind, and answers from it without asking the device's host. Plain JSON.
 */
import { z } from 'zod';

/** What a disk can be asked for beyond read and write. Names, not bits: the record outlives the code that wrote it. */
export const diskFeatures = ['flush', 'discard', 'write-zeroes', 'write-cache-control', 'multi-queue'] as const;
export type DiskFeature = (typeof diskFeatures)[number];

export const DISK_QUEUES_MAX = 16;
/** Most bytes of one read or write. The VM's side offers the driver segment limits that multiply to no more. */
export const DISK_TRANSFER_BYTES_MAX = 4 * 1024 * 1024;
export const DISK_SECTOR_BYTES = 512;
/** virtio 1.2, 5.2.6: the identity string has 20 bytes. */
export const DISK_SERIAL_BYTES_MAX = 20;
export const DISK_CAPACITY_BYTES_MAX = 2 ** 52;

const sectors = (value: number) => value % DISK_SECTOR_BYTES === 0;
const powerOfTwo = (value: number) => (value & (value - 1)) === 0;

export const diskProfileSchema = z.strictObject({
  class: z.literal('disk'),
  /** Bytes, a multiple of 512. The one field that may change, and only upwards (`netbus grow`). */
  capacityBytes: z.number().int().min(DISK_SECTOR_BYTES).max(DISK_CAPACITY_BYTES_MAX).refine(sectors),
  logicalBlockBytes: z.number().int().min(512).max(65536).refine(powerOfTwo),
  physicalBlockBytes: z.number().int().min(512).max(1048576).refine(powerOfTwo),
  /** What the driver had best align large requests to; 0 = unknown. */
  optimalIoBytes: z.number().int().min(0).max(DISK_TRANSFER_BYTES_MAX),
  readOnly: z.boolean(),
  queues: z.number().int().min(1).max(DISK_QUEUES_MAX),
  /** Alignment that a discard must have to give space back. */
  discardAlignmentBytes: z
    .number()
    .int()
    .min(512)
    .max(2 ** 30),
  serial: z.string().max(DISK_SERIAL_BYTES_MAX),
  features: z.array(z.enum(diskFeatures)),
});

export type DiskProfile = Readonly<z.infer<typeof diskProfileSchema>>;

/** One class so far; the others join the union as they come. */
export const profileSchema = z.discriminatedUnion('class', [diskProfileSchema]);
export type Profile = DiskProfile;
export type DeviceClass = Profile['class'];
