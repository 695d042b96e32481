/** What all connections of this host share: its identity, clock, log and memory. Made once, by the composition root. */
import { native } from '../../native/index.ts';
import { BUSY_POLL_US_DEFAULT, BusyPoll } from '../lib/busy-poll.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { PROTOCOL_FEATURES, PROTOCOL_VERSIONS, type VersionRange } from '../protocols/netbus/limits.ts';
import type { PeerCertificate } from './peer.ts';
import { makeSendBuffer } from './send-buffer.ts';
import { TlsTransport } from './tls-transport.ts';
import type { Transport } from './transport.ts';

/** As `loadIdentity` of src/directory gives it: names, and PEM text; the certificate is followed by those between it and the root. */
export interface EndpointIdentity {
  readonly cluster: string;
  readonly host: string;
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export interface EndpointOptions {
  /** Names alone: a host that joins, and has no certificate yet. */
  readonly identity: EndpointIdentity | Pick<EndpointIdentity, 'cluster' | 'host'>;
  /** The kernel's boot id: new with every boot of this host. */
  readonly bootId: string;
  /** This program's version, for people. */
  readonly release: string;
  readonly clock: Clock;
  readonly log: Log;
  /**
   * Whether the host that a certificate names is in, by that certificate: undefined if so, else the reason, which fits behind "…: ". A certificate of the
   * cluster alone lets nobody in.
   */
  readonly admits: (host: string, certificate: PeerCertificate) => string | undefined;
  /** True for a host that is not in and that may know a newer member list: docs/protocol.md, 1. False for all where it is left out. */
  readonly isUnknown?: (host: string) => boolean;
  /** True for a host that was in, and that no certificate of then lets in again: it is told so for good. False for all where it is left out. */
  readonly wasMember?: (host: string) => boolean;
  /** TLS on TCP, with the identity, where it is left out. */
  readonly transport?: Transport;
  /** Longest time awake for a reply, in microseconds; 0: never. */
  readonly busyPollUs?: number;
  /** For tests of negotiation. */
  readonly versions?: VersionRange;
  /** Additions to the protocol that this host understands; all of this release where it is left out. */
  readonly features?: readonly string[];
}

export class Endpoint {
  readonly cluster: string;
  readonly host: string;
  readonly bootId: string;
  readonly release: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly admits: EndpointOptions['admits'];
  readonly isUnknown: (host: string) => boolean;
  readonly wasMember: (host: string) => boolean;
  readonly versions: VersionRange;
  readonly features: readonly string[];
  readonly sendBuffer = makeSendBuffer();
  readonly transport: Transport;
  readonly #busyPollUs: number;

  constructor(options: EndpointOptions) {
    const { identity } = options;
    this.cluster = identity.cluster;
    this.host = identity.host;
    this.bootId = options.bootId;
    this.release = options.release;
    this.clock = options.clock;
    this.log = options.log;
    this.admits = options.admits;
    this.isUnknown = options.isUnknown ?? (() => false);
    this.wasMember = options.wasMember ?? (() => false);
    this.#busyPollUs = options.busyPollUs ?? BUSY_POLL_US_DEFAULT;
    this.versions = options.versions ?? PROTOCOL_VERSIONS;
    this.features = options.features ?? PROTOCOL_FEATURES;
    this.transport = options.transport ?? new TlsTransport(options);
  }

  /** Connections from now on use this certificate, of the same host; those that are up go on with theirs. */
  useIdentity(identity: EndpointIdentity): void {
    if (identity.cluster !== this.cluster || identity.host !== this.host) throw new Error('an endpoint stays the same host');
    this.transport.useIdentity(identity);
  }

  /** For one thing that is awaited. */
  newBusyPoll(): BusyPoll {
    return new BusyPoll({
      clock: this.clock,
      maxUs: this.#busyPollUs,
      stayAwake: (microseconds) => native.busyPoll(microseconds),
    });
  }

  /** Connections that are open live on, and no new one can be made. Twice is once. */
  close(): void {
    this.transport.close();
  }
}
