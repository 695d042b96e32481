/** The control links of this host, one for each other host that it has something to say to: docs/protocol.md, 1. */
import { NetbusError } from '../device/errors.ts';
import { CALL_MS_DEFAULT, type ControlHandlers, ControlLink, type JsonObject } from './control-link.ts';
import { dial, type Target } from './dial.ts';
import type { Endpoint } from './endpoint.ts';
import type { Incoming } from './listener.ts';

/** Pauses between attempts to reach a host that a link was lost to, doubled from the first to the last. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15_000;

/** A link as `status` shows it. */
export interface LinkStatus {
  readonly peer: string;
  /** `idle`: nothing was to be said yet. */
  readonly state: 'idle' | 'connecting' | 'up' | 'down';
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly rttMs?: number;
  /** The peer's program, as its last WELCOME said. */
  readonly release?: string;
  /** When it was last heard of, in milliseconds since 1970; left out where it never was, since this daemon was started. */
  readonly lastSeen?: number;
  /** Why it is down, in one line. */
  readonly error?: string;
}

export interface LinksOptions {
  readonly endpoint: Endpoint;
  readonly handlers: ControlHandlers;
  /** Where a member is; undefined for a host that is none. */
  readonly targetOf: (host: string) => Target | undefined;
  /** Told each time that a link which this host opens is up. */
  readonly onUp?: (host: string) => void;
}

export class Links {
  readonly #options: LinksOptions;
  readonly #links = new Map<string, OutgoingLink>();
  /** Links that the others opened; each keeps using its own. */
  readonly #incoming = new Map<string, ControlLink>();
  #closed = false;

  constructor(options: LinksOptions) {
    this.#options = options;
  }

