/** What the control API says about jobs: work on a virtual device of this host that goes on by itself. Its paths are in the table of types.ts. */
import { z } from 'zod';
import type { ErrorCode } from '../device/errors.ts';
import { NAME_LENGTH_MAX, nameSchema } from './types.ts';

/** `host/export`. */
export const deviceSchema = z
  .string()
  .max(2 * NAME_LENGTH_MAX + 1)
  .refine((text) => text.split('/').length === 2 && text.split('/').every((part) => nameSchema.safeParse(part).success), {
    message: 'it is HOST/EXPORT, as "netbus ls" shows it',
  });

/** Slower than this it would never end. */
export const SPEED_BYTES_PER_SECOND_MIN = 64 * 1024;
export const SPEED_BYTES_PER_SECOND_MAX = 1024 ** 4;

/** Most that a job may copy, in bytes a second. */
export const speedSchema = z.number().int().min(SPEED_BYTES_PER_SECOND_MIN).max(SPEED_BYTES_PER_SECOND_MAX);

export const swapRequestSchema = z.strictObject({
  /** The new device, `host/export`. */
  to: deviceSchema,
  /** Although there is data on it, or it is the stale copy of something. */
  overwrite: z.boolean().default(false),
  /** As fast as it goes where it is left out. */
  bytesPerSecondMax: speedSchema.optional(),
});
export type SwapRequest = z.input<typeof swapRequestSchema>;

export const jobChangeSchema = z
  .strictObject({
    paused: z.boolean().optional(),
    /** null: as fast as it goes. */
    bytesPerSecondMax: speedSchema.nullable().optional(),
  })
  .refine((change) => Object.keys(change).length > 0, 'say what is to be changed: paused, or bytesPerSecondMax');
export type JobChange = z.input<typeof jobChangeSchema>;

export const jobPhases = ['waiting', 'copying', 'converging', 'switching', 'releasing'] as const;

/**
 * How far a job is. `waiting`: it cannot go on, `reason` says for what; `copying`: the first pass over what the old device has; `converging`: what
 * the guest has written meanwhile; `switching`; `releasing`: the guest uses the new device, and the old one's host is told.
 */
export const jobProgressSchema = z.object({
  phase: z.enum(jobPhases),
  /** All that is to be copied, as far as it is known: holes are not. */
  totalBytes: z.number().min(0),
  /** Of these. */
  doneBytes: z.number().min(0),
  /** Written by the guest behind the copy: to be copied once more. */
  dirtyBytes: z.number().min(0),
  /** Over the last seconds. */
  bytesPerSecond: z.number().min(0),
  /** At this rate; left out where it cannot be told. */
  secondsLeft: z.number().min(0).optional(),
  /** What it waits for, in words; left out where it goes on. */
  reason: z.string().max(2000).optional(),
  /** ISO time since when it waits for that. */
  waitingSince: z.string().max(64).optional(),
  /** How long the guest's requests stood still at the switch, in milliseconds. */
  stallMs: z.number().min(0).optional(),
});
export type JobProgress = Readonly<z.infer<typeof jobProgressSchema>>;

export const jobEndStates = ['done', 'failed', 'cancelled'] as const;

export interface JobEntry {
  /** `j1`, `j2` …: of this host, and never given again. */
  id: string;
  kind: 'swap';
  vm: string;
  name: string;
  /** The old device, `host/export`; left out until the job has begun. */
  from?: string;
  /** The new one. */
  to: string;
  overwrite: boolean;
  state: 'running' | 'paused' | (typeof jobEndStates)[number];
  /** It was asked to cancel, and has not undone everything yet. */
  cancelling?: true;
  /** Left out: as fast as it goes. */
  bytesPerSecondMax?: number;
  /** ISO times. */
  createdAt: string;
  endedAt?: string;
  /** Why it failed. */
  reason?: string;
  code?: ErrorCode;
  /** As it was at the end, of one that is over; left out where that is not known. */
  progress?: JobProgress;
}

/** All that run, and the last ones that are over; the oldest first. */
export interface JobList {
  jobs: JobEntry[];
}

/** A device that is to follow its VM to the host where that goes. */
export const followSchema = z.strictObject({
  /** What the VM calls it. */
  name: nameSchema,
  to: deviceSchema,
});
export type Follow = Readonly<z.infer<typeof followSchema>>;

/** The most devices that one migration takes along. */
export const FOLLOWS_MAX = 64;

/** What became of one of them: the job at the host where the VM is now, or why there is none. */
export interface Followed extends Follow {
  job?: string | undefined;
  reason?: string | undefined;
}
