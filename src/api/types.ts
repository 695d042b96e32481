/**
 * The control API: JSON over HTTP on the daemon's unix socket, version 1. Shared by daemon, command line and demo.
 *
 * | method and path | body | answer |
 * |---|---|---|
 * | GET /v1/status | - | Status |
 * | GET /v1/devices?details=true&withinMs=3000 | - | Devices: all exports as seen from here, of hosts that answer in time |
 * | GET /v1/events?since=TIME&limit=N&type=T&watch=true | - | EventHistory; with `watch` a line of JSON per event (src/api/events.ts) |
 * | POST /v1/exports | ExportRequest | ExportEntry |
 * | POST /v1/exports/:name/reopen | - | ExportEntry |
 * | DELETE /v1/exports/:name | - | {} |
 * | GET /v1/attachments | - | BusAttachments: of all devices as seen from here, by the hosts of those that answer in time |
 * | POST /v1/attachments | AttachRequest | AttachmentEntry |
 * | DELETE /v1/attachments/:vm/:name?force=true | - | {} |
 * | POST /v1/attachments/:vm/:name/grow | - | GrowResult |
 * | POST /v1/attachments/:vm/:name/swap | SwapRequest | JobEntry (src/api/jobs.ts) |
 * | GET /v1/jobs | - | JobList |
 * | GET /v1/jobs/:id | - | JobEntry |
 * | PATCH /v1/jobs/:id | JobChange | JobEntry |
 * | POST /v1/jobs/:id/cancellation | - | JobEntry |
 * | POST /v1/vms/:vm/preparation | PreparationRequest | { attachments: AttachmentEntry[] } |
 * | DELETE /v1/vms/:vm/preparation | - | {} |
 * | POST /v1/vms/:vm/migration | MigrationRequest | MigrationPreparation (src/api/migration.ts) |
 * | GET /v1/vms/:vm/migration?to=HOST | - | MigrationReport |
 * | DELETE /v1/vms/:vm/migration?to=HOST&undo=true | - | {} |
 * | POST /v1/vms/:vm/migration/follow | FollowRequest | FollowResult |
 * | GET /v1/vms/:vm/migration/progress | - | MigrationProgressEntry |
 * | PUT /v1/vms/:vm/migration/progress | { phase } | MigrationProgressEntry |
 * | POST /v1/vms/:vm/migration/cancellation | - | MigrationProgressEntry |
 * | GET /v1/vms/:vm/switchover | - | Switchover |
 * | GET /v1/members | - | Members |
 * | POST /v1/invitations | InvitationRequest | Invitation |
 * | PATCH /v1/members/:host | { address } | AddressResult |
 * | GET /v1/members/:host/eviction | - | { allowed: true } |
 * | DELETE /v1/members/:host | - | EvictResult |
 * | GET /v1/hosts/:host/fence | - | FenceCheck |
 * | POST /v1/hosts/:host/fence | - | FenceResult |
 * | GET /v1/probe | - | { members: MemberProbe[] } : the other members, asked now |
 * | GET /metrics, /healthz, /readyz | - | text |
 *
 * A failure is an HTTP status from the table in `src/device/errors.ts` with `{ error: { code, message } }`.
 */
import { z } from 'zod';
import type { ErrorCode } from '../device/errors.ts';
import type { JobEntry } from './jobs.ts';

export const NAME_LENGTH_MAX = 63;

/** Names of hosts, exports, VMs and virtual devices: they become parts of paths, certificates and commands. */
export const nameSchema = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i,
    'a name has letters, digits, ".", "_" and "-", and begins and ends with a letter or digit',
  )
  .max(NAME_LENGTH_MAX);

/** A longer hold time is `forever`. */
export const HOLD_MS_MAX = 7 * 24 * 3_600_000;

/** How long a guest waits for a device that is away, in milliseconds; 0 = not at all. */
/** A name of 4096 bytes, each of them escaped, and an address. */
const NBD_URI_CHARACTERS_MAX = 12_800;

export function hasOneBacking({ disk, nbd }: { disk?: string | undefined; nbd?: string | undefined }): boolean {
  return (disk === undefined) !== (nbd === undefined);
}

export const holdSchema = z.number().int().min(0).max(HOLD_MS_MAX);

/** Shorter than this, a connection that is cut and comes back would do. */
export const FENCE_AFTER_MS_MIN = 10_000;

/** How long a silent holder keeps the lease where another host wants to take over, in milliseconds. */
export const fenceAfterSchema = holdSchema.min(FENCE_AFTER_MS_MIN);

/** What stands behind an export: exactly one of them. */
export const backingShape = {
  /** Absolute path of an image file or a block device. */
  disk: z.string().startsWith('/').max(4096).optional(),
  /** URI of an NBD server's export. */
  nbd: z.string().max(NBD_URI_CHARACTERS_MAX).optional(),
};

