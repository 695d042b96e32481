/** The text of `netbus status`: first what waits, then the host, its links, exports, attachments, jobs, sessions and rates. */
import type { AttachmentEntry, ExportEntry, ExportUser, LinkEntry, SessionEntry, Status, WaitEntry } from '../api/types.ts';
import { formatBytes, formatSince, formatTable, type Style } from '../lib/format.ts';
import { jobTable } from './job-text.ts';
import { exportState } from './ls.ts';
import { holdTime, perSecond, quantiles, shortTime, sinceWhen, span } from './words.ts';

/** What a daemon of an earlier release, which runs until it is restarted, may leave out of its answer. */
function complete(answer: Status): Status {
  const time = new Date().toISOString();
  return { ...{ time, links: [], exports: [], attachments: [], sessions: [], jobs: [], waits: [], warnings: [] }, ...answer };
}

/** Times are compared with the daemon's own clock, which is the answer's. */
export function describeStatus(answer: Status, style: Style): string {
  const status = complete(answer);
  const nowMs = Date.parse(status.time);
  const host = `${style.bold(status.host)} of cluster ${status.cluster}, at ${status.address}
netbus ${status.release}, pid ${status.pid}, up ${formatSince(status.startedAt, nowMs)}, certificate until ${status.certificateExpiresAt.slice(0, 10)}
`;
  const measured = status.attachments.filter(({ rates }) => rates !== undefined && isBusy(rates));
  const parts = [
    status.waits.map((wait) => `${style.warn(waitLine(wait, nowMs))}\n`).join(''),
    host,
    status.links.length > 0 ? linkTable(status.links, nowMs, style) : '',
    status.exports.length > 0 ? exportTable(status.exports, nowMs, style) : '',
    status.attachments.length > 0 ? attachmentTable(status.attachments, nowMs, style) : '',
    status.jobs.length > 0 ? jobTable(status.jobs, style, nowMs) : '',
    status.sessions.length > 0 ? sessionTable(status.sessions, nowMs, style) : '',
    measured.length > 0 ? rateTable(measured, style) : '',
  ];
  return parts.filter((part) => part !== '').join('\n');
}

/** `web/data waits for m1 since 14:03:12 (35 s): m1 refused the connection`. */
function waitLine({ about, subject, waitsFor, since, reason, otherwise, otherwiseAt }: WaitEntry, nowMs: number): string {
  const what =
    otherwise === undefined ? '' : `; otherwise ${otherwise}${otherwiseAt ? ` at ${shortTime(otherwiseAt, nowMs)}` : ''}`;
  const when = `since ${sinceWhen(since, nowMs)}${what}${reason === undefined ? '' : `: ${reason}`}`;
  switch (about) {
    case 'attachment':
      return `${subject} waits for ${waitsFor} ${when}`;
    case 'export':
      return `export ${subject} waits for ${waitsFor} ${when}`;
    case 'host':
      return `${subject} is down ${when}`;
    case 'job':
      return `job ${subject} waits for ${waitsFor} ${when}`;
  }
}

function linkTable(links: readonly LinkEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['HOST', 'ADDRESS', 'LINK', 'SINCE', 'ROUND TRIP', 'LAST SEEN', 'REASON'],
    links.map((link) => [
      style.bold(link.host),
      link.address,
      linkState(link.state, style),
      sinceWhen(link.since, nowMs),
      link.rttMs === undefined ? '' : `${Number(link.rttMs.toPrecision(2))} ms`,
      link.state === 'up' || link.lastSeen === undefined ? '' : `${span(link.lastSeen, nowMs)} ago`,
      link.reason ?? '',
    ]),
    style,
  );
}

function exportTable(exports: readonly ExportEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['EXPORT', 'DISK', 'SIZE', 'ACCESS', 'STATE', 'SINCE', 'ENGINE', 'ALLOWED', 'USED BY', 'REASON'],
    exports.map((entry) => [
      style.bold(entry.name),
      entry.device,
      formatBytes(entry.capacityBytes),
      entry.readOnly ? 'read-only' : 'read-write',
      exportState(entry.state, style),
      shortTime(entry.since, nowMs),
      String(entry.backend.engine ?? ''),
      entry.allow.join(','),
      entry.attachments.map(userText).join(' '),
      entry.reason ?? '',
    ]),
    style,
  );
}

