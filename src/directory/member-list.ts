/**
 * The member list: which hosts are in the cluster, where, and which were evicted. These are its values and its changes; member-list-signature.ts has
 * its bytes. Lists are ordered by their serial alone, never by a clock.
 */
import { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { isNetbusName } from '../protocols/netbus/names.ts';
import { isAdmission } from './admission.ts';
import { checkedAddress, checkName, isCanonicalAddress } from './names.ts';

/** Evicted ones count, but give way to new ones. */
export const MEMBERS_MAX = 1024;

export interface MemberEntry {
  readonly host: string;
  /** HOST:PORT, as `formatAddress` writes it. */
  readonly address: string;
  readonly state: 'member' | 'evicted';
  /** Since when it is in that state: ISO 8601. */
  readonly since: string;
  /** Which certificates are of this membership: admission.ts. */
  readonly admission: string;
}

export interface MemberList {
  readonly version: 1;
  readonly cluster: string;
  /** From 1; one more with each change. */
  readonly serial: number;
  /** ISO 8601; for people. */
  readonly issuedAt: string;
  /** The member that has the issuing key: the one to ask for invitations, renewals and evictions. */
  readonly issuer: string;
  /** By name, each name once. */
  readonly members: readonly MemberEntry[];
}

/** A host that comes in. */
export interface NewMember {
  readonly host: string;
  /** HOST or HOST:PORT. */
  readonly address: string;
  /** From `newAdmission`: never one that was used before. */
  readonly admission: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** The first list of a cluster: its issuer alone. Throws `usage`. */
export function createMemberList(cluster: string, issuer: NewMember): MemberList {
  checkName('cluster', cluster);
  const issuedAt = isoTime(issuer.now);
  return { version: 1, cluster, serial: 1, issuedAt, issuer: issuer.host, members: [newEntry(issuer)] };
}

/**
 * Puts a host in. Throws `in_use` where its name or address is a member's (an evicted host may come back), `limit` where the list is full of members, `usage` for
 * a bad name or address.
 */
export function addMember(list: MemberList, member: NewMember): MemberList {
  const entry = newEntry(member);
  checkNotMember(list, member.host);
  checkAddressFree(list, entry);
  const others = list.members.filter(({ host }) => host !== entry.host);
  return changed(list, member.now, [...makeRoom(others), entry]);
}

/** Puts a host out. Throws `not_found` where it is not a member, `usage` for the issuer itself. */
export function evictMember(list: MemberList, { host, now }: { host: string; now: number }): MemberList {
  const entry = memberEntry(list, host);
  if (host === list.issuer) {
    const reason = 'it has the issuing key, which invites, renews and evicts the others';
    throw new NetbusError('usage', `host ${host} cannot be evicted: ${reason}`);
  }
  return replaced(list, { ...entry, state: 'evicted', since: isoTime(now) }, now);
}

/** A member is reached elsewhere from now on; the list itself where that is its address already. Throws `not_found`, `in_use`, `usage`. */
export function moveMember(
  list: MemberList,
  { host, address, now }: { host: string; address: string; now: number },
): MemberList {
  const entry = { ...memberEntry(list, host), address: checkedAddress(address) };
  if (entry.address === memberEntry(list, host).address) return list;
  checkAddressFree(list, entry);
  return replaced(list, entry, now);
}

/** Throws `in_use` where `host` is a member. */
export function checkNotMember(list: MemberList, host: string): void {
  const entry = list.members.find((other) => other.host === host);
  if (entry?.state !== 'member') return;
  if (host === list.issuer) {
    const advice = 'give the name of the host that is to join';
    throw new NetbusError('in_use', `host ${host} is this host itself, which invites: ${advice}`);
  }
  const advice = `choose another name, or evict that one first: netbus evict ${host}`;
  throw new NetbusError('in_use', `host ${host} is a member of ${list.cluster} since ${entry.since.slice(0, 10)}: ${advice}`);
}

function memberEntry(list: MemberList, host: string): MemberEntry {
  const entry = list.members.find((other) => other.host === host);
  if (entry?.state === 'member') return entry;
  const reason = entry === undefined ? 'not a member' : `no longer a member: it was evicted on ${entry.since.slice(0, 10)}`;
  throw new NetbusError('not_found', `host ${host} is ${reason} of cluster ${list.cluster}: see "netbus members"`);
}

function newEntry({ host, address, admission, now }: NewMember): MemberEntry {
  checkName('host', host);
  return { host, address: checkedAddress(address), state: 'member', since: isoTime(now), admission };
}

function checkAddressFree(list: MemberList, { host, address }: MemberEntry): void {
  const other = list.members.find((entry) => entry.address === address && entry.host !== host && entry.state === 'member');
  if (other === undefined) return;
  throw new NetbusError('in_use', `host ${other.host} has the address ${address}: each host has its own`);
}

/** Those evicted longest ago are forgotten first. That lets none of them in: who is not in the list is as much refused. */
function makeRoom(members: readonly MemberEntry[]): readonly MemberEntry[] {
  if (members.length < MEMBERS_MAX) return members;
  const [oldest] = members.filter(({ state }) => state === 'evicted').sort((a, b) => compare(a.since, b.since));
  if (oldest === undefined) throw new NetbusError('limit', `a cluster has at most ${MEMBERS_MAX} hosts: evict one first`);
  return members.filter((entry) => entry !== oldest);
}

function replaced(list: MemberList, entry: MemberEntry, now: number): MemberList {
  return changed(list, now, [...list.members.filter(({ host }) => host !== entry.host), entry]);
}

function changed(list: MemberList, now: number, members: readonly MemberEntry[]): MemberList {
  const sorted = [...members].sort((a, b) => compare(a.host, b.host));
  return { ...list, serial: list.serial + 1, issuedAt: isoTime(now), members: sorted };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function isoTime(now: number): string {
  return new Date(now).toISOString();
}

const nameSchema = z.string().refine(isNetbusName, { message: 'is not a name' });
const timeSchema = z.string().refine(isIsoTime, { message: 'is not a time' });

const entrySchema = z.strictObject({
  host: nameSchema,
  address: z.string().refine(isCanonicalAddress, { message: 'is not an address' }),
  state: z.enum(['member', 'evicted']),
  since: timeSchema,
  admission: z.string().refine(isAdmission, { message: 'is not an admission' }),
});

/** What enters as JSON. */
export const memberListSchema = z
  .strictObject({
    version: z.literal(1),
    cluster: nameSchema,
    serial: z.int().min(1),
    issuedAt: timeSchema,
    issuer: nameSchema,
    members: z.array(entrySchema).min(1).max(MEMBERS_MAX),
  })
  .refine(({ members }) => members.every(({ host }, i) => i === 0 || members[i - 1].host < host), {
    message: 'the members are not in the order of their names, each once',
  })
  .refine(({ issuer, members }) => members.some(({ host, state }) => host === issuer && state === 'member'), {
    message: 'the issuer is not a member',
  });

function isIsoTime(text: string): boolean {
  const time = Date.parse(text);
  return Number.isFinite(time) && isoTime(time) === text;
}