export const exportRequestSchema = z
  .strictObject({
    name: nameSchema,
    ...backingShape,
    readOnly: z.boolean().default(false),
    /** Hosts that may use it; nobody by default. */
    allow: z.array(nameSchema).max(1024).default([]),
    /** Of a disk: O_DIRECT instead of the page cache. */
    direct: z.boolean().default(false),
  })
  .refine(hasOneBacking, 'exactly one of "disk" and "nbd" is needed')
  .refine(({ nbd, direct }) => nbd === undefined || !direct, '"direct" is for a disk');
export type ExportRequest = z.input<typeof exportRequestSchema>;

export const attachRequestSchema = z.strictObject({
  /** `host/export`. */
  device: z.string().max(2 * NAME_LENGTH_MAX + 1),
  vm: nameSchema,
  /** What the VM calls it; the export's name by default. */
  name: nameSchema.optional(),
  /** How long requests wait while the device is away, before they fail; for ever where it is left out. */
  holdMs: holdSchema.optional(),
  /** A new start of a VM that was at another host, which is dead or has stopped it: its attachment moves here. */
  takeover: z.boolean().optional(),
  /** Although a hot-swap has left a stale copy on the device, or it is not decided whether it is one. */
  forceStale: z.boolean().optional(),
  /** This host counts as fenced when it has had no session with the device's host for so long, in milliseconds; never where it is left out. */
  fenceAfterMs: fenceAfterSchema.optional(),
});
export type AttachRequest = z.input<typeof attachRequestSchema>;

export const preparationRequestSchema = z.strictObject({
  /** The host that the VM comes from. */
  from: nameSchema,
});
export type PreparationRequest = z.input<typeof preparationRequestSchema>;

export interface ExportEntry {
  name: string;
  class: 'disk';
  /** Where it is: the path. */
  device: string;
  readOnly: boolean;
  /** A read-only export may be used by several VMs at once. */
  shared: boolean;
  allow: string[];
  capacityBytes: number;
  /** `ready`, or why not: `waiting` for the lock that another open file holds, `failed` with the reason. */
  state: 'ready' | 'waiting' | 'failed';
  /** ISO time of the last change of state. */
  since: string;
  /** Of the state; of one that is `ready`, the latest I/O error, which need not last (a full filesystem). */
  reason?: string;
  /** The backend's own words: engine, direct or buffered … */
  backend: Record<string, string | number | boolean>;
  attachments: ExportUser[];
}

/** An attachment, as the device's host knows it. */
export interface ExportUser {
  host: string;
  vm: string;
  name: string;
  epoch: number;
  /** A session of it has the device. */
  active: boolean;
  /** How long its guest waits while this host is away, in milliseconds; left out = for ever. */
  holdMs?: number | undefined;
  /** ISO time since when that is so; left out where nothing changed since the daemon of the device's host started. */
  since?: string | undefined;
  /** More exactly than `active`; a host of an older release does not give it. */
  state?: AttachmentPlace | undefined;
  /** Where the VM is expected. */
  standby?: string | undefined;
  /** Where it was, as long as it could go back there. */
  previous?: string | undefined;
  /** While a hot-swap is about the device, and on a copy that is stale: what that means, in words. */
  mark?: string | undefined;
}

/**
 * idle: nobody has the device; active: its VM's host has it; away: that host holds the lease, and has no session; handed-over: the VM was stopped,
 * and what it left waits for the host where it is expected; fenced: it was taken from its host, and nobody has taken it over. In a hot-swap: copied:
 * to another device, while it is in use; handing-over: to that; filling, complete: the other device; stale: what is on it counts no more, or never did.
 */
export const attachmentPlaces = [
  'idle',
  'active',
  'away',
  'handed-over',
  'fenced',
  'copied',
  'handing-over',
  'filling',
  'complete',
  'stale',
] as const;
export type AttachmentPlace = (typeof attachmentPlaces)[number];

/** One row of `netbus attachments`. */
export interface BusAttachment {
  vm: string;
  name: string;
  /** Where the VM is. */
  host: string;
  /** `host/export`. */
  device: string;
  /** unknown: the device's host does not answer, and this host has the attachment. */
  state: AttachmentPlace | 'unknown';
  /** Left out where it is not known. */
  epoch?: number;
  standby?: string;
  previous?: string;
  /** See ExportUser. */
  mark?: string;
  /** ISO time of the last change of the lease; left out where nothing changed since the daemon of the device's host started. */
  since?: string;
}

export interface BusAttachments {
  attachments: BusAttachment[];
  /** Hosts that could not be asked for theirs. */
  away: AwayHost[];
  warnings: string[];
}

export interface FenceCheck {
  host: string;
  /** It answers this host at the moment, so it does not look dead from here. */
  answers: boolean;
}

