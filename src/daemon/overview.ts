/** What `netbus status` shows beside the lists: sessions, rates, and what waits for what. Put together when somebody asks. */
import type { JobEntry } from '../api/jobs.ts';
import type { AttachmentEntry, ExportEntry, LinkEntry, SessionEntry, Status, WaitEntry } from '../api/types.ts';
import type { ExportedSessionInfo } from '../bus/exporter.ts';
import type { Clock } from '../lib/clock.ts';
import { formatBytes } from '../lib/format.ts';
import type { Attachment } from './attachment.ts';
import type { Rates } from './rates.ts';
import type { AttachmentRecord } from './records.ts';

export interface OverviewOptions {
  /** This host. */
  readonly host: string;
  readonly clock: Clock;
  readonly attachments: () => Iterable<Attachment>;
  readonly rates: Rates<Attachment>;
  /** Sessions of other hosts with the exports of this one. */
  readonly sessions: () => readonly ExportedSessionInfo[];
  /** The record of an attachment to an export of this host. */
  readonly record: (attachment: string) => AttachmentRecord | undefined;
  /** All that there are. */
  readonly jobs: () => readonly JobEntry[];
  /** Why events are not stored; undefined = they are. */
  readonly eventsNotStored: () => string | undefined;
}

type Base = Omit<Status, 'time' | 'sessions' | 'jobs' | 'waits' | 'attachments'>;

export class Overview {
  readonly #options: OverviewOptions;

  constructor(options: OverviewOptions) {
    this.#options = options;
  }

  /** `base` is what needs no putting together. */
  complete(base: Base): Status {
    const { clock, eventsNotStored } = this.#options;
    const attachments = this.#attachments();
    const jobs = this.#options.jobs().filter(({ state }) => state === 'running' || state === 'paused');
    const reason = eventsNotStored();
    const warnings = reason === undefined ? [] : [`events are not stored and end with this daemon: ${reason}`];
    return {
      ...base,
      time: new Date(clock.wallTime()).toISOString(),
      attachments,
      sessions: this.#sessions(attachments),
      jobs,
      waits: findWaits(base.host, base.links, base.exports, attachments, jobs),
      warnings: [...base.warnings, ...warnings],
    };
  }

  #attachments(): AttachmentEntry[] {
    return [...this.#options.attachments()].map((attachment) => {
      const rates = this.#options.rates.of(attachment);
      const entry = attachment.describe();
      return rates === undefined ? entry : { ...entry, rates };
    });
  }

  #sessions(attachments: readonly AttachmentEntry[]): SessionEntry[] {
    const own = attachments.flatMap((entry): SessionEntry[] => {
      const { state, device, since, epoch, inFlight } = entry;
      if (state === 'idle' || state === 'closed' || state === 'moved') return [];
      const [peer] = device.split('/');
      const base = { role: 'vm', peer, device, attachment: `${entry.vm}/${entry.name}`, state, since, inFlight } as const;
      return [epoch === undefined ? base : { ...base, epoch }];
    });
    const { host, sessions, record } = this.#options;
    const others = sessions().flatMap(({ peer, attachment, state, since, epoch, inFlight }): SessionEntry[] => {
      const known = record(attachment);
      // Over, and not gone yet; or its attachment was just removed.
      if (state === 'over' || known === undefined) return [];
      const names = { device: `${host}/${known.export}`, attachment: `${known.vm}/${known.name}` };
      const base = { role: 'device', peer, ...names, state, since: new Date(since).toISOString(), inFlight } as const;
      return [epoch === undefined ? base : { ...base, epoch }];
    });
    return [...own, ...others];
  }
}

/** What waits for what, the longest wait first. */
export function findWaits(
  host: string,
  links: readonly LinkEntry[],
  exports: readonly ExportEntry[],
  attachments: readonly AttachmentEntry[],
  jobs: readonly JobEntry[] = [],
): WaitEntry[] {
  const waits: WaitEntry[] = [];
  const add = (
    about: WaitEntry['about'],
    subject: string,
    waitsFor: string,
    since: string,
    reason: string | undefined,
    more: Pick<WaitEntry, 'otherwise' | 'otherwiseAt'> = {},
  ) => waits.push({ about, subject, waitsFor, since, ...(reason !== undefined && { reason }), ...more });
  for (const { vm, name, device, state, since, reason, connected, errorsAt, writeLog } of attachments) {
    const subject = `${vm}/${name}`;
    const [deviceHost, exported] = device.split('/');
    if (state === 'active' && writeLog?.state === 'full') {
      add(
        'attachment',
        subject,
        `a flush on ${deviceHost}, its write log is full`,
        writeLog.oldestUnflushed ?? since,
        writeLog.reason,
      );
    }
    if (state === 'connecting' && writeLog?.state === 'sending' && reason === undefined) {
      const sent = `${formatBytes(writeLog.sentBytes ?? 0)} of ${formatBytes(writeLog.usedBytes)} are sent`;
      add('attachment', subject, `${deviceHost} to take its write log again`, since, sent);
    } else if (state === 'connecting') {
      add('attachment', subject, deviceHost === host ? `export ${exported}` : deviceHost, since, reason, {
        ...(errorsAt !== undefined && { otherwise: 'its guest gets errors', otherwiseAt: errorsAt }),
      });
    } else if (connected && state !== 'failed' && reason !== undefined) {
      // A ring that takes nothing more: only the guest's driver can make it a new one.
      add('attachment', subject, `a reset of VM ${vm}`, since, reason);
    }
  }
  for (const { name, state, since, reason, device } of exports) {
    if (state === 'waiting') add('export', name, `the lock of ${device}`, since, reason);
    if (state === 'failed') add('export', name, device, since, reason);
  }
  for (const { host: peer, state, since, reason } of links) {
    if (state === 'down') add('host', `the link with ${peer}`, peer, since, reason);
  }
  for (const { id, state, vm, name, from, to, createdAt, progress } of jobs) {
    if (state !== 'running' || progress?.reason === undefined) continue;
    const { phase, reason, waitingSince = createdAt } = progress;
    const what = from === undefined ? `${vm}/${name} to be ready for it` : phase === 'releasing' ? from : `${from} or ${to}`;
    add('job', id, what, waitingSince, reason);
  }
  return waits.sort((a, b) => Date.parse(a.since) - Date.parse(b.since));
}
