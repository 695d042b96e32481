/** `netbus members`: the directory and this host's links, as one list. */
import type { MemberStatus, Members } from '../api/types.ts';
import type { LinkStatus } from '../bus/outgoing-link.ts';
import type { Directory } from '../directory/directory.ts';
import { formatAddress } from '../lib/address.ts';

export interface MembersViewOptions {
  /** This one. */
  readonly host: string;
  readonly cluster: string;
  readonly directory: Directory;
  /** By `peer`; more than are asked for do no harm. */
  readonly links: readonly LinkStatus[];
}

/** Those that are in, by name, and then those that were evicted. */
export function describeMembers({ host, cluster, directory, links }: MembersViewOptions): Members {
  const signed = directory.list()?.list;
  const byPeer = new Map(links.filter(({ peer }) => peer !== host).map((link) => [link.peer, link]));
  const members = [...directory.members().values()].map(({ host: name, address, since }): MemberStatus => {
    const member = { host: name, address: formatAddress(address), state: 'member' as const, issuer: name === signed?.issuer };
    return { ...member, ...(since !== undefined && { since: new Date(since).toISOString() }), ...linkOf(byPeer.get(name)) };
  });
  const evicted = (signed?.members ?? [])
    .filter(({ state }) => state === 'evicted')
    .map(({ host: name, address, since }): MemberStatus => ({ host: name, address, state: 'evicted', issuer: false, since }));
  return { cluster, ...(signed && { serial: signed.serial, issuer: signed.issuer }), members: [...members, ...evicted] };
}

function linkOf(link: LinkStatus | undefined): Pick<MemberStatus, 'link' | 'version' | 'lastSeen' | 'reason'> {
  if (link === undefined) return {};
  const { state, release, lastSeen, error } = link;
  return {
    link: state,
    ...(release !== undefined && { version: release }),
    ...(lastSeen !== undefined && { lastSeen: new Date(lastSeen).toISOString() }),
    ...(error !== undefined && { reason: error }),
  };
}
