/** What is on stable storage of a job: one file each, in the state folder's `jobs`. Those that are over stay for a while, for people. */
import { z } from 'zod';
import { type deviceSchema, jobEndStates, jobProgressSchema, speedSchema } from '../api/jobs.ts';
import { nameSchema } from '../api/types.ts';
import { isErrorCode } from '../device/errors.ts';

const timeSchema = z.string().max(64);
const jobIdSchema = z.string().regex(/^j[1-9]\d{0,8}$/);
const copyTargetSchema = z.strictObject({ host: nameSchema, export: nameSchema });

/**
 * `waiting`: it has not begun, because its virtual device has yet to settle on this host, and nothing was touched; `copying`, until the new device is the
 * guest's (the record of the virtual device has it while that is being decided); `finishing`: the guest uses the new device, and the old one's host does not know it yet.
 */
export const jobStates = ['waiting', 'copying', 'finishing', ...jobEndStates] as const;

export const jobRecordSchema = z.strictObject({
  version: z.literal(1),
  id: jobIdSchema,
  kind: z.literal('swap'),
  vm: nameSchema,
  /** The virtual device. */
  name: nameSchema,
  /** The new device. */
  to: copyTargetSchema,
  overwrite: z.boolean(),
  /** Most that it copies; left out = as fast as it goes. */
  bytesPerSecondMax: speedSchema.optional(),
  paused: z.literal(true).optional(),
  /** Somebody wants it cancelled, and it is not yet. */
  cancelling: z.literal(true).optional(),
  state: z.enum(jobStates),
  /** The old device, and its attachment; from the moment in which one of the two devices may be touched. */
  from: z.strictObject({ ...copyTargetSchema.shape, attachment: z.uuid() }).optional(),
  /** Of the new device, once it is made. */
  attachment: z.uuid().optional(),
  /** Of this try, given by the old device's host. */
  generation: z.number().int().min(1).optional(),
  createdAt: timeSchema,
  endedAt: timeSchema.optional(),
  /** Why it failed. */
  reason: z.string().max(2000).optional(),
  code: z.string().refine(isErrorCode).optional(),
  /** As it was at the end. */
  progress: jobProgressSchema.optional(),
});
export type JobRecord = Readonly<z.infer<typeof jobRecordSchema>>;

/** `host/export`. */
export function deviceName({ host, export: exported }: JobRecord['to']): string {
  return `${host}/${exported}`;
}

/** Throws nothing: the text was checked where it came in. */
export function parseDevice(text: z.infer<typeof deviceSchema>): JobRecord['to'] {
  const [host, exported] = text.split('/');
  return { host, export: exported };
}

export function isOver({ state }: JobRecord): boolean {
  return (jobEndStates as readonly string[]).includes(state);
}

/** Of the id: the later the higher. */
export function jobNumber(id: string): number {
  return Number(id.slice(1));
}
