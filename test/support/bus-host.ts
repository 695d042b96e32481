/** Hosts for tests of the bus: identities of one test cluster, endpoints, and a device's host that is nothing but leases. */
import { Endpoint, type EndpointIdentity, type EndpointOptions } from '../../src/bus/endpoint.ts';
import type { OpenedSession, SessionHost } from '../../src/bus/session-host.ts';
import type { StagingRegion } from '../../src/bus/staging.ts';
import { NetbusError } from '../../src/device/errors.ts';
import { Lease } from '../../src/device/lease.ts';
import type { BackendSource } from '../../src/device/source.ts';
import { prepared } from '../../src/device/succession.ts';
import { type IssuedIdentity, issueAuthority, issueHost } from '../../src/directory/identity-issue.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { type Log, silentLog } from '../../src/lib/log.ts';
import { MemoryRecord } from './lease-record.ts';
import { MemoryRegion } from './memory-region.ts';

const TEST_CLUSTER = 'lab';

/** Who may be asked for a certificate: a cluster of the tests. */
export class TestAuthority {
  readonly cluster: string;
  readonly #authority: Promise<IssuedIdentity>;

  constructor(cluster = TEST_CLUSTER) {
    this.cluster = cluster;
    this.#authority = issueAuthority({ cluster, clock: systemClock });
  }

  /** An identity; `clock` is the one that its dates count from. */
  async identity(host: string, options: { clock?: Clock; cluster?: string } = {}): Promise<EndpointIdentity> {
    const { clock = systemClock, cluster = this.cluster } = options;
    const authority = await this.#authority;
    const issued = await issueHost({ authority, cluster, host, clock });
    return { cluster, host, ca: authority.certificate, ...issued };
  }

  async endpoint(host: string, options: Partial<EndpointOptions> = {}): Promise<Endpoint> {
    return new Endpoint(await this.endpointOptions(host, options));
  }

  async endpointOptions(host: string, options: Partial<EndpointOptions> = {}): Promise<EndpointOptions> {
    return {
      identity: options.identity ?? (await this.identity(host)),
      bootId: `boot-of-${host}`,
      release: '0.0.0',
      clock: systemClock,
      log: silentLog,
      admits: () => undefined,
      ...options,
    };
  }
}

/** Staging on the heap; counts what is not given back. */
export class TestStaging {
  regions = 0;

  readonly allocate = (bytes: number): StagingRegion => {
    const region = new MemoryRegion(bytes);
    let released = false;
    this.regions++;
    return {
      handle: region.handle,
      size: region.size,
      bytes: (offset, length) => {
        if (released) throw new Error('staging was used after it was released');
        return region.bytes(offset, length);
      },
      release: () => {
        if (!released) this.regions--;
        released = true;
      },
    };
  };
}

/** Attachments by id, each on a source of its own. The VM of each is at m2, and expected wherever a session was opened last. */
export class TestSessionHost implements SessionHost {
  readonly #leases = new Map<string, { lease: Lease; record: MemoryRecord; source: BackendSource }>();
  depth = 256;
  bytes: number | undefined;

  add(attachment: string, source: BackendSource, record = new MemoryRecord()): Lease {
    const lease = new Lease({ source, bootId: 'boot', record });
    this.#leases.set(attachment, { lease, record, source });
    return lease;
  }

  async open(...[peer, hello, onEnded]: Parameters<SessionHost['open']>): Promise<OpenedSession> {
    const found = this.#leases.get(hello.attachment);
    if (found === undefined) throw new NetbusError('not_found', `there is no attachment ${hello.attachment}`);
    const { lease, record, source } = found;
    if (record.value.host !== peer) await record.change((state) => prepared(state, { host: peer }));
    return {
      get profile() {
        return source.profile;
      },
      depth: this.depth,
      ...(this.bytes !== undefined && { bytes: this.bytes }),
      instance: source.instance,
      session: lease.session(peer, onEnded),
    };
  }
}

/** Keeps lines as "level: message". */
export class TestLog implements Log {
  readonly lines: string[] = [];
  debug = (_fields: object, message: string) => void this.lines.push(`debug: ${message}`);
  info = (_fields: object, message: string) => void this.lines.push(`info: ${message}`);
  warn = (_fields: object, message: string) => void this.lines.push(`warn: ${message}`);
  error = (_fields: object, message: string) => void this.lines.push(`error: ${message}`);
}
