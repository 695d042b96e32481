/**
 * The member list: which hosts are in the cluster, where, and which were evicted. It is signed by the cluster's issuing key, so that any host may hand it
 * on and none can change it. Lists are ordered by their serial alone, never by a clock.
 */
import type { IssuedIdentity } from './identity-issue.ts';

export const MEMBERS_MAX = 1024;
/** Of a signed list: it goes through one CALL of 1 MiB, as a text in JSON. */
export const MEMBER_LIST_BYTES_MAX = 960 * 1024;

export interface MemberEntry {
  readonly host: string;
  /** HOST:PORT, as `formatAddress` writes it. */
  readonly address: string;
  readonly state: 'member' | 'evicted';
  /** Since when it is in that state: ISO 8601. */
  readonly since: string;
  /** Which certificates are of this membership: see admission.ts. Of an evicted host: those that are refused. */
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

/** A list that was verified (or just signed), with the bytes to hand on: ASCII text. */
export interface SignedList {
  readonly list: MemberList;
  readonly bytes: Uint8Array;
}

/** The first list of a cluster: its issuer alone. `address` is HOST or HOST:PORT; `now` in milliseconds since 1970. Throws `usage`. */
export function createMemberList(options: {
  cluster: string;
  host: string;
  address: string;
  admission: string;
  now: number;
}): MemberList {
  throw new Error(`not yet ${options.cluster}`);
}

/** Puts a host in. Throws `in_use` where it is a member already (an evicted one may come back), `limit` where the list is full, `usage` for a bad name or address. */
export function addMember(
  list: MemberList,
  options: { host: string; address: string; admission: string; now: number },
): MemberList {
  throw new Error(`not yet ${list} ${options}`);
}

/** Puts a host out. Throws `not_found` where it is not a member, `usage` for the issuer itself. */
export function evictMember(list: MemberList, options: { host: string; now: number }): MemberList {
  throw new Error(`not yet ${list} ${options}`);
}

/** `issuing`: certificate and key of the issuing CA. */
export function signMemberList(list: MemberList, issuing: IssuedIdentity): SignedList {
  throw new Error(`not yet ${list} ${issuing}`);
}

/**
 * The list in `bytes`. `ca` is the root's certificate (PEM); `now` in milliseconds since 1970, undefined to leave dates unchecked (a list that was
 * checked once is good for as long as no newer one is known). Throws `denied` with what is wrong.
 */
export function verifyMemberList(bytes: Uint8Array, ca: string, cluster: string, now: number | undefined): SignedList {
  throw new Error(`not yet ${bytes} ${ca} ${cluster} ${now}`);
}