export interface FenceResult {
  host: string;
  /** Of each host that has devices: what it has taken from the fenced host, as `host:vm/name`. */
  fenced: { by: string; attachments: string[] }[];
  /** Hosts that could not do it: there the fenced host still has what it had. */
  untold: { host: string; reason: string }[];
}

export interface AttachmentEntry {
  vm: string;
  name: string;
  /** `host/export`. */
  device: string;
  local: boolean;
  socket: string;
  capacityBytes: number;
  readOnly: boolean;
  /** Request queues. */
  queues: number;
  /** Arguments for QEMU, one per element pair as typed on its command line. */
  qemuArguments: string[];
  /**
   * idle: the guest does not use it; connecting: waits for the device's host; active; failed: answers with errors; standby: ready for a guest that
   * comes by a live migration; moved: the guest has gone to another host, which has not made good yet what was left here.
   */
  state: 'idle' | 'connecting' | 'active' | 'failed' | 'closed' | 'standby' | 'moved';
  /** ISO time of the last change of state. */
  since: string;
  reason?: string;
  epoch?: number;
  /** How long requests wait while the device is away, in milliseconds, before they fail; left out = for ever. */
  holdMs?: number;
  /** ISO time: requests fail from then on, unless the device is back. */
  errorsAt?: string;
  /** A VMM is connected to the socket. */
  connected: boolean;
  /** Requests without a reply. */
  inFlight: number;
  /** The last time that its VMM stopped all rings of it, over a connection that was there until the end. */
  lastStop?: RingsStopped;
  /** The last time that its rings began. */
  lastStart?: RingsStarted;
  /** What it was told is written and no flush covers; left out where there is none: a device of this host, or read-only, or never used. */
  writeLog?: WriteLogEntry | undefined;
  /** Over the last seconds; left out until two samples were taken. */
  rates?: AttachmentRates;
}

export interface RingsStopped {
  /** ISO time when the VMM had its last answer. */
  at: string;
  /** `cut`: requests are unfinished; they go again where the guest goes on. */
  outcome: 'clean' | 'cut';
  /** From the first stop to the last reply. */
  drainMs: number;
  /** What we added: from the last reply, or from the last stop where that came later, to its answer. */
  stallMs: number;
}

export interface RingsStarted {
  /** ISO time of the first ring's start. */
  at: string;
  /** From there to the first request that the device took, or would have taken where the guest had none; left out until then. */
  stallMs?: number;
}

/** The write log of a device of another host. */
export interface WriteLogEntry {
  /** `sending`: the device's host forgot, and gets it again; `full`: the guest's writes wait for a flush. */
  state: 'logging' | 'sending' | 'full';
  usedBytes: number;
  /** 0: there is none, and every write waits for stable storage. */
  boundBytes: number;
  /** ISO time of the oldest write that no flush covers. */
  oldestUnflushed?: string;
  /** Flushes of its own that succeeded, since the daemon started. */
  backgroundFlushes: number;
  /** What is wrong with it. */
  reason?: string;
  /** While it is sent again. */
  sentBytes?: number;
}

/** What a guest did with a virtual device over the last seconds. */
export interface AttachmentRates {
  /** The time that they cover. */
  seconds: number;
  read: OperationRate;
  write: OperationRate;
  /** Flushes, discards and the rest. */
  other: OperationRate;
}

export interface OperationRate {
  /** Requests a second that were answered, well or not. */
  requestsPerSecond: number;
  bytesPerSecond: number;
  errorsPerSecond: number;
  /** From the guest's queue to the reply, half of them at most; left out where there was none. Read from a histogram, so it is about right. */
  p50Ms?: number;
  /** 99 of 100 at most. */
  p99Ms?: number;
}

/** One row of `netbus ls`. */
export interface DeviceEntry {
  host: string;
  name: string;
  class: 'disk';
  capacityBytes: number;
  readOnly: boolean;
  shared: boolean;
  state: ExportEntry['state'];
  /** `host:vm/name` of those that have it. */
  usedBy: string[];
  /** Where the host is, for other hosts. */
  address?: string;
  /** With `details=true`, where the device's host gives them. */
  details?: DeviceDetails | undefined;
}

export interface DeviceDetails {
  /** Of a device of this host alone. */
  path?: string | undefined;
  /** `file`, `block device`. */
  kind?: string | undefined;
  /** The smallest unit of reads and writes. */
  blockBytes?: number | undefined;
  /** Hosts that may use it; of many the first ones. */
  allow: string[];
  /** How many they are. */
  allowCount: number;
  /** ISO time of the last change of state. */
  since: string;
  reason?: string | undefined;
  users: ExportUser[];
}

export interface LinkEntry {
  host: string;
  address: string;
  state: 'up' | 'connecting' | 'idle' | 'down';
  since: string;
  reason?: string;
  /** The last round trip. */
  rttMs?: number;
  /** ISO time when the host was last there; left out where it was not since this daemon started. */
  lastSeen?: string;
}

