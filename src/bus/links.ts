/** The control links of this host, one for each other host that it has something to say to: docs/protocol.md, 1. */
import { NetbusError } from '../device/errors.ts';
import { parseAddress } from '../lib/address.ts';
import { CALL_MS_DEFAULT, type ControlHandlers, ControlLink, type JsonObject } from './control-link.ts';
import type { Target } from './dial.ts';
import type { Endpoint } from './endpoint.ts';
import type { Incoming } from './listener.ts';
import type { BusObserver } from './observer.ts';
import { type LinkStatus, type LinkWelcome, OutgoingLink } from './outgoing-link.ts';

/** The two take turns each second. */
const DOUBLED_LOG_MS = 60_000;

export interface LinksOptions {
  readonly endpoint: Endpoint;
  readonly handlers: ControlHandlers;
  /** Where a member is; undefined for a host that is none. */
  readonly targetOf: (host: string) => Target | undefined;
  /** Told each time that a link which this host opens is up. */
  readonly onUp?: (host: string) => void;
  readonly observer?: BusObserver;
}

export class Links {
  readonly #options: LinksOptions;
  readonly #links = new Map<string, OutgoingLink>();
  /** Links that the others opened; each keeps using its own. */
  readonly #incoming = new Map<string, ControlLink>();
  /** Where the newest of them came from, without the port. */
  readonly #addresses = new Map<string, string>();
  /** When it was last said that a host seems to be there twice. */
  readonly #doubled = new Map<string, number>();
  /** When a link of a host, of either kind, was last up. */
  readonly #seen = new Map<string, number>();
  readonly #startedAt: number;
  #closed = false;

  constructor(options: LinksOptions) {
    this.#options = options;
    this.#startedAt = options.endpoint.clock.wallTime();
  }

  /** Asks `host`, over a link that is opened for it where there is none. Rejects as `ControlLink.call`, or with what is wrong on the way there. */
  async call(host: string, method: string, params: object, options: { timeoutMs?: number } = {}): Promise<JsonObject> {
    const link = await this.#link(host).get(options.timeoutMs ?? CALL_MS_DEFAULT);
    return await link.call(method, params, options);
  }

  /** What `host` runs, and what both ends can, over a link that is opened for it where there is none. Rejects as `call`. */
  async welcomeOf(host: string, options: { timeoutMs?: number } = {}): Promise<LinkWelcome> {
    const link = this.#link(host);
    await link.get(options.timeoutMs ?? CALL_MS_DEFAULT);
    return link.welcome!;
  }

  /** Opens a link to `host`, and opens it again for as long as the host is not dropped. */
  keep(host: string): void {
    if (!this.#closed) this.#link(host);
  }

  /** A call whose answer nobody waits for, over a link that is up; nothing where none is. Sent before whatever comes next on that link, its end too. */
  tell(host: string, method: string, params: object): void {
    const link = this.#links.get(host)?.up ?? this.#incoming.get(host);
    link?.call(method, params).catch(() => undefined);
  }

  /** Ends the links with a host, in both directions, and forgets it. `cause` is what it is told. */
  drop(host: string, cause: NetbusError): void {
    this.#links.get(host)?.close(cause);
    this.#links.delete(host);
    this.#incoming.get(host)?.close(cause);
    this.#incoming.delete(host);
    this.#addresses.delete(host);
    this.#doubled.delete(host);
  }

  /** Takes a connection whose purpose is `control`. A host has one: its newest. */
  accept(incoming: Incoming): void {
    const { connection } = incoming;
    const { peer } = connection;
    if (this.#closed) {
      connection.close(new NetbusError('ended', `netbusd of ${this.#options.endpoint.host} stops`));
      return;
    }
    const link = new ControlLink(connection, this.#options.handlers, (ended, cause) => {
      if (this.#incoming.get(peer) === ended) this.#incoming.delete(peer);
      this.#saw(peer);
      this.#options.endpoint.log.debug({ peer }, `control link of ${peer} ended: ${cause.message}`);
    });
    if (!incoming.welcome(link)) return;
    this.#incoming.get(peer)?.close(new NetbusError('ended', this.#displaced(incoming)));
    this.#incoming.set(peer, link);
    this.#addresses.set(peer, ipOf(incoming.address));
    // It is there: no need to wait with the next try.
    this.#links.get(peer)?.retry();
  }

  /** The links that this host opened, and those of `hosts` that it did not need yet. */
  status(hosts: Iterable<string> = []): LinkStatus[] {
    const known = [...this.#links.values()].map((link) => link.status());
    const idle = [...hosts].filter((host) => !this.#links.has(host));
    const all = [...known, ...idle.map((peer): LinkStatus => ({ peer, state: 'idle', since: this.#startedAt }))];
    return all.map((status) => {
      const there = status.state === 'up' || this.#incoming.has(status.peer);
      const lastSeen = there ? this.#options.endpoint.clock.wallTime() : this.#seen.get(status.peer);
      return lastSeen === undefined ? status : { ...status, lastSeen };
    });
  }

  close(): void {
    this.#closed = true;
    const cause = new NetbusError('ended', `netbusd of ${this.#options.endpoint.host} stops`);
    for (const link of this.#links.values()) link.close(cause);
    for (const link of this.#incoming.values()) link.close(cause);
    this.#incoming.clear();
  }

  #link(host: string): OutgoingLink {
    const { endpoint, targetOf, handlers, onUp, observer } = this.#options;
    if (this.#closed) throw new NetbusError('ended', `netbusd of ${endpoint.host} stops`);
    const known = this.#links.get(host);
    if (known !== undefined) return known;
    if (targetOf(host) === undefined) {
      throw new NetbusError(
        'not_found',
        `host ${host} is not a member of cluster ${endpoint.cluster}, as far as ${endpoint.host} knows`,
      );
    }
    const link = new OutgoingLink({
      ...{ endpoint, handlers, targetOf, host },
      up: () => {
        observer?.linkUp(host);
        onUp?.(host);
      },
      down: (cause, wasUp) => {
        if (wasUp) this.#saw(host);
        observer?.linkDown(host, cause);
      },
    });
    this.#links.set(host, link);
    return link;
  }

  /** Why an earlier link ends. A host that runs twice, as a copy of a machine does, would take its own link away again and again, and nobody would know why. */
  #displaced({ connection: { peer }, address }: Incoming): string {
    const { clock, log } = this.#options.endpoint;
    const [before, now] = [this.#addresses.get(peer), ipOf(address)];
    if (before === undefined || before === now) return 'the same host opened a newer control link';
    const problem = `a host at ${now} that is ${peer}, too, opened a control link, while that of ${peer} at ${before} was up`;
    const advice =
      'where these are two hosts, one has a copy of the files of the other: stop its daemon, and let it join under a name of its own';
    const last = this.#doubled.get(peer);
    if (last === undefined || clock.now() - last >= DOUBLED_LOG_MS) {
      this.#doubled.set(peer, clock.now());
      log.warn({ peer }, `${problem}: ${advice}`);
    }
    return `${problem}: ${advice}`;
  }

  #saw(host: string): void {
    this.#seen.set(host, this.#options.endpoint.clock.wallTime());
  }
}

/** An address without its port. */
function ipOf(address: string): string {
  return parseAddress(address)?.host ?? address;
}
