/** What the control API says about a live migration of a VM whose devices go along; its paths are in the table of types.ts. */
import { z } from 'zod';
import { FOLLOWS_MAX, type Followed, followSchema } from './jobs.ts';
import { nameSchema, type RingsStopped } from './types.ts';

export const migrationRequestSchema = z.strictObject({
  /** The host that the VM moves to. */
  to: nameSchema,
  /** Checks alone: nothing is changed at either host. */
  check: z.boolean().default(false),
  /** Devices that are to follow it: it is refused where one cannot, as far as that can be known before. */
  follow: z.array(followSchema).max(FOLLOWS_MAX).default([]),
});
export type MigrationRequest = z.input<typeof migrationRequestSchema>;

export const followRequestSchema = z.strictObject({
  /** Where the VM is now. */
  to: nameSchema,
  follow: z.array(followSchema).min(1).max(FOLLOWS_MAX),
});
export type FollowRequest = z.input<typeof followRequestSchema>;

export interface FollowResult {
  follows: Followed[];
}

/** What is ready for the VM at its destination, or would be. */
export interface MigrationPreparation {
  to: string;
  devices: MigratingDevice[];
  /** True where this request made them ready there; false where it checked alone, or somebody else had done it before. */
  prepared: boolean;
}

export interface MigratingDevice {
  name: string;
  /** `host/export`. */
  device: string;
  /** Where it is at this host. */
  socket: string;
  /** A VMM is connected to it at this host. */
  connected: boolean;
}

/** Whether the guest's devices are at rest on this host, so that another one may go on with them. */
export interface Switchover {
  stopped: boolean;
  /** Why not, one for each device that is not. */
  reasons: string[];
}

export const migrationPhases = ['preparing', 'connecting', 'copying', 'switching-over', 'completing', 'cancelling'] as const;
export type MigrationPhase = (typeof migrationPhases)[number];

export const migrationProgressSchema = z.strictObject({ phase: z.enum(migrationPhases) });

/** A migration that a command of this host is at. */
export interface MigrationProgressEntry {
  vm: string;
  to: string;
  phase: MigrationPhase;
  /** ISO time when it was begun. */
  since: string;
  /** Somebody wants it cancelled. */
  cancel: boolean;
}

/** How the devices of a VM left this host and came to the other one. */
export interface MigrationReport {
  stop: (Partial<RingsStopped> & { name: string; device: string })[];
  start: MigrationArrival[];
  /** Why the other host does not say it. */
  reason?: string;
}

export interface MigrationArrival {
  name: string;
  /** Of the attachment at the destination. */
  state: string;
  /** Why it waits there. */
  reason?: string | undefined;
  /** RingsStarted there, once they have. */
  at?: string | undefined;
  stallMs?: number | undefined;
}
