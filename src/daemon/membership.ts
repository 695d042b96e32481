/**
 * This host's part in the cluster's membership: it carries the member list to and from the others, and acts at once on who came, who moved and who was
 * evicted. What makes such changes is in issuing-desk.ts.
 */
import type { Members } from '../api/types.ts';
import type { Bus } from '../bus/bus.ts';
import type { ControlHandlers, JsonObject } from '../bus/control-link.ts';
import { MemberSpread } from '../bus/member-spread.ts';
import { NetbusError } from '../device/errors.ts';
import type { Place } from '../device/succession.ts';
import type { Directory, DirectoryChange } from '../directory/directory.ts';
import type { MemberEntry } from '../directory/member-list.ts';
import { within } from '../lib/abort.ts';
import { abortAfter, type Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { listText, renewParams, renewValue } from '../protocols/netbus/member-messages.ts';
import { checkMessage } from '../protocols/netbus/messages.ts';
import type { EventRecorder } from './events.ts';
import type { Exports } from './exports.ts';
import type { Announced, IssuingDesk } from './issuing-desk.ts';
import { describeMembers } from './members-view.ts';
import type { VirtualDeviceRecord } from './records.ts';

/** A change is told to the others for so long before it is answered; those that have not heard of it then hear of it when they are reached. */
const TELL_MS_MAX = 3_000;
/** A fence whose records could not be stored is tried again. */
const FENCE_RETRY_MS = 10_000;

export interface MembershipOptions {
  readonly host: string;
  readonly cluster: string;
  readonly directory: Directory;
  readonly desk: IssuingDesk;
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
  /** False: this host has lost its list, and waits for one. */
  #hasList: boolean;
  #stopListening: () => void = () => {};
  #cancelRetry: () => void = () => {};
  /** Hosts whose links and sessions are being ended. */
  readonly #leaving = new Map<string, Promise<void>>();

  constructor(options: MembershipOptions) {
    const { directory, log } = options;
    this.#options = options;
    this.#hasList = directory.list() !== undefined;
    this.#spread = new MemberSpread({
      current: () => {
        const signed = directory.list();
        return signed && { serial: signed.list.serial, bytes: signed.bytes };
      },
      isMember: (name) => directory.members().has(name),
      accept: (bytes, peer) => directory.accept(bytes, peer),
      call: (host, method, params) => this.#call(host, method, params),
      log,
    });
  }

  /** What other hosts may call. A cluster whose members stand in the config has nothing to hand on. */
  get handlers(): ControlHandlers {
    if (!this.#options.directory.signed) return {};
    return {
      ...this.#spread.handlers,
      'certificate.renew': async (peer, params, certificate) => {
        const { request } = checkMessage(renewParams, params, 'certificate.renew');
        if (certificate === undefined) throw new NetbusError('denied', 'no certificate was presented');
        return { certificate: await this.#options.desk.renew(peer, certificate, request) };
      },
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
    return this.#options.directory.signed && this.#entry(host) === undefined;
  }

  /** A link that this host opened is up. */
  linkUp(host: string): void {
    if (this.#options.directory.signed) void this.#spread.exchange(host);
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
    const { host, cluster, directory, desk } = this.#options;
    if (directory.signed && directory.list() === undefined) {
      return [
        `this host has lost its member list: it has no dealings with other hosts until one of them brings the list, ${directory.trusted}; or copy members.list from another host into its folder, and restart the daemon`,
      ];
    }
    if (desk.problem !== undefined) return [desk.problem];
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

  /** Gives the list to all others. Resolves when those that answer in time have it; `left` has no connection with this host by then. */
  async announce(left?: string): Promise<Announced> {
    if (left !== undefined) await this.#leaving.get(left);
    const others = this.#others();
    const told = new Set<string>();
    const telling = others.map(async (other) => {
      if (await this.#spread.exchange(other)) told.add(other);
    });
    const { signal, cancel } = abortAfter(this.#options.clock, TELL_MS_MAX);
    await within(
      signal,
      Promise.all(telling).then(() => undefined),
    );
    cancel();
    return { told: others.filter((other) => told.has(other)), untold: others.filter((other) => !told.has(other)) };
  }

  // --- changes of the directory -----------------------------------------------------------------------------------------------

  #changed({ joined, left, moved }: DirectoryChange): void {
    const { host, log, events, directory } = this.#options;
    const serial = directory.list()?.list.serial;
    log.info({ serial, joined, left, moved }, 'the members have changed');
    if (!this.#hasList) this.#listIsBack();
    // A host that was evicted and has joined again is in both.
    else
      for (const name of joined) events.record({ type: 'member.joined', subject: name, message: `host ${name} is a member` });
    for (const name of left)
      events.record({ type: 'member.evicted', subject: name, message: `host ${name} is no member any more` });
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

  /** Who was evicted meanwhile must not find anything of its own; and the issuing host can issue again. */
  #listIsBack(): void {
    const { host, events, desk, log } = this.#options;
    this.#hasList = true;
    events.record({ type: 'members.updated', subject: host, message: 'the member list, which was lost, is back' });
    void this.#fence();
    void desk.open().catch((thrown: unknown) => {
      log.error({ reason: NetbusError.from(thrown).message }, 'this host cannot issue certificates');
    });
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
      await this.#parts?.exports.evict((place) => this.#isGone(place));
    } catch (thrown) {
      log.error(
        { reason: NetbusError.from(thrown).message },
        'the attachments of an evicted host were not all removed; it is tried again',
      );
      this.#cancelRetry = clock.after(FENCE_RETRY_MS, () => void this.#fence());
    }
  }

  /** Its host was evicted since it attached; it may have come back since, under the same name. */
  #isGone({ host, membership }: Place): boolean {
    const entry = this.#entry(host);
    // What this host has of its own stays its own, in the cluster or out of it.
    if (entry === undefined || host === this.#options.host) return false;
    return entry.state === 'evicted' || (membership !== undefined && membership !== entry.admission);
  }

  #entry(host: string): MemberEntry | undefined {
    return this.#options.directory.list()?.list.members.find((member) => member.host === host);
  }

  #keepLinks(): void {
    if (!this.#options.directory.signed) return;
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
    const { directory, desk } = this.#options;
    const own = await desk.renewOwn(certificate, request);
    if (own !== undefined) return own;
    const issuer = directory.list()?.list.issuer;
    if (issuer === undefined) throw new NetbusError('config', 'no host renews certificates in this cluster');
    const value = await this.#call(issuer, 'certificate.renew', { request });
    return checkMessage(renewValue, value, 'certificate.renew').certificate;
  }
}