/** A connection of an attachment with its device's host, which may be this one. */
export interface SessionEntry {
  /** This host's part in it: it runs the VM, or it has the device. */
  role: 'vm' | 'device';
  /** The host at the other end; this host, where it is both. */
  peer: string;
  /** `host/export`. */
  device: string;
  /** `vm/name`. */
  attachment: string;
  /** `active`: it has the device; `connecting`: it is asked for. */
  state: 'connecting' | 'standby' | 'activating' | 'active' | 'releasing' | 'quiesced' | 'failed';
  /** ISO time. */
  since: string;
  epoch?: number;
  /** Requests without a reply. */
  inFlight: number;
}

/** Something that cannot go on before something else happens. */
export interface WaitEntry {
  about: 'attachment' | 'export' | 'host' | 'job';
  /** `vm/name`, the export, the host, the job's id. */
  subject: string;
  /** What it waits for, in words. */
  waitsFor: string;
  /** ISO time. */
  since: string;
  reason?: string;
  /** What happens if it does not come, in words, and when (ISO time); left out where it is waited for ever. */
  otherwise?: string;
  otherwiseAt?: string;
}

export interface Status {
  host: string;
  cluster: string;
  release: string;
  pid: number;
  startedAt: string;
  bootId: string;
  /** ISO time of this answer, by the daemon's clock. */
  time: string;
  address: string;
  certificateExpiresAt: string;
  links: LinkEntry[];
  exports: ExportEntry[];
  attachments: AttachmentEntry[];
  sessions: SessionEntry[];
  /** Those that run, paused or not. */
  jobs: JobEntry[];
  /** What waits for what; the longest wait first. */
  waits: WaitEntry[];
  /** Hosts that could not be asked, with the reason (in `ls`, too, on stderr). */
  warnings: string[];
}

export interface Devices {
  devices: DeviceEntry[];
  /** Hosts that could not be asked. */
  away: AwayHost[];
  warnings: string[];
}

export interface AwayHost {
  host: string;
  address?: string;
  reason: string;
  /** ISO time when it was last there; left out where it was not since this daemon started. */
  lastSeen?: string;
}

/** What became of asking another member how it is. */
export interface MemberProbe {
  host: string;
  address: string;
  reachable: boolean;
  /** Why it is not reachable. */
  error?: { code: ErrorCode; message: string };
  /** Those of a member that is there, unless its release does not know the question. */
  release?: string;
  roundTripMs?: number;
  /** Its clock against this host's, exact to half of the round trip; positive: it is ahead. */
  clockAheadMs?: number;
}

export interface GrowResult {
  /** False where the image had no more room than the guest sees already. */
  grown: boolean;
  capacityBytes: number;
}

export const invitationRequestSchema = z.strictObject({
  host: nameSchema,
  /** Where the new host reaches the inviting one: HOST or HOST:PORT; by default as in the member list. */
  address: z.string().max(300).optional(),
});
export type InvitationRequest = z.input<typeof invitationRequestSchema>;

export interface Invitation {
  host: string;
  /** Works once, until it expires. It is a secret. */
  token: string;
  expiresAt: string;
  /** What to type on the new host. */
  command: string;
}

export interface MemberStatus {
  host: string;
  address: string;
  state: 'member' | 'evicted';
  /** It issues certificates: invitations, renewals and evictions are its business. */
  issuer: boolean;
  /** In that state since; left out where the members stand in the config. */
  since?: string;
  /** Of this host to that one; left out for this host itself, and for those that were evicted. */
  link?: LinkEntry['state'];
  /** The release that runs there, as it said when the link came up the last time. */
  version?: string;
  /** When it was heard of last, since this daemon was started. */
  lastSeen?: string;
  /** Why the link is down. */
  reason?: string;
}

export interface Members {
  cluster: string;
  /** Of the member list, and who signs it; left out where the members stand in the config. */
  serial?: number;
  issuer?: string;
  members: MemberStatus[];
}

export interface EvictResult {
  host: string;
  /** Hosts that know of it: there, too, its links and sessions are ended and what it held is free. */
  told: string[];
  /** Hosts that did not answer: they learn of it when they are reached. */
  untold: string[];
}

export const addressRequestSchema = z.strictObject({
  /** Where the other hosts reach it from now on: HOST or HOST:PORT. */
  address: z.string().max(300),
});

export interface AddressResult {
  host: string;
  /** HOST:PORT. */
  address: string;
  /** The one of before; the same where nothing has changed. */
  previous: string;
  /** Hosts that know of it. */
  told: string[];
  /** Hosts that did not answer: they learn of it when they are reached. */
  untold: string[];
}

export interface ErrorBody {
  error: { code: ErrorCode; message: string };
}
