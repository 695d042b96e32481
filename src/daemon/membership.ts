/**
 * This host's part in the cluster's membership: it carries the member list to and from the others, acts at once on who came and who was evicted, and on
 * the issuing host it invites, lets in, renews and evicts.
 */
import { X509Certificate } from 'node:crypto';
import type { EvictResult, Invitation, Members } from '../api/types.ts';
import type { Bus } from '../bus/bus.ts';
import type { ControlHandlers, JsonObject } from '../bus/control-link.ts';
import type { JoinHost, RedeemRequest } from '../bus/join-desk.ts';
import { MemberSpread } from '../bus/member-spread.ts';
import { NetbusError } from '../device/errors.ts';
import type { Directory, DirectoryChange } from '../directory/directory.ts';
import type { MemberEntry } from '../directory/member-list.ts';
import { decodeToken, encodeToken } from '../directory/token.ts';
import { formatAddress, parseAddress } from '../lib/address.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { listText, renewParams, renewValue } from '../protocols/netbus/member-messages.ts';
import { checkMessage } from '../protocols/netbus/messages.ts';
import type { EventRecorder } from './events.ts';
import type { Exports } from './exports.ts';
import type { IssuingHost } from './issuing-host.ts';
import { describeMembers } from './members-view.ts';
import type { AttachmentRecord, VirtualDeviceRecord } from './records.ts';

/** An eviction is told to the others for so long before it is answered; those that have not heard of it then hear of it when they are reached. */
const TELL_MS_MAX = 3_000;
/** A fence whose records could not be stored is tried again. */
const FENCE_RETRY_MS = 10_000;

export interface MembershipOptions {
  readonly host: string;
  readonly cluster: string;
  readonly directory: Directory;
  /** On the host that issues certificates. */
  readonly issuing: IssuingHost | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

/** What acts on members; made after this, because it needs what this answers to other hosts. */
interface Parts {
  readonly bus: Bus;
  readonly exports: Exports;
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #spread: MemberSpread;
  #parts: Parts | undefined;
  #stopListening: () => void = () => {};
  #cancelRetry: () => void = () => {};
  /** Hosts whose links and sessions are being ended. */
  readonly #leaving = new Map<string, Promise<void>>();

