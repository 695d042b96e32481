/** What is on stable storage: one file per export, per attachment at the device's host, per virtual device at the VM's host. */
import { z } from 'zod';
import { backingShape, hasOneBacking, holdSchema, nameSchema } from '../api/types.ts';
import { sourceStates, targetStates } from '../device/copy-mark.ts';
import { handOverSchema } from '../device/hand-over.ts';
import { profileSchema } from '../device/profile.ts';
import { FENCED_HOSTS_MAX } from '../device/succession.ts';
import { signedHandOverSchema } from '../directory/signed-hand-over.ts';
import { leftStates } from '../frontends/vhost-user/left-requests.ts';

const timeSchema = z.string().max(64);

/** A host, and the membership under which it is meant. */
const placeSchema = z.strictObject({ host: nameSchema, membership: z.string().max(64).optional() });

const copyTargetSchema = z.strictObject({ host: nameSchema, export: nameSchema });
const copyEndSchema = copyTargetSchema.extend({ attachment: z.uuid() });
const generationSchema = z.number().int().min(1);
/** What a hot-swap has to do with a device: src/device/copy-mark.ts. */
export const copyMarkSchema = z.union([
  z.strictObject({
    state: z.enum(sourceStates),
    generation: generationSchema,
    to: copyTargetSchema,
    since: timeSchema.optional(),
  }),
  z.strictObject({
    state: z.enum(targetStates),
    generation: generationSchema,
    from: copyEndSchema,
    since: timeSchema.optional(),
  }),
]);

/** An export of this host. */
export const exportRecordSchema = z
  .strictObject({
    version: z.literal(1),
    name: nameSchema,
    ...backingShape,
    readOnly: z.boolean(),
    direct: z.boolean(),
    allow: z.array(nameSchema),
    /**
     * How often it was opened anew after a flush had failed, or its NBD server was lost: what was acknowledged before may be lost, so that is another
     * instance, and nobody may go on as if it were the same.
     */
    reopened: z.number().int().min(0),
    createdAt: timeSchema,
  })
  .refine(hasOneBacking, 'exactly one of "disk" and "nbd" is needed');
export type ExportRecord = Readonly<z.infer<typeof exportRecordSchema>>;

/** What stands behind an export, for people: a path or a URI. */
export function deviceOf({ disk, nbd }: Pick<ExportRecord, 'disk' | 'nbd'>): string {
  return disk ?? nbd!;
}

/** An attachment to an export of this host: the authority on who may write, and what the guest's driver was promised. */
export const attachmentRecordSchema = z.strictObject({
  version: z.literal(1),
  id: z.uuid(),
  export: nameSchema,
  /** Where the VM is. */
  host: nameSchema,
  vm: nameSchema,
  name: nameSchema,
  /** Frozen; the capacity alone may change, upwards, by `grow`. */
  profile: profileSchema,
  /** The driver's choice by SET_CONFIG; null = it made none. */
  writeCache: z.boolean().nullable(),
  /** How long its guest waits for this host, in milliseconds; left out = for ever. The VM's host acts on it. */
  holdMs: holdSchema.optional(),
  /** The membership under which that host attached: an attachment of an earlier one is nobody's. Left out where the cluster has no member list. */
  membership: z.string().max(64).optional(),
  lease: z.strictObject({ epoch: z.number().int().min(0), holder: nameSchema.nullable() }),
  /** Where the VM is expected by a live migration: the lease goes there when `host` has given it back and that host asks. */
  standby: placeSchema.optional(),
  /** Where the VM was before it moved: it may go on there, as long as the guest took nothing at `host`. */
  previous: placeSchema.optional(),
  /** What the guest left behind where it was stopped last, until a flush has made it good where it went. */
  handOver: handOverSchema.optional(),
  /** The host that left it. Left out in records of an earlier release. */
  leftBy: nameSchema.optional(),
  /** Hosts that it was taken from: nothing of theirs may come any more. */
  fenced: z.array(nameSchema).max(FENCED_HOSTS_MAX).optional(),
  /** The holder counts as fenced when it has had no session for so long, in milliseconds; left out = never. */
  fenceAfterMs: holdSchema.optional(),
  /** Counts the devices that stood behind it, and those that were to: a swap makes the next one. */
  generation: generationSchema,
  /** While a swap is about it, and afterwards on a stale copy. */
  copy: copyMarkSchema.optional(),
  /** The swap that brought the device; left out where it was attached. */
  swapped: z.strictObject({ generation: generationSchema, from: copyEndSchema }).optional(),
  createdAt: timeSchema,
});
export type AttachmentRecord = Readonly<z.infer<typeof attachmentRecordSchema>>;

const idsSchema = z.strictObject({ bootId: z.string().max(64), instance: z.string().max(64) });

/** A virtual device of a VM on this host: enough to be there for the guest while the device's host is away. */
export const virtualDeviceRecordSchema = z.strictObject({
  version: z.literal(1),
  vm: nameSchema,
  name: nameSchema,
  /** The device's host, which may be this one. */
  host: nameSchema,
  export: nameSchema,
  attachment: z.uuid(),
  /** Counts the devices that stood behind it; left out = 1. */
  generation: z.number().int().min(1).optional(),
  /** This device takes the place of that one, and it is not known yet whether that was decided: see src/device/copy-mark.ts. */
  swap: z
    .strictObject({
      generation: z.number().int().min(1),
      old: z.strictObject({
        host: nameSchema,
        export: nameSchema,
        attachment: z.uuid(),
        generation: z.number().int().min(1).optional(),
        membership: z.string().max(64).optional(),
        forgets: z.literal(true).optional(),
        device: idsSchema.nullable(),
      }),
    })
    .optional(),
  profile: profileSchema,
  /** Most requests in flight. */
  depth: z.number().int().min(1).max(4096),
  /** The guest that used it last: see guest-guard.ts. */
  guest: z
    .strictObject({
      /** Process of the VMM. */
      process: z.string().max(64),
      /** What it left unanswered. While it is connected: `unknown`. */
      left: z.enum(leftStates),
      /** What its writes went to. */
      device: idsSchema.nullable(),
      /** The VM was started anew here and did not have its device yet: what an earlier guest left is none of its business. */
      isNew: z.literal(true).optional(),
    })
    .nullable(),
  writeCache: z.boolean().nullable(),
  /** This host's membership when it was attached; left out for a device of this host, and where the cluster has no member list. */
  membership: z.string().max(64).optional(),
  /** The guest is expected from another host, by a live migration; left out where it is here. */
  arriving: z.literal(true).optional(),
  /** Where it comes from; while it is expected. */
  from: nameSchema.optional(),
  /** The host that had it made ready here, and may have it taken back; left out where people here did. */
  preparedBy: nameSchema.optional(),
  /** What that host could not tell the device's host itself; while it is expected. */
  signed: signedHandOverSchema.optional(),
  /** What the guest had not flushed elsewhere on the device with these ids was written and flushed here; as long as the guest is not here for good. */
  madeGood: z.strictObject({ bootId: z.string().max(64), instance: z.string().max(64) }).optional(),
  /** A device of this host that may forget what was not flushed while its guest lives on: an NBD server is behind it. */
  forgets: z.literal(true).optional(),
  /** Why it is nobody's any more: the guest gets errors until it is detached. Left out while that is not so. */
  fenced: z.string().max(2000).optional(),
  /** How long requests wait for a device that is away before they fail, in milliseconds; left out = for ever. */
  holdMs: holdSchema.optional(),
  createdAt: timeSchema,
});
export type VirtualDeviceRecord = Readonly<z.infer<typeof virtualDeviceRecordSchema>>;
