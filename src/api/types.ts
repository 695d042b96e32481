/**
 * The control API: JSON over HTTP on the daemon's unix socket, version 1. Shared by daemon, command line and demo.
 *
 * | method and path | body | answer |
 * |---|---|---|
 * | GET /v1/status | - | Status |
 * | GET /v1/devices?withinMs=3000 | - | { devices: DeviceEntry[] } : all exports as seen from here, of hosts that answer in time |
 * | POST /v1/exports | ExportRequest | ExportEntry |
 * | DELETE /v1/exports/:name | - | {} |
 * | POST /v1/attachments | AttachRequest | AttachmentEntry |
 * | DELETE /v1/attachments/:vm/:name?force=true | - | {} |
 * | POST /v1/attachments/:vm/:name/grow | - | GrowResult |
 * | GET /v1/probe | - | { members: MemberProbe[] } : the other members, asked now |
 * | GET /metrics, /healthz, /readyz | - | text |
 *
 * A failure is an HTTP status from the table in `src/device/errors.ts` with `{ error: { code, message } }`.
 */
import { z } from 'zod';
import type { ErrorCode } from '../device/errors.ts';

export const NAME_LENGTH_MAX = 63;

/** Names of hosts, exports, VMs and virtual devices: they become parts of paths, certificates and commands. */
export const nameSchema = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$/i,
    'a name has letters, digits, ".", "_" and "-", and begins and ends with a letter or digit',
  )
  .max(NAME_LENGTH_MAX);

export const exportRequestSchema = z.strictObject({
  name: nameSchema,
  /** Absolute path of an image file or a block device. */
  disk: z.string().startsWith('/').max(4096),
  readOnly: z.boolean().default(false),
  /** Hosts that may use it; nobody by default. */
  allow: z.array(nameSchema).max(1024).default([]),
  /** O_DIRECT instead of the page cache. */
  direct: z.boolean().default(false),
});
export type ExportRequest = z.input<typeof exportRequestSchema>;

export const attachRequestSchema = z.strictObject({
  /** `host/export`. */
  device: z.string().max(2 * NAME_LENGTH_MAX + 1),
  vm: nameSchema,
  /** What the VM calls it; the export's name by default. */
  name: nameSchema.optional(),
});
export type AttachRequest = z.input<typeof attachRequestSchema>;

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
  /** Of the state; of one that is `ready`, the latest I/O error, which need not last (a full filesystem). */
  reason?: string;
  /** The backend's own words: engine, direct or buffered … */
  backend: Record<string, string | number | boolean>;
  attachments: { host: string; vm: string; name: string; epoch: number; active: boolean }[];
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
  /** Arguments for QEMU, one per element pair as typed on its command line. */
  qemuArguments: string[];
  /** idle: the guest does not use it; connecting: waits for the device's host; active; failed: answers with errors. */
  state: 'idle' | 'connecting' | 'active' | 'failed' | 'closed';
  /** ISO time of the last change of state. */
  since: string;
  reason?: string;
  epoch?: number;
  /** A VMM is connected to the socket. */
  connected: boolean;
  /** Requests without a reply. */
  inFlight: number;
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
}

export interface LinkEntry {
  host: string;
  address: string;
  state: 'up' | 'connecting' | 'idle' | 'down';
  since: string;
  reason?: string;
}

export interface Status {
  host: string;
  cluster: string;
  release: string;
  pid: number;
  startedAt: string;
  bootId: string;
  address: string;
  certificateExpiresAt: string;
  links: LinkEntry[];
  exports: ExportEntry[];
  attachments: AttachmentEntry[];
  /** Hosts that could not be asked, with the reason (in `ls`, too, on stderr). */
  warnings: string[];
}

export interface Devices {
  devices: DeviceEntry[];
  warnings: string[];
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

export interface ErrorBody {
  error: { code: ErrorCode; message: string };
}
