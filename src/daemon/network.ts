/** The bus of this host, put together: one port, a control link per other host, sessions in both directions. */
import type { LinkEntry } from '../api/types.ts';
import { Endpoint } from '../bus/endpoint.ts';
import { Exporter } from '../bus/exporter.ts';
import { type Incoming, Listener } from '../bus/listener.ts';
import { Links } from '../bus/links.ts';
import { openRemoteSession } from '../bus/remote-session.ts';
import type { AllocateStaging } from '../bus/staging.ts';
import type { OpenSession } from '../device/source.ts';
import type { Identity } from '../directory/identity.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { formatAddress } from './address.ts';
import type { CallHandler } from './calls.ts';
import type { Config } from './config.ts';
import type { Exports } from './exports.ts';
import type { Call } from './remote-host.ts';

export interface NetworkOptions {
  readonly config: Config;
  readonly identity: Identity;
  readonly bootId: string;
  readonly release: string;
  readonly handlers: Record<string, CallHandler>;
  /** What sessions of other hosts are opened on. */
  readonly exports: Exports;
  readonly allocate: AllocateStaging;
  readonly clock: Clock;
  readonly log: Log;
}

export class Network {
  readonly #options: NetworkOptions;
  readonly #endpoint: Endpoint;
  readonly #links: Links;
  readonly #exporter: Exporter;
  readonly #listener: Listener;
  /** Sessions that are being opened are given up at the end. */
  readonly #closing = new AbortController();

  constructor(options: NetworkOptions) {
    const { config, identity, bootId, release, handlers, exports, allocate, clock, log } = options;
    this.#options = options;
    this.#endpoint = new Endpoint({ identity, bootId, release, clock, log, isMember: (host) => config.hosts.has(host) });
    this.#links = new Links({ endpoint: this.#endpoint, handlers, targetOf: (host) => this.#target(host) });
    this.#exporter = new Exporter({
      endpoint: this.#endpoint,
      host: { open: async (peer, { attachment }, onEnded) => exports.openSession(peer, attachment, onEnded) },
      allocate,
    });
    this.#listener = new Listener(this.#endpoint, (incoming) => this.#accept(incoming));
  }

  /** Throws `in_use` or `config` where the address cannot be had. */
  async listen(): Promise<void> {
    const { host, port } = this.#options.config.listen;
    await this.#listener.listen(host, port);
  }

  /** What another host is reached by. */
  peer(host: string): { host: string; call: Call; openSession: (attachment: string) => OpenSession } {
    const { allocate } = this.#options;
    return {
      host,
      call: (method, params) => this.#links.call(host, method, params),
      openSession: (attachment) => (onEnded) => {
        const { signal } = this.#closing;
        return openRemoteSession(
          { endpoint: this.#endpoint, target: this.#target(host)!, attachment, allocate, signal },
          onEnded,
        );
      },
    };
  }

  /** One for each other host, whether there was something to say to it or not. */
  links(): LinkEntry[] {
    const { config } = this.#options;
    const others = [...config.hosts.keys()].filter((host) => host !== config.host);
    return this.#links.status(others).map(({ peer, state, since, error }) => ({
      host: peer,
      address: formatAddress(config.hosts.get(peer)!),
      state,
      since: new Date(since).toISOString(),
      ...(error !== undefined && { reason: error }),
    }));
  }

  /** Takes nothing new and ends the links and the sessions of others, and waits for their I/O. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#listener.close();
    await this.#exporter.close();
    this.#links.close();
  }

  #accept(incoming: Incoming): void {
    const { hello } = incoming;
    if (hello.purpose === 'session') void this.#exporter.accept({ ...incoming, hello });
    else this.#links.accept(incoming);
  }

  #target(host: string): { host: string; address: string; port: number } | undefined {
    const address = this.#options.config.hosts.get(host);
    return address && { host, address: address.host, port: address.port };
  }
}