  constructor(options: MembershipOptions) {
    const { directory, log } = options;
    this.#options = options;
    this.#spread = new MemberSpread({
      current: () => {
        const signed = directory.list();
        return signed && { serial: signed.list.serial, bytes: signed.bytes };
      },
      isMember: (name) => directory.members().has(name),
      accept: (bytes) => directory.accept(bytes),
      call: (host, method, params) => this.#call(host, method, params),
      log,
    });
  }

  /** What other hosts may call. A cluster whose members stand in the config has nothing to hand on. */
  get handlers(): ControlHandlers {
    if (this.#options.directory.list() === undefined) return {};
    return {
      ...this.#spread.handlers,
      'certificate.renew': async (peer, params, certificate) => {
        const { request } = checkMessage(renewParams, params, 'certificate.renew');
        if (certificate === undefined) throw new NetbusError('denied', 'no certificate was presented');
        return { certificate: await this.#issuing('renews certificates').renew(peer, certificate, request) };
      },
    };
  }

  /** For hosts that want to join. */
  get joinHost(): JoinHost {
    return {
      certificates: () => {
        const issuing = this.#issuing('lets hosts join');
        if (!issuing.expectsSomebody) {
          throw new NetbusError('denied', 'no invitation was made here: ask for one, "netbus invite HOST"');
        }
        return issuing.certificates;
      },
      redeem: (request: RedeemRequest) => this.#redeem(request),
    };
  }

  /** The number of a host's present membership; undefined where it is not in, or the cluster has no member list. */
  numberOf(host: string): string | undefined {
    const entry = this.#entry(host);
    return entry?.state === 'member' ? entry.admission : undefined;
  }

  /** Was let in once: where `admits` refuses it, it was evicted, whatever it is now. */
  wasMember(host: string): boolean {
    return this.#entry(host) !== undefined;
  }

  /** Why an attachment of this host to a device of another one is nobody's any more: it is of a membership that is over. */
  whyFenced(record: Pick<VirtualDeviceRecord, 'host' | 'membership'>): string | undefined {
    const { host, cluster } = this.#options;
    const own = this.#entry(host);
    if (own === undefined || record.host === host) return undefined;
    const advice = 'detach the device, and attach it again once this host is in';
    if (own.state === 'evicted') {
      return `this host was evicted from cluster ${cluster} on ${own.since.slice(0, 10)}: ${advice}`;
    }
    if (record.membership === undefined || record.membership === own.admission) return undefined;
    return `this host was evicted after it had attached the device, and has joined again since: detach it, and attach it again`;
  }

  /** Never heard of: whoever is called so may know a newer list. */
  isUnknown(host: string): boolean {
    return this.#options.directory.list() !== undefined && this.#entry(host) === undefined;
  }

  /** A link that this host opened is up. */
  linkUp(host: string): void {
    if (this.#options.directory.list() !== undefined) void this.#spread.exchange(host);
  }

  /** Begins to follow the directory. What was decided while this host was away holds when this resolves. */
  async start(parts: Parts): Promise<void> {
    const { directory } = this.#options;
    this.#parts = parts;
    this.#stopListening = directory.onChange((change) => this.#changed(change));
    await this.#fence();
    this.#keepLinks();
  }

  close(): void {
    this.#stopListening();
    this.#cancelRetry();
  }

  /** What is not as it should be, for `status`. */
  get warnings(): string[] {
    const { host, cluster } = this.#options;
    const own = this.#entry(host);
    if (own?.state !== 'evicted') return [];
    return [`this host was evicted from cluster ${cluster} on ${own.since.slice(0, 10)}: the other hosts refuse it`];
  }

  // --- what people ask -------------------------------------------------------------------------------------------------------

  members(): Members {
    const { host, cluster, directory } = this.#options;
    const links = this.#parts?.bus.links.status(directory.members().keys()) ?? [];
    return describeMembers({ host, cluster, directory, links });
  }

  /** `address`: where the new host reaches this one, HOST or HOST:PORT, in place of the one in the member list. */
  async invite(host: string, address: string | undefined): Promise<Invitation> {
    const reached = address === undefined ? undefined : parseAddress(address);
    if (address !== undefined && reached === undefined)
      throw new NetbusError('usage', `"${address}" is not an address: give HOST or HOST:PORT`);
    const { token: made, expiresAt } = await this.#issuing('invites').invite(host);
    const token = reached === undefined ? made : encodeToken({ ...decodeToken(made), address: formatAddress(reached) });
    this.#options.log.info({ member: host, expiresAt: new Date(expiresAt).toISOString() }, `host ${host} was invited`);
    this.#options.events.record({ type: 'member.invited', subject: host, message: `host ${host} was invited` });
    return { host, token, expiresAt: new Date(expiresAt).toISOString(), command: `netbus join ${token}` };
  }

  /** Resolves when it holds on this host, and was told to all that answer in time. */
  async evict(host: string): Promise<EvictResult> {
    const { clock, log } = this.#options;
    await this.#issuing('evicts').evict(host);
    log.warn({ member: host }, `host ${host} was evicted`);
    await this.#leaving.get(host);
    const others = this.#others();
    const told = new Set<string>();
    const telling = others.map(async (other) => {
      if (await this.#spread.exchange(other)) told.add(other);
    });
    const { signal, cancel } = abortAfter(clock, TELL_MS_MAX);
    await Promise.race([
      Promise.all(telling),
      new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true })),
    ]);
    cancel();
    return { host, told: others.filter((other) => told.has(other)), untold: others.filter((other) => !told.has(other)) };
  }

  async #redeem({ secret, host, request, address }: RedeemRequest): Promise<{ certificate: string; list: string }> {
    const parsed = parseAddress(address);
    if (parsed === undefined)
      throw new NetbusError('usage', 'the address of the new host is none: give --address HOST or HOST:PORT');
    const admission = await this.#issuing('lets hosts join').join({ secret, host, address: formatAddress(parsed), request });
    return { certificate: admission.certificate, list: listText(admission.list) };
  }

  #issuing(what: string): IssuingHost {
    const { host, issuing, directory } = this.#options;
    if (issuing !== undefined) return issuing;
    const issuer = directory.list()?.list.issuer;
    if (issuer === undefined) {
      throw new NetbusError(
        'usage',
        `the members of this cluster are the hosts in the configs: add or remove a host there, and restart the daemons`,
      );
    }
    const why =
      issuer === host
        ? `its issuing key is missing: see the log of this daemon`
        : `do it on host ${issuer}, which has the issuing key`;
    throw new NetbusError('denied', `host ${host} is not the one that ${what}: ${why}`);
  }

  // --- changes of the directory -----------------------------------------------------------------------------------------------

  #changed({ joined, left, moved }: DirectoryChange): void {
    const { host, log, events, directory } = this.#options;
    const serial = directory.list()?.list.serial;
    log.info({ serial, joined, left, moved }, 'the members have changed');
    // A host that was evicted and has joined again is in both.
    for (const name of left)
      events.record({ type: 'member.evicted', subject: name, message: `host ${name} is no member any more` });
    for (const name of joined) events.record({ type: 'member.joined', subject: name, message: `host ${name} is a member` });
    if (moved.length > 0) {
      const message = `the member list has a new address of ${moved.join(', ')}`;
      events.record({ type: 'members.updated', subject: host, message });
    }
    if (left.includes(host)) this.#leaveMyself();
    for (const name of left) {
      if (name === host) continue;
      const leaving = this.#leave(name).finally(() => {
        if (this.#leaving.get(name) === leaving) this.#leaving.delete(name);
      });
      this.#leaving.set(name, leaving);
    }
    // The old place is of no use; sessions go on where they are.
    for (const name of moved)
      this.#parts?.bus.links.drop(name, new NetbusError('ended', `the address of host ${name} has changed`));
    this.#keepLinks();
    for (const name of this.#others()) void this.#spread.exchange(name);
  }

  /** The other hosts end what they have with this one; asking them again and again would only fill their logs. */
  #leaveMyself(): void {
    const { host, cluster, directory, log } = this.#options;
    const cause = new NetbusError('fenced', `this host, ${host}, was evicted from cluster ${cluster}`);
    for (const name of directory.members().keys()) {
      void this.#parts?.bus.dropHost(name, cause).catch((thrown: unknown) => {
        log.error({ member: name, err: thrown }, 'the connections with a host could not be ended');
      });
    }
    for (const warning of this.warnings) log.error({}, warning);
  }

  /** Links and sessions end at once; what the host had here is free when their I/O has finished. */
  async #leave(host: string): Promise<void> {
    const { cluster, directory, log } = this.#options;
    const signed = directory.list();
    try {
      // Its last word, so that it knows itself.
      if (signed !== undefined) this.#parts?.bus.links.tell(host, 'members.put', { list: listText(signed.bytes) });
      await this.#parts?.bus.dropHost(host, new NetbusError('fenced', `host ${host} was evicted from cluster ${cluster}`));
    } catch (thrown) {
      log.error({ member: host, err: thrown }, 'the connections of an evicted host could not be ended');
    }
    await this.#fence();
  }

  /** Frees what hosts hold that are not in any more. Never rejects: it is tried again. */
  async #fence(): Promise<void> {
    const { clock, log } = this.#options;
    this.#cancelRetry();
    try {
      await this.#parts?.exports.fence((record) => this.#isGone(record));
    } catch (thrown) {
      log.error(
        { reason: NetbusError.from(thrown).message },
        'the attachments of an evicted host were not all removed; it is tried again',
      );
      this.#cancelRetry = clock.after(FENCE_RETRY_MS, () => void this.#fence());
    }
  }

  /** Its host was evicted since it attached; it may have come back since, under the same name. */
  #isGone({ host, membership }: AttachmentRecord): boolean {
    const entry = this.#entry(host);
    // What this host has of its own stays its own, in the cluster or out of it.
    if (entry === undefined || host === this.#options.host) return false;
    return entry.state === 'evicted' || (membership !== undefined && membership !== entry.admission);
  }

  #entry(host: string): MemberEntry | undefined {
    return this.#options.directory.list()?.list.members.find((member) => member.host === host);
  }

  #keepLinks(): void {
    if (this.#options.directory.list() === undefined) return;
    for (const name of this.#others()) this.#parts?.bus.links.keep(name);
  }

  #others(): string[] {
    const { directory, host } = this.#options;
    const members = directory.members();
    return members.has(host) ? [...members.keys()].filter((name) => name !== host) : [];
  }

  async #call(host: string, method: string, params: object): Promise<JsonObject> {
    if (this.#parts === undefined) throw new NetbusError('unreachable', 'the daemon is starting');
    return await this.#parts.bus.links.call(host, method, params);
  }

  /** Renews this host's own certificate: at the issuing host, which may be this one. */
  async renew(request: string, certificate: string): Promise<string> {
    const { host, directory, issuing } = this.#options;
    if (issuing !== undefined) return issuing.renew(host, new X509Certificate(certificate), request);
    const issuer = directory.list()?.list.issuer;
    if (issuer === undefined) throw new NetbusError('config', 'no host renews certificates in this cluster');
    const value = await this.#call(issuer, 'certificate.renew', { request });
    return checkMessage(renewValue, value, 'certificate.renew').certificate;
  }
}
