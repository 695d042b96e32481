/** What happened on a host: the types of `GET /v1/events` and of the file that keeps them. */
import { z } from 'zod';

export const severities = ['info', 'warning', 'error'] as const;
export type Severity = (typeof severities)[number];

/** What an event is about: a host by its name, an export by its name, an attachment as `vm/name`. */
export const subjectKinds = ['host', 'export', 'attachment'] as const;
export type SubjectKind = (typeof subjectKinds)[number];

interface EventTypeInfo {
  readonly about: SubjectKind;
  readonly severity: Severity;
}

const host = (severity: Severity): EventTypeInfo => ({ about: 'host', severity });
const exported = (severity: Severity): EventTypeInfo => ({ about: 'export', severity });
const attachment = (severity: Severity): EventTypeInfo => ({ about: 'attachment', severity });

/** All types, by what they are about. The names are stable: programs go by them. docs/api.md says what each one means. */
export const eventTypes = {
  'daemon.started': host('info'),
  'daemon.stopped': host('info'),
  'daemon.failed': host('error'),
  'identity.error': host('error'),
  'state.damaged': host('error'),

  'link.up': host('info'),
  'link.down': host('warning'),

  'member.invited': host('info'),
  'member.joined': host('info'),
  'member.evicted': host('warning'),
  'members.updated': host('info'),

  'certificate.renewed': host('info'),
  'certificate.not-renewed': host('warning'),

  'export.added': exported('info'),
  'export.removed': exported('info'),
  'export.ready': exported('info'),
  'export.waiting': exported('warning'),
  'export.failed': exported('error'),
  'export.attached': exported('info'),
  'export.detached': exported('info'),
  'export.grown': exported('info'),
  'export.granted': exported('info'),
  'export.returned': exported('info'),
  'export.prepared': exported('info'),
  'export.handed-over': exported('info'),
  'export.moved': exported('info'),
  'export.settled': exported('info'),
  'export.fenced': exported('warning'),
  'export.taken-over': exported('warning'),
  'export.swap-begun': exported('info'),
  'export.swap-decided': exported('info'),
  'export.swap-aborted': exported('warning'),
  'export.superseded': exported('info'),
  'export.stale-removed': exported('warning'),
  'export.session-lost': exported('warning'),
  'export.device-error': exported('error'),
  'export.disk-full': exported('error'),
  'export.flush-failed': exported('error'),
  'export.reopened': exported('warning'),

  'attachment.added': attachment('info'),
  'attachment.removed': attachment('info'),
  'attachment.expected': attachment('info'),
  'attachment.hand-over-sent': attachment('warning'),
  'attachment.moved': attachment('info'),
  'attachment.grown': attachment('info'),
  'attachment.waiting': attachment('warning'),
  'attachment.failed': attachment('error'),
  'job.started': attachment('info'),
  'job.paused': attachment('info'),
  'job.resumed': attachment('info'),
  'job.ended': attachment('info'),
  'write-log.sent': attachment('warning'),
  'write-log.trouble': attachment('warning'),
  'vmm.connected': attachment('info'),
  'vmm.disconnected': attachment('info'),
  'session.opened': attachment('info'),
  'session.lost': attachment('warning'),
  'session.reopened': attachment('info'),
  'session.closed': attachment('info'),
} as const satisfies Record<string, EventTypeInfo>;

export type EventType = keyof typeof eventTypes;

export const eventEntrySchema = z.object({
  /** Grows with every change of the history, over restarts, too: an event that is counted once more gets a new one. */
  sequence: z.number().int().min(1),
  /** Stays the same when an event is counted once more. */
  id: z.number().int().min(1),
  /** ISO time; of the first one, where several were folded into this. */
  time: z.iso.datetime(),
  /** ISO time of the last one. */
  lastTime: z.iso.datetime(),
  /** How many times; 1 unless several were folded into this. */
  count: z.number().int().min(1),
  /** One of `eventTypes`; another release may know others. */
  type: z.string().max(64),
  severity: z.enum(severities),
  about: z.enum(subjectKinds),
  /** The name of that host or export, or `vm/name`. */
  subject: z.string().max(200),
  /** One line for people. */
  message: z.string().max(1000),
  /** Of the last one, for programs. */
  details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
});
export type EventEntry = Readonly<z.infer<typeof eventEntrySchema>>;

/** The answer without `watch`; the oldest first. */
export interface EventHistory {
  readonly events: readonly EventEntry[];
}
