/** One host's end of the bus: the port, the control links, the sessions that it exports and those that it opens. */
import type { NetbusError } from '../device/errors.ts';
import type { SessionHello } from '../protocols/netbus/messages.ts';
import type { ControlHandlers } from './control-link.ts';
import type { Target } from './dial.ts';
import { Endpoint, type EndpointOptions } from './endpoint.ts';
import { Exporter } from './exporter.ts';
import { Links } from './links.ts';
import { type Incoming, Listener } from './listener.ts';
import type { BusObserver } from './observer.ts';
import { openRemoteSession, type RemoteSession } from './remote-session.ts';
import type { SessionHost } from './session-host.ts';
import type { AllocateStaging } from './staging.ts';

export interface BusOptions extends EndpointOptions {
  readonly sessionHost: SessionHost;
  readonly handlers: ControlHandlers;
  /** Where a member is; undefined where the config names no such host. */
  readonly targetOf: (host: string) => Target | undefined;
  readonly allocate: AllocateStaging;
  readonly observer?: BusObserver;
}

export class Bus {
  readonly links: Links;
  readonly exporter: Exporter;
  readonly #endpoint: Endpoint;
  readonly #listener: Listener;
  readonly #allocate: AllocateStaging;

  constructor(options: BusOptions) {
    const { sessionHost: host, handlers, targetOf, allocate, observer } = options;
    const endpoint = new Endpoint(options);
    this.#endpoint = endpoint;
    this.#allocate = allocate;
    this.links = new Links({ endpoint, handlers, targetOf, ...(observer && { observer }) });
    this.exporter = new Exporter({ endpoint, host, allocate, ...(observer && { observer }) });
    this.#listener = new Listener(endpoint, (incoming) => this.#accept(incoming));
  }

  /** Begins to take connections; returns the port (for port 0: the one that was found). Throws `in_use` or `config`. */
  listen(address: string, port: number): Promise<number> {
    return this.#listener.listen(address, port);
  }

  /** Opens a session with the host at `target`: see `openRemoteSession`. */
  openSession(
    options: { target: Target; attachment: string; epoch?: number; signal?: AbortSignal },
    onEnded: (cause: NetbusError) => void,
  ): Promise<RemoteSession> {
    return openRemoteSession({ ...options, endpoint: this.#endpoint, allocate: this.#allocate }, onEnded);
  }

  /** Takes nothing more, ends the links and the exported sessions; resolves when all their I/O has finished. Sessions that it opened are their openers' to close. */
  async close(): Promise<void> {
    this.#listener.close();
    this.links.close();
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
    }
  }
}
