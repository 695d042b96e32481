/** `netbus members`: who is in the cluster, as this host knows it. */
import type { Command } from 'commander';
import type { MemberStatus, Members } from '../api/types.ts';
import { formatSince, formatTable, type Style } from '../lib/format.ts';
import { Context } from './context.ts';

export function addMembers(program: Command): void {
  program
    .command('members')
    .summary('list the hosts of the cluster')
    .description('Lists the hosts of the cluster as this host knows them, with its link to each, and those that were evicted.')
    .addHelpText('after', '\nExamples:\n  netbus members\n  netbus members --json | jq -r ".members[].host"\n')
    .action(async (_options: unknown, command: Command) => {
      const context = new Context(command);
      const answer = await context.client.members();
      context.print(answer, (style) => describe(answer, Date.now(), style));
    });
}

function describe({ cluster, serial, issuer, members }: Members, nowMs: number, style: Style): string {
  const source = serial === undefined ? 'its hosts are those of the config' : `member list ${serial}, issued by ${issuer}`;
  const table = formatTable(
    ['HOST', 'ADDRESS', 'STATE', 'VERSION', 'LAST SEEN', 'LINK', 'REASON'],
    members.map((member) => [
      style.bold(member.host),
      member.address,
      stateText(member, style),
      member.version ?? '',
      lastSeen(member, nowMs),
      linkText(member, style),
      member.reason ?? '',
    ]),
    style,
  );
  return `cluster ${cluster}: ${source}\n\n${table}`;
}

function stateText({ state, issuer }: MemberStatus, style: Style): string {
  switch (state) {
    case 'member':
      return style.good(issuer ? 'issuer' : 'member');
    case 'evicted':
      return style.bad(state);
  }
}

function lastSeen({ link, lastSeen: time }: MemberStatus, nowMs: number): string {
  if (link === 'up') return 'now';
  return time === undefined ? '' : `${formatSince(time, nowMs)} ago`;
}

function linkText({ state, link }: MemberStatus, style: Style): string {
  switch (link) {
    case undefined:
      return state === 'member' ? 'this host' : '';
    case 'up':
      return style.good(link);
    case 'idle':
      return link;
    case 'connecting':
      return style.warn(link);
    case 'down':
      return style.bad(link);
    default:
      // A newer daemon may know more.
      return link;
  }
}
