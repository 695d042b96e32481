/** Two hosts on loopback TLS in one process: m1 has devices, m2 uses them. */
import { Bus } from '../../src/bus/bus.ts';
import type { ControlHandlers } from '../../src/bus/control-link.ts';
import type { Target } from '../../src/bus/dial.ts';
import type { EndpointOptions } from '../../src/bus/endpoint.ts';
import type { RemoteSession } from '../../src/bus/remote-session.ts';
import type { SessionHost } from '../../src/bus/session-host.ts';
import type { AllocateStaging } from '../../src/bus/staging.ts';
import type { NetbusError } from '../../src/device/errors.ts';
import { TestAuthority, TestLog, TestSessionHost, TestStaging } from './bus-host.ts';

/** The CA of every pair, for a third host. */
export const pairAuthority = new TestAuthority();

export interface BusPair {
  readonly m1: Bus;
  readonly m2: Bus;
  readonly host: TestSessionHost;
  readonly target: Target;
  readonly staging: TestStaging;
  readonly log: TestLog;
  open(attachment: string, onEnded?: (cause: NetbusError) => void): Promise<RemoteSession>;
  close(): Promise<void>;
}

export async function busPair(
  options: {
    m1?: Partial<EndpointOptions>;
    m2?: Partial<EndpointOptions>;
    handlers?: ControlHandlers;
    allocate?: AllocateStaging;
    /** In place of `host`. */
    sessionHost?: SessionHost;
  } = {},
): Promise<BusPair> {
  const host = new TestSessionHost();
  const staging = new TestStaging();
  const log = new TestLog();
  const targets = new Map<string, Target>();
  const common = {
    sessionHost: options.sessionHost ?? host,
    handlers: options.handlers ?? {},
    targetOf: (name: string) => targets.get(name),
    allocate: options.allocate ?? staging.allocate,
  };
  const m1 = new Bus({ ...(await pairAuthority.endpointOptions('m1', { log, ...options.m1 })), ...common });
  const m2 = new Bus({ ...(await pairAuthority.endpointOptions('m2', { log, ...options.m2 })), ...common });
  for (const [name, bus] of [
    ['m1', m1],
    ['m2', m2],
  ] as const) {
    targets.set(name, { host: name, address: '127.0.0.1', port: await bus.listen('127.0.0.1', 0) });
  }
  const target = targets.get('m1')!;
  return {
    m1,
    m2,
    host,
    target,
    staging,
    log,
    open: (attachment, onEnded = () => {}) => m2.openSession({ target, attachment }, onEnded),
    close: async () => {
      await Promise.all([m1.close(), m2.close()]);
    },
  };
}
