/**
 * Who is in the cluster, and where. The daemon asks a Directory and nothing else, so that another one (the config file, the signed
 * member list, one day etcd) can stand behind it.
 */
import type { Address } from '../lib/address.ts';
import type { SignedList } from './member-list-signature.ts';

/** A host that is in. */
export interface Member {
  readonly host: string;
  readonly address: Address;
  /** Milliseconds since 1970; undefined where the directory does not know. */
  readonly since: number | undefined;
}

/** What a directory wants to know of a certificate whose chain and dates were checked; an X509Certificate of Node is one. */
export interface CertificateFacts {
  /** Hexadecimal. */
  readonly serialNumber: string;
}

/** Names of hosts. A host that was evicted and joined again in between is in `left` and in `joined`. */
export interface DirectoryChange {
  readonly joined: readonly string[];
  /** Evicted, or no longer in the list: their links and sessions are to be ended. */
  readonly left: readonly string[];
  /** Members before and after, at another address now. */
  readonly moved: readonly string[];
}

export interface Directory {
  /** Members come and go by a signed list; false: they are those of the config. */
  readonly signed: boolean;
  /** Which host this one takes a list from while it has none, for people. */
  readonly trusted: string;
  /** All hosts that are in, this one among them, by name. A snapshot: a change makes a new map. */
  members(): ReadonlyMap<string, Member>;
  /** The signed list, to be handed on to other hosts; undefined where there is none (yet). */
  list(): SignedList | undefined;
  /**
   * A signed list that came from anywhere; `from` is the host that gave it, by its certificate, undefined for this one. `newer`: it holds from now on, is on stable storage, and the listeners were told; `known`: it is the one
   * that is there. Throws `denied` for one that is tampered with, foreign, older or contradicts the one that is there, `device` where it cannot be
   * stored (the old one then still holds), `usage` where this directory takes no lists.
   */
  accept(bytes: Uint8Array, from?: string): Promise<'newer' | 'known'>;
  /** Calls back after each change, once, in order. Returns what ends it. */
  onChange(listener: (change: DirectoryChange) => void): () => void;
  /**
   * Whether the host that a certificate names is in, and whether the certificate is one of its present membership. Undefined if so, else the reason, which
   * fits behind "…: ".
   */
  admits(host: string, certificate: CertificateFacts): string | undefined;
}
