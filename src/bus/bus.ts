/** One host's end of the bus: the port, the control links, the sessions that it exports and those that it opens. */
import { NetbusError } from '../device/errors.ts';
import { type SessionHello, warmDecoders } from '../protocols/netbus/messages.ts';
import type { ControlHandlers } from './control-link.ts';
import type { Target } from './dial.ts';
import { Endpoint, type EndpointIdentity, type EndpointOptions } from './endpoint.ts';
import { Exporter } from './exporter.ts';
import { JoinDesk, type JoinHost } from './join-desk.ts';
import { Links } from './links.ts';
import { type Incoming, Listener } from './listener.ts';
import type { BusObserver } from './observer.ts';
import { openRemoteSession, type RemoteSession } from './remote-session.ts';
import type { SessionHost } from './session-host.ts';
import type { AllocateStaging } from './staging.ts';

export interface BusOptions extends EndpointOptions {
  readonly sessionHost: SessionHost;
  readonly handlers: ControlHandlers;
  /** Where a member is; undefined for a host that is none. */
  readonly targetOf: (host: string) => Target | undefined;
  /** Told each time that a control link which this host opens is up. */
  readonly onLinkUp?: (host: string) => void;
  /** For hosts that want to join; left out where none can join here. */
  readonly joinHost?: JoinHost;
  readonly allocate: AllocateStaging;
  readonly observer?: BusObserver;
}

export class Bus {
  readonly links: Links;
  readonly exporter: Exporter;
  readonly #endpoint: Endpoint;
  readonly #listener: Listener;
  readonly #allocate: AllocateStaging;
  readonly #joins: JoinDesk;
  /** Sessions that this host opened, while they are open. */
  readonly #opened = new Set<RemoteSession>();
  readonly #targetOf: (host: string) => Target | undefined;

  constructor(options: BusOptions) {
    const { sessionHost: host, handlers, targetOf, allocate, observer } = options;
    const endpoint = new Endpoint(options);
    this.#endpoint = endpoint;
    this.#allocate = allocate;
    this.#targetOf = targetOf;
    const { onLinkUp: onUp, joinHost = nobodyJoins(endpoint) } = options;
    this.links = new Links({ endpoint, handlers, targetOf, ...(onUp && { onUp }), ...(observer && { observer }) });
    this.#joins = new JoinDesk(endpoint, joinHost);
    this.exporter = new Exporter({ endpoint, host, allocate, ...(observer && { observer }) });
    this.#listener = new Listener(endpoint, (incoming) => this.#accept(incoming));
  }

  /** Begins to take connections; returns the port (for port 0: the one that was found). Throws `in_use` or `config`. */
  listen(address: string, port: number): Promise<number> {
    warmDecoders();
    return this.#listener.listen(address, port);
  }

  /** Opens a session with the host at `target`: see `openRemoteSession`. */
  async openSession(
    options: { target: Target; attachment: string; epoch?: number; signal?: AbortSignal },
    onEnded: (cause: NetbusError) => void,
  ): Promise<RemoteSession> {
    const { host } = options.target;
    const onOver = (session: RemoteSession) => this.#opened.delete(session);
    const session = await openRemoteSession(
      { ...options, onOver, endpoint: this.#endpoint, allocate: this.#allocate },
      onEnded,
    );
    // It may have been dropped while it was on its way.
    if (this.#targetOf(host) === undefined) {
      session.close();
      throw new NetbusError('unreachable', `host ${host} is not a member any more`);
    }
    if (!session.over) this.#opened.add(session);
    return session;
  }

  /** New connections use this certificate from now on. */
  useIdentity(identity: EndpointIdentity): void {
    this.#endpoint.useIdentity(identity);
  }

  /**
   * Ends all that this host has with another one, in both directions; `cause` is what that host is told. Resolves when the I/O of its sessions here has
   * finished. Whether it may come back is for `admits` and `targetOf` to say, which refuse it by now.
   */
  async dropHost(host: string, cause: NetbusError): Promise<void> {
    this.links.drop(host, cause);
    for (const session of [...this.#opened]) if (session.peer === host) session.drop(cause);
    await this.exporter.drop(host, cause);
  }

  /** Takes nothing more, ends the links and the exported sessions; resolves when all their I/O has finished. Sessions that it opened are their openers' to close. */
  async close(): Promise<void> {
    this.#listener.close();
    this.links.close();
    this.#joins.close(new NetbusError('ended', `netbusd of ${this.#endpoint.host} stops`));
    await this.exporter.close();
    this.#endpoint.close();
  }

  #accept(incoming: Incoming): void {
    const { hello } = incoming;
    switch (hello.purpose) {
      case 'control':
        this.links.accept(incoming);
        return;
      case 'session':
        void this.exporter.accept(incoming as Incoming & { hello: SessionHello });
        return;
      case 'join':
        this.#joins.accept(incoming);
        return;
    }
  }
}

/** This host issues no certificates. */
function nobodyJoins({ host }: Endpoint): JoinHost {
  const refuse = (): never => {
    throw new NetbusError('denied', `host ${host} lets nobody join: use the token with the host that made it`);
  };
  return { certificates: refuse, redeem: refuse };
}
