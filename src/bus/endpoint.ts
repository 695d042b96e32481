/** What all connections of this host share: its identity, clock, log and memory. Made once, by the composition root. */
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { PROTOCOL_VERSIONS, type VersionRange } from '../protocols/netbus/limits.ts';
import type { PeerCertificate } from './peer.ts';
import { SendBufferPool } from './send-buffer.ts';

/** TLS 1.3 only; AES-128-GCM first, because it is the fastest where the processor has AES instructions, and every one of ours has. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384';

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
  readonly admits: EndpointOptions['admits'];
  readonly isUnknown: (host: string) => boolean;
  readonly versions: VersionRange;
  readonly features: readonly string[];
  /** Told when the certificate was replaced: what listens takes `secureOptions` anew. */
  readonly identityListeners = new Set<() => void>();
  #secureOptions: SecureContextOptions;
  #secureContext: SecureContext;
  readonly sendBuffers = new SendBufferPool();

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
    this.versions = options.versions ?? PROTOCOL_VERSIONS;
    this.features = options.features ?? [];
    this.#secureOptions = secureOptions(identity);
    this.#secureContext = createSecureContext(this.#secureOptions);
  }

  /** For a listener, which makes its own context of them. */
  get secureOptions(): SecureContextOptions {
    return this.#secureOptions;
  }

  /** For dialling. */
  get secureContext(): SecureContext {
    return this.#secureContext;
  }

  /** Connections from now on use this certificate, of the same host; those that are up go on with theirs. */
  useIdentity(identity: EndpointIdentity): void {
    if (identity.cluster !== this.cluster || identity.host !== this.host) throw new Error('an endpoint stays the same host');
    this.#secureOptions = secureOptions(identity);
    this.#secureContext = createSecureContext(this.#secureOptions);
    for (const listener of this.identityListeners) listener();
  }
}

function secureOptions(identity: EndpointOptions['identity']): SecureContextOptions {
  const versions: SecureContextOptions = { minVersion: 'TLSv1.3', ciphers: CIPHERS };
  if (!('certificate' in identity)) return versions;
  return { ...versions, ca: identity.ca, cert: identity.certificate, key: identity.key };
}
