/** Who is at the other end, and what it may have, by what TLS alone said: docs/protocol.md, 1. */
import type { X509Certificate } from 'node:crypto';
import type { Hello } from '../protocols/netbus/messages.ts';

export type Standing =
  /** May do everything that its name may. */
  | 'member'
  /** A valid certificate of the cluster, and a name that the member list does not have: it may know a newer list, and that is all that it may tell. */
  | 'unknown'
  /** No certificate: it may ask to join. */
  | 'anonymous';

export interface Peer {
  readonly standing: Standing;
  /** The name in its certificate; for people where there is none. */
  readonly host: string;
  /** Undefined where there is none. */
  readonly certificate: X509Certificate | undefined;
}

/** What is asked of a certificate once its chain and dates were checked. */
export interface PeerCertificate {
  /** Hexadecimal. */
  readonly serialNumber: string;
}

/** What a peer without a certificate is called. */
export const ANONYMOUS_HOST = 'a host without a certificate';

/** Why a peer of this standing may not have a connection for this purpose; undefined where it may. */
export function whyNotFor(peer: Peer, purpose: Hello['purpose'], host: string): string | undefined {
  switch (peer.standing) {
    case 'member':
      return purpose === 'join' ? `host ${peer.host} is a member already` : undefined;
    case 'unknown':
      if (purpose === 'control') return undefined;
      return `host ${peer.host} is not in the member list of ${host}, which may be an old one: see "netbus members" there`;
    case 'anonymous':
      return purpose === 'join' ? undefined : 'no certificate was presented';
  }
}