function userText({ host, vm, name, active, mark, state }: ExportUser): string {
  const note = mark !== undefined ? ` (${state})` : active ? '' : ' (idle)';
  return `${host}:${vm}/${name}${note}`;
}

function attachmentTable(attachments: readonly AttachmentEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['ATTACHMENT', 'DEVICE', 'SIZE', 'ACCESS', 'STATE', 'SINCE', 'VM', 'IN FLIGHT', 'HOLD', 'WRITE LOG', 'SOCKET', 'REASON'],
    attachments.map((entry) => [
      style.bold(`${entry.vm}/${entry.name}`),
      entry.device,
      formatBytes(entry.capacityBytes),
      entry.readOnly ? 'read-only' : 'read-write',
      stateColour(entry.state, style),
      sinceWhen(entry.since, nowMs),
      entry.connected ? 'connected' : 'away',
      String(entry.inFlight),
      holdTime(entry.holdMs),
      logUse(entry.writeLog, nowMs),
      entry.socket,
      entry.reason ?? '',
    ]),
    style,
  );
}

/** `12 MiB of 256 MiB, the oldest 3 s ago, 14 flushes`. */
function logUse(writeLog: AttachmentEntry['writeLog'], nowMs: number): string {
  if (writeLog === undefined) return '';
  const { state, usedBytes, boundBytes, oldestUnflushed, backgroundFlushes, reason } = writeLog;
  if (boundBytes === 0) return `none: ${reason}`;
  const oldest = oldestUnflushed === undefined ? '' : `, the oldest ${span(oldestUnflushed, nowMs)} ago`;
  const flushes = backgroundFlushes === 0 ? '' : `, ${backgroundFlushes} flushes`;
  const trouble = reason === undefined ? '' : `; ${reason}`;
  return `${formatBytes(usedBytes)} of ${formatBytes(boundBytes)}${state === 'logging' ? '' : ` (${state})`}${oldest}${flushes}${trouble}`;
}

function sessionTable(sessions: readonly SessionEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['SESSION', 'DEVICE', 'THIS HOST', 'PEER', 'STATE', 'SINCE', 'EPOCH', 'IN FLIGHT'],
    sessions.map((session) => [
      style.bold(session.attachment),
      session.device,
      session.role === 'vm' ? 'has the VM' : 'has the device',
      session.peer,
      stateColour(session.state, style),
      sinceWhen(session.since, nowMs),
      session.epoch === undefined ? '' : String(session.epoch),
      String(session.inFlight),
    ]),
    style,
  );
}

/** Of those that do something. */
function rateTable(attachments: readonly AttachmentEntry[], style: Style): string {
  return formatTable(
    ['RATES', 'OVER', 'READS', 'P50 / P99', 'WRITES', 'P50 / P99', 'OTHERS', 'ERRORS'],
    attachments.map(({ vm, name, rates }) => {
      const { seconds, read, write, other } = rates!;
      const errors = read.errorsPerSecond + write.errorsPerSecond + other.errorsPerSecond;
      return [
        style.bold(`${vm}/${name}`),
        `${Math.round(seconds)} s`,
        perSecond(read.requestsPerSecond, read.bytesPerSecond),
        quantiles(read),
        perSecond(write.requestsPerSecond, write.bytesPerSecond),
        quantiles(write),
        perSecond(other.requestsPerSecond),
        errors === 0 ? '' : style.bad(`${errors}/s`),
      ];
    }),
    style,
  );
}

function isBusy({ read, write, other }: NonNullable<AttachmentEntry['rates']>): boolean {
  return read.requestsPerSecond + write.requestsPerSecond + other.requestsPerSecond > 0;
}

function linkState(state: LinkEntry['state'], style: Style): string {
  switch (state) {
    case 'up':
      return style.good(state);
    case 'idle':
      return state;
    case 'connecting':
      return style.warn(state);
    case 'down':
      return style.bad(state);
  }
}

/** Of an attachment or a session. */
function stateColour(state: AttachmentEntry['state'] | SessionEntry['state'], style: Style): string {
  switch (state) {
    case 'active':
      return style.good(state);
    case 'connecting':
      return style.warn(state);
    case 'failed':
      return style.bad(state);
    default:
      return state;
  }
}
