/**
 * The issuer: what only the host with the issuing key can do. Each act changes the member list (signed, stored, told to the directory's listeners)
 * before it answers.
 */
import type { Clock } from '../lib/clock.ts';
import type { CertificateFacts } from './directory.ts';
import type { IssuedIdentity } from './identity-issue.ts';
import type { Invitation, InvitationStore } from './invitations.ts';
import type { SignedDirectory } from './signed-directory.ts';

export interface IssuerOptions {
  readonly cluster: string;
  /** The root's certificate, PEM. */
  readonly ca: string;
  readonly issuing: IssuedIdentity;
  readonly directory: SignedDirectory;
  readonly invitations: InvitationStore;
  readonly clock: Clock;
}

/** What a host gets when it joins: everything that it needs, beside its own key. */
export interface Admission {
  /** PEM: leaf and issuing certificate. */
  readonly certificate: string;
  /** The root's certificate, PEM: the token has its fingerprint. */
  readonly ca: string;
  /** The signed member list, with the new host in it. */
  readonly list: Uint8Array;
}

export class Issuer {
  constructor(options: IssuerOptions) {
    throw new Error(`not yet ${options}`);
  }

  /** A token for `host`. Throws `in_use` where it is a member (evict it first), `limit`, `usage`. */
  async invite(host: string): Promise<Invitation & { token: string }> {
    throw new Error(`not yet ${host}`);
  }

  /**
   * Lets the invited host in: checks the request, uses the invitation up, issues the certificate, signs the list. `address` is where others reach the new
   * host: HOST or HOST:PORT. Throws `denied`, `in_use`, `usage`, `device`.
   */
  async join(options: { secret: Uint8Array; host: string; address: string; request: string }): Promise<Admission> {
    throw new Error(`not yet ${options}`);
  }

  /** A new certificate (leaf and issuing, PEM) for the member that asks; `certificate` is the one that it has shown. Throws `denied`. */
  async renew(host: string, certificate: CertificateFacts, request: string): Promise<string> {
    throw new Error(`not yet ${host} ${certificate} ${request}`);
  }

  /** Throws `not_found` where it is not a member, `usage` for this host itself. */
  async evict(host: string): Promise<void> {
    throw new Error(`not yet ${host}`);
  }
}
