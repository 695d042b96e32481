/**
 * The issuer: what only the host with the issuing key can do. Each act that changes the member list has it signed, stored and told to the directory's
 * listeners before it answers.
 */

import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import type { CertificateFacts } from './directory.ts';
import { type IssuedIdentity, issueForRequest } from './identity-issue.ts';
import { keyFingerprint } from './identity-request.ts';
import { alreadyUsed, type Invitation, type InvitationStore } from './invitations.ts';
import { addMember, checkNotMember, evictMember, type MemberList, moveMember } from './member-list.ts';
import { signMemberList } from './member-list-signature.ts';
import type { SignedDirectory } from './signed-directory.ts';
import { caFingerprint, encodeToken } from './token.ts';

export interface IssuerOptions {
  /** The root's certificate, PEM. */
  readonly ca: string;
  /** From `loadIssuing`. */
  readonly issuing: IssuedIdentity;
  /** With a list. */
  readonly directory: SignedDirectory;
  readonly invitations: InvitationStore;
  readonly clock: Clock;
}

/** What a host gets when it joins: everything that it needs, beside its own key. */
export interface JoinAnswer {
  /** PEM: leaf and issuing certificate. */
  readonly certificate: string;
  /** The root's certificate, PEM: the token has its fingerprint. */
  readonly ca: string;
  /** The signed member list, with the new host in it. */
  readonly list: Uint8Array;
}

export class Issuer {
  readonly #options: IssuerOptions;
  /** Changes of the list are made one after the other, each on top of the one before. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: IssuerOptions) {
    this.#options = options;
  }

  /** A token for `host`. Throws `in_use` where it is a member, `limit`, `usage` for a bad name, `device`. */
  async invite(host: string): Promise<Invitation & { token: string }> {
    const { ca, invitations } = this.#options;
    const list = this.#list;
    checkNotMember(list, host);
    const { secret, expiresAt } = await invitations.create(host);
    const address = list.members.find((entry) => entry.host === list.issuer)!.address;
    const { cluster, issuer } = list;
    const token = encodeToken({ cluster, host, issuer, address, caFingerprint: caFingerprint(ca), secret, expiresAt });
    return { host, expiresAt, token };
  }

  /**
   * Lets the invited host in, or throws: `denied` (invitation or request), `in_use` (name or address), `limit`, `usage` (address), `device`. Only what can no longer be refused
   * uses the invitation up, and the certificate is handed out after both that and the new list are on stable storage. The same host, with the same key, may
   * ask again until the invitation's end, where its answer was lost: it gets another certificate of the same membership.
   */
  join(options: { secret: Uint8Array; host: string; address: string; request: string }): Promise<JoinAnswer> {
    const { secret, host, address, request } = options;
    return this.#inTurn(async () => {
      const { ca, issuing, invitations, clock } = this.#options;
      // First of all: nobody without an invitation may make this host compute anything.
      const earlier = invitations.check(secret, host);
      const key = await keyFingerprint(request);
      if (earlier !== undefined && earlier.key !== key) throw alreadyUsed();
      const { admission } = earlier ?? { admission: newAdmission() };
      const { cluster, members } = this.#list;
      const issue = () => issueForRequest({ authority: issuing, request, cluster, host, admission, clock });
      const entry = members.find((member) => member.host === host);
      if (earlier !== undefined && entry?.admission === admission) {
        if (entry.state === 'evicted') throw alreadyUsed();
        return { certificate: await issue(), ca, list: this.#options.directory.list()!.bytes };
      }
      // Here, too, after a crash between the invitation's end and the list.
      const list = addMember(this.#list, { host, address, admission, now: clock.wallTime() });
      const certificate = await issue();
      if (earlier === undefined) await invitations.redeem(secret, host, { key, admission });
      return { certificate, ca, list: await this.#publish(list) };
    });
  }

  /**
   * A new certificate (leaf and issuing, PEM) for the member that asks. `certificate` is the one that its link has shown and `host` the name in it. Throws
   * `denied`.
   */
  async renew(host: string, certificate: CertificateFacts, request: string): Promise<string> {
    const { issuing, directory, clock } = this.#options;
    const refusal = directory.admits(host, certificate);
    if (refusal !== undefined) throw new NetbusError('denied', refusal);
    // `admits` found the member, and that the certificate is of this admission.
    const { cluster, members } = this.#list;
    const { admission } = members.find((entry) => entry.host === host)!;
    return issueForRequest({ authority: issuing, request, cluster, host, admission, clock });
  }

  /** A member is reached at `address` (HOST or HOST:PORT) from now on. Throws `not_found`, `in_use`, `usage`. */
  async move(host: string, address: string): Promise<void> {
    await this.#change((list, now) => moveMember(list, { host, address, now }));
  }

  /** Throws `not_found` where it is not a member, `usage` for the issuer itself. Changes nothing. */
  checkEvict(host: string): void {
    evictMember(this.#list, { host, now: this.#options.clock.wallTime() });
  }

  /** Throws as `checkEvict`, and `device`. */
  async evict(host: string): Promise<void> {
    const { invitations } = this.#options;
    await this.#change(
      (list, now) => evictMember(list, { host, now }),
      () => invitations.settle(host),
    );
  }

  get #list(): MemberList {
    const signed = this.#options.directory.list();
    if (signed !== undefined) return signed.list;
    throw new NetbusError(
      'config',
      'this host has no member list: copy it from another host of the cluster, then restart the daemon',
    );
  }

  async #change(change: (list: MemberList, now: number) => MemberList, first = async () => {}): Promise<void> {
    await this.#inTurn(async () => {
      const list = this.#list;
      const after = change(list, this.#options.clock.wallTime());
      if (after === list) return;
      await first();
      await this.#publish(after);
    });
  }

  async #publish(list: MemberList): Promise<Uint8Array> {
    const { issuing, directory } = this.#options;
    const { bytes } = signMemberList(list, issuing);
    await directory.accept(bytes);
    return bytes;
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }
}
