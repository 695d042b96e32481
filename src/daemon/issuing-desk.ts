/**
 * What people and other hosts ask of the host that issues certificates: to invite, let in, renew, evict, and to write down another address. On any other
 * host each of them is refused, with the name of the one to ask.
 */
import { X509Certificate } from 'node:crypto';
import type { AddressResult, EvictResult, Invitation } from '../api/types.ts';
import type { JoinHost, RedeemRequest } from '../bus/join-desk.ts';
import { NetbusError } from '../device/errors.ts';
import type { CertificateFacts, Directory } from '../directory/directory.ts';
import { checkedAddress } from '../directory/names.ts';
import { decodeToken, encodeToken } from '../directory/token.ts';
import { formatAddress } from '../lib/address.ts';
import type { Log } from '../lib/log.ts';
import { listText } from '../protocols/netbus/member-messages.ts';
import type { EventRecorder } from './events.ts';
import type { IssuingHost } from './issuing-host.ts';

export interface IssuingDeskOptions {
  /** This one. */
  readonly host: string;
  readonly directory: Directory;
  /** `openIssuingHost`. */
  readonly open: () => Promise<{ issuing?: IssuingHost; problem?: string }>;
  /** Carries a change of the list to the others. `left`: a host that it has put out, whose connections end first. */
  readonly announce: (left?: string) => Promise<Announced>;
  readonly log: Log;
  readonly events: EventRecorder;
}

/** The other members: those that have the change, and those that did not answer in time. */
export interface Announced {
  readonly told: string[];
  readonly untold: string[];
}

export class IssuingDesk {
  readonly #options: IssuingDeskOptions;
  #issuing: IssuingHost | undefined;
  #problem: string | undefined;

  constructor(options: IssuingDeskOptions) {
    this.#options = options;
  }

  /** Takes the issuing key, where this host is the one that has it by the member list: at the start, and when a list that was lost is back. */
  async open(): Promise<void> {
    const { issuing, problem } = await this.#options.open();
    this.#issuing = issuing;
    this.#problem = problem;
  }

  /** Why this host cannot issue, although it should, for `status`. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** For hosts that want to join. */
  get joinHost(): JoinHost {
    return {
      certificates: () => {
        const issuing = this.#issuer('lets hosts join');
        if (!issuing.expectsSomebody) {
          throw new NetbusError('denied', 'no invitation was made here: ask for one, "netbus invite HOST"');
        }
        return issuing.certificates;
      },
      redeem: (request: RedeemRequest) => this.#redeem(request),
    };
  }

  /** `address`: where the new host reaches this one, HOST or HOST:PORT, in place of the one in the member list. */
  async invite(host: string, address: string | undefined): Promise<Invitation> {
    const reached = address === undefined ? undefined : checkedAddress(address);
    const { token: made, expiresAt } = await this.#issuer('invites').invite(host);
    const token = reached === undefined ? made : encodeToken({ ...decodeToken(made), address: reached });
    this.#options.log.info({ member: host, expiresAt: new Date(expiresAt).toISOString() }, `host ${host} was invited`);
    this.#options.events.record({ type: 'member.invited', subject: host, message: `host ${host} was invited` });
    return { host, token, expiresAt: new Date(expiresAt).toISOString(), command: `netbus join ${token}` };
  }

  /** Throws as `evict` would, and changes nothing. */
  checkEvict(host: string): void {
    this.#issuer('evicts').checkEvict(host);
  }

  /** Resolves when it holds on this host, and was told to all that answer in time. */
  async evict(host: string): Promise<EvictResult> {
    const { log, announce } = this.#options;
    await this.#issuer('evicts').evict(host);
    log.warn({ member: host }, `host ${host} was evicted`);
    return { host, ...(await announce(host)) };
  }

  /** A member is reached at `given` (HOST or HOST:PORT) from now on. Resolves as `evict`. */
  async setAddress(host: string, given: string): Promise<AddressResult> {
    const { log, announce, directory } = this.#options;
    const issuing = this.#issuer('writes down addresses');
    const address = checkedAddress(given);
    const before = directory.members().get(host);
    await issuing.move(host, address);
    // A host that is no member was refused.
    const previous = formatAddress(before!.address);
    if (address !== previous) log.info({ member: host, address, previous }, `host ${host} has another address`);
    return { host, address, previous, ...(await announce()) };
  }

  /** A new certificate for the member that shows `certificate`. */
  async renew(host: string, certificate: CertificateFacts, request: string): Promise<string> {
    return this.#issuer('renews certificates').renew(host, certificate, request);
  }

  /** This host's own; undefined where it is not the one that issues. */
  async renewOwn(certificate: string, request: string): Promise<string | undefined> {
    return this.#issuing?.renew(this.#options.host, new X509Certificate(certificate), request);
  }

  async #redeem({ secret, host, request, address }: RedeemRequest): Promise<{ certificate: string; list: string }> {
    const admission = await this.#issuer('lets hosts join').join({ secret, host, address: checkedAddress(address), request });
    return { certificate: admission.certificate, list: listText(admission.list) };
  }

  #issuer(what: string): IssuingHost {
    const { host, directory } = this.#options;
    if (this.#issuing !== undefined) return this.#issuing;
    if (!directory.signed) {
      throw new NetbusError(
        'usage',
        `the members of this cluster are the hosts in the configs: change them there, and restart the daemons`,
      );
    }
    const issuer = directory.list()?.list.issuer;
    if (issuer === undefined) throw new NetbusError('config', `host ${host} has lost its member list: see "netbus status"`);
    const why =
      issuer === host
        ? `its issuing key is missing: see the log of this daemon`
        : `do it on host ${issuer}, which has the issuing key`;
    throw new NetbusError('denied', `host ${host} is not the one that ${what}: ${why}`);
  }
}