  /** Asks `host`, over a link that is opened for it where there is none. Rejects as `ControlLink.call`, or with what is wrong on the way there. */
  async call(host: string, method: string, params: object, options: { timeoutMs?: number } = {}): Promise<JsonObject> {
    const link = await this.#link(host).get(options.timeoutMs ?? CALL_MS_DEFAULT);
    return await link.call(method, params, options);
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
      this.#options.endpoint.log.debug({ peer }, `control link of ${peer} ended: ${cause.message}`);
    });
    if (!incoming.welcome(link)) return;
    this.#incoming.get(peer)?.close(new NetbusError('ended', 'the same host opened a newer control link'));
    this.#incoming.set(peer, link);
    // It is there: no need to wait with the next try.
    this.#links.get(peer)?.retry();
  }

  /** The links that this host opened, and those of `hosts` that it did not need yet. */
  status(hosts: Iterable<string> = []): LinkStatus[] {
    const known = [...this.#links.values()].map((link) => link.status());
    const idle = [...hosts].filter((host) => !this.#links.has(host));
    return [...known, ...idle.map((peer): LinkStatus => ({ peer, state: 'idle', since: 0 }))];
  }

  close(): void {
    this.#closed = true;
    const cause = new NetbusError('ended', `netbusd of ${this.#options.endpoint.host} stops`);
    for (const link of this.#links.values()) link.close(cause);
    for (const link of this.#incoming.values()) link.close(cause);
    this.#incoming.clear();
  }

  #link(host: string): OutgoingLink {
    const { endpoint, targetOf } = this.#options;
    if (this.#closed) throw new NetbusError('ended', `netbusd of ${endpoint.host} stops`);
    const known = this.#links.get(host);
    if (known !== undefined) return known;
    if (targetOf(host) === undefined) {
      throw new NetbusError(
        'not_found',
        `host ${host} is not a member of cluster ${endpoint.cluster}, as far as ${endpoint.host} knows`,
      );
    }
    const link = new OutgoingLink(host, this.#options);
    this.#links.set(host, link);
    return link;
  }
}

type LinkState =
  | {
      readonly name: 'connecting';
      readonly since: number;
      readonly link: Promise<ControlLink>;
      readonly giveUp: AbortController;
    }
  | { readonly name: 'up'; readonly since: number; readonly link: ControlLink }
  | { readonly name: 'down'; readonly since: number; readonly error: NetbusError; readonly cancelRetry: () => void }
  | { readonly name: 'closed'; readonly since: number };

/** A link that this host opens, and opens again: a call tries at once, and what was up is brought back in the background. */
class OutgoingLink {
  readonly #options: LinksOptions;
  readonly #endpoint: Endpoint;
  readonly #host: string;
  #state: LinkState;
  #release: string | undefined;
  #lastSeen: number | undefined;
  #retryMs = RETRY_FIRST_MS;
  /** What was logged last: one line a reason, not one an attempt. */
  #logged = '';

  constructor(host: string, options: LinksOptions) {
    this.#options = options;
    this.#endpoint = options.endpoint;
    this.#host = host;
    this.#state = this.#connect();
  }

  status(): LinkStatus {
    const state = this.#state;
    const base = {
      ...{ peer: this.#host, since: state.since },
      ...(this.#release !== undefined && { release: this.#release }),
      ...(this.#lastSeen !== undefined && { lastSeen: this.#lastSeen }),
    };
    switch (state.name) {
      case 'up': {
        const { rttMs } = state.link;
        // A heartbeat later at the most it would not be up any more.
        return { ...base, lastSeen: this.#endpoint.clock.wallTime(), state: 'up', ...(rttMs !== undefined && { rttMs }) };
      }
      case 'down':
        return { ...base, state: 'down', error: state.error.message };
      case 'connecting':
        return { ...base, state: 'connecting' };
      case 'closed':
        return { ...base, state: 'down', error: 'closed' };
    }
  }

  /** The link once it is up. Rejects where this attempt failed, or after `timeoutMs`. */
  async get(timeoutMs: number): Promise<ControlLink> {
    const state = this.#state;
    switch (state.name) {
      case 'up':
        return state.link;
      case 'connecting':
        return await this.#within(timeoutMs, state.link);
      case 'down': {
        state.cancelRetry();
        const next = this.#connect();
        this.#state = next;
        return await this.#within(timeoutMs, next.link);
      }
      case 'closed':
        throw new NetbusError('ended', `the link with ${this.#host} is closed`);
    }
  }

  /** Undefined unless it is up at this moment. */
  get up(): ControlLink | undefined {
    return this.#state.name === 'up' ? this.#state.link : undefined;
  }

  /** Tries at once where it waits for its next try. */
  retry(): void {
    if (this.#state.name !== 'down') return;
    this.#state.cancelRetry();
    this.#state = this.#connect();
  }

  close(cause: NetbusError): void {
    const state = this.#state;
    this.#state = { name: 'closed', since: this.#endpoint.clock.wallTime() };
    if (state.name === 'up') state.link.close(cause);
    if (state.name === 'down') state.cancelRetry();
    if (state.name === 'connecting') state.giveUp.abort();
  }

  #connect(): Extract<LinkState, { name: 'connecting' }> {
    const giveUp = new AbortController();
    const link = this.#dial(giveUp.signal);
    // Nobody may be waiting for it.
    link.catch(() => undefined);
    return { name: 'connecting', since: this.#endpoint.clock.wallTime(), link, giveUp };
  }

  async #dial(signal: AbortSignal): Promise<ControlLink> {
    // Nothing may fail before the state says that it is connecting.
    await Promise.resolve();
    try {
      const { targetOf, handlers, onUp } = this.#options;
      const target = targetOf(this.#host);
      if (target === undefined) throw new NetbusError('not_found', `host ${this.#host} is not a member any more`);
      const link = await dial(
        this.#endpoint,
        target,
        { purpose: 'control' },
        (connection, { release }) => {
          this.#release = release;
          return new ControlLink(connection, handlers, (_link, cause) => this.#down(cause));
        },
        signal,
      );
      if (this.#state.name !== 'connecting') {
        const cause = new NetbusError('ended', 'the link is not needed any more');
        link.close(cause);
        throw cause;
      }
      this.#retryMs = RETRY_FIRST_MS;
      this.#logged = '';
      this.#state = { name: 'up', since: this.#endpoint.clock.wallTime(), link };
      this.#endpoint.log.info({ peer: this.#host }, `control link with ${this.#host} is up`);
      link.ping();
      onUp?.(this.#host);
      return link;
    } catch (thrown) {
      const error = NetbusError.from(thrown);
      this.#down(error);
      throw error;
    }
  }

  #down(error: NetbusError): void {
    const state = this.#state;
    if (state.name === 'closed' || state.name === 'down') return;
    if (state.name === 'up') this.#lastSeen = this.#endpoint.clock.wallTime();
    const { clock, log } = this.#endpoint;
    const { code } = error;
    if (error.message !== this.#logged) {
      log.warn({ peer: this.#host, code }, `control link with ${this.#host} is down: ${error.message}`);
    }
    this.#logged = error.message;
    const cancelRetry = clock.after(this.#retryMs, () => {
      this.#state = this.#connect();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
    this.#state = { name: 'down', since: clock.wallTime(), error, cancelRetry };
  }

  #within(timeoutMs: number, link: Promise<ControlLink>): Promise<ControlLink> {
    return new Promise((resolve, reject) => {
      const text = `${this.#host} could not be reached within ${timeoutMs / 1000} s`;
      const cancel = this.#endpoint.clock.after(timeoutMs, () => reject(new NetbusError('timeout', text)));
      link.then(resolve, reject).finally(cancel);
    });
  }
}
