/** What all connections of this host share: its identity, clock, log and memory. Made once, by the composition root. */
import { native } from '../../native/index.ts';
import { BUSY_POLL_US_DEFAULT, BusyPoll } from '../lib/busy-poll.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { NETBUS_ALPN, PROTOCOL_VERSIONS, type VersionRange } from '../protocols/netbus/limits.ts';
import { makeSendBuffer } from './send-buffer.ts';
import { makeReceiveBuffer } from './tls-stream.ts';

/** TLS 1.3 only; AES-128-GCM first, because it is the fastest where the processor has AES instructions, and every one of ours has. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384';

export interface EndpointOptions {
  /** As `loadIdentity` of src/directory gives it: names, and PEM text. */
  readonly identity: {
    readonly cluster: string;
    readonly host: string;
    readonly ca: string;
    readonly certificate: string;
    readonly key: string;
  };
  /** The kernel's boot id: new with every boot of this host. */
  readonly bootId: string;
  /** This program's version, for people. */
  readonly release: string;
  readonly clock: Clock;
  readonly log: Log;
  /** True for the hosts that the config names. A certificate of the cluster alone lets nobody in. */
  readonly isMember: (host: string) => boolean;
  /** Longest time awake for a reply, in microseconds; 0: never. */
  readonly busyPollUs?: number;
  /** For tests of negotiation. */
  readonly versions?: VersionRange;
  /** Additions to the protocol that this host understands; none in version 1. */
  readonly features?: readonly string[];
}

export class Endpoint {
  readonly cluster: string;
  readonly host: string;
  readonly bootId: string;
  readonly release: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly isMember: (host: string) => boolean;
  readonly versions: VersionRange;
  readonly features: readonly string[];
  /** The addon's TLS context, for both roles. */
  readonly tlsContext: number;
  readonly sendBuffer = makeSendBuffer();
  readonly receiveBuffer = makeReceiveBuffer();
  readonly #busyPollUs: number;
  #closed = false;

  constructor(options: EndpointOptions) {
    const { identity } = options;
    this.cluster = identity.cluster;
    this.host = identity.host;
    this.bootId = options.bootId;
    this.release = options.release;
    this.clock = options.clock;
    this.log = options.log;
    this.isMember = options.isMember;
    this.#busyPollUs = options.busyPollUs ?? BUSY_POLL_US_DEFAULT;
    this.versions = options.versions ?? PROTOCOL_VERSIONS;
    this.features = options.features ?? [];
    const { ca: authority, certificate, key } = identity;
    this.tlsContext = native.createTlsContext({ authority, certificate, key, ciphers: CIPHERS, protocol: NETBUS_ALPN });
  }

  /** For one thing that is awaited. */
  newBusyPoll(): BusyPoll {
    return new BusyPoll({
      clock: this.clock,
      maxUs: this.#busyPollUs,
      stayAwake: (microseconds) => native.busyPoll(microseconds),
    });
  }

  /** Gives the TLS context back; connections that are open live on, and no new one can be made. Twice is once. */
  close(): void {
    if (!this.#closed) native.destroyTlsContext(this.tlsContext);
    this.#closed = true;
  }
}
