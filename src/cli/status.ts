/** `netbus status`: this host, its links, exports and attachments. */
import type { Command } from 'commander';
import type { AttachmentEntry, ExportEntry, LinkEntry, Status } from '../api/types.ts';
import { formatBytes, formatSince, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';
import { exportState } from './ls.ts';

export function addStatus(program: Command): void {
  program
    .command('status')
    .summary('show what this host does')
    .description("Shows this host's daemon, its links to other hosts, what it exports and what its VMs have attached.")
    .addHelpText('after', '\nExamples:\n  netbus status\n  netbus status --json | jq ".attachments[].state"\n')
    .action(async (_options: unknown, command: Command) => {
      const context = new Context(command);
      const status = await context.client.status();
      context.print(status, (style) => describe(status, Date.now(), style));
      context.warn(status.warnings);
    });
}

function describe(status: Status, nowMs: number, style: Style): string {
  const host = `${style.bold(status.host)} of cluster ${status.cluster}, at ${status.address}
netbus ${status.release}, pid ${status.pid}, up ${formatSince(status.startedAt, nowMs)}, certificate until ${status.certificateExpiresAt.slice(0, 10)}
`;
  const parts = [
    host,
    status.links.length > 0 ? linkTable(status.links, nowMs, style) : '',
    status.exports.length > 0 ? exportTable(status.exports, style) : '',
    status.attachments.length > 0 ? attachmentTable(status.attachments, nowMs, style) : '',
  ];
  return parts.filter((part) => part !== '').join('\n');
}

function linkTable(links: readonly LinkEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['HOST', 'ADDRESS', 'LINK', 'SINCE', 'REASON'],
    links.map((link) => [
      style.bold(link.host),
      link.address,
      linkState(link.state, style),
      formatSince(link.since, nowMs),
      link.reason ?? '',
    ]),
    style,
  );
}

function exportTable(exports: readonly ExportEntry[], style: Style): string {
  return formatTable(
    ['EXPORT', 'DISK', 'SIZE', 'ACCESS', 'STATE', 'ENGINE', 'ALLOWED', 'USED BY', 'REASON'],
    exports.map((entry) => [
      style.bold(entry.name),
      entry.device,
      formatBytes(entry.capacityBytes),
      entry.readOnly ? 'read-only' : 'read-write',
      exportState(entry.state, style),
      String(entry.backend.engine ?? ''),
      entry.allow.join(','),
      entry.attachments.map(({ host, vm, name, active }) => `${host}:${vm}/${name}${active ? '' : ' (idle)'}`).join(' '),
      entry.reason ?? '',
    ]),
    style,
  );
}

function attachmentTable(attachments: readonly AttachmentEntry[], nowMs: number, style: Style): string {
  return formatTable(
    ['ATTACHMENT', 'DEVICE', 'SIZE', 'ACCESS', 'STATE', 'SINCE', 'VM', 'IN FLIGHT', 'SOCKET', 'REASON'],
    attachments.map((entry) => [
      style.bold(`${entry.vm}/${entry.name}`),
      entry.device,
      formatBytes(entry.capacityBytes),
      entry.readOnly ? 'read-only' : 'read-write',
      attachmentState(entry.state, style),
      formatSince(entry.since, nowMs),
      entry.connected ? 'connected' : 'away',
      String(entry.inFlight),
      entry.socket,
      entry.reason ?? '',
    ]),
    style,
  );
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

function attachmentState(state: AttachmentEntry['state'], style: Style): string {
  switch (state) {
    case 'active':
      return style.good(state);
    case 'idle':
    case 'closed':
      return state;
    case 'connecting':
      return style.warn(state);
    case 'failed':
      return style.bad(state);
  }
}
