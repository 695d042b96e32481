/**
 * The composition root: makes every part of a daemon, top to bottom, and gives each what it needs. Nothing lives in modules, so that two daemons
 * fit into one process.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NativeRegion } from '../../native/region.ts';
import type { LinkEntry, Status } from '../api/types.ts';
import { Bus } from '../bus/bus.ts';
import { NetbusError } from '../device/errors.ts';
import type { Member } from '../directory/directory.ts';
import { type Identity, loadIdentity } from '../directory/identity.ts';
import { bounce } from '../filters/bounce.ts';
import { createDiskFrontend } from '../frontends/vhost-user/disk-frontend.ts';
import { type Address, formatAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Attachments } from './attachments.ts';
import { createCallHandlers } from './calls.ts';
import { Closers } from './closers.ts';
import type { Config } from './config.ts';
import { type DeviceHost, LocalDeviceHost } from './device-host.ts';
import { listDevices } from './devices.ts';
import { openDirectory } from './directory.ts';
import { Exports } from './exports.ts';
import { lockFolder } from './folder-lock.ts';
import { Metrics } from './metrics.ts';
import { diskOpener } from './open-disk.ts';
import { controlSocketPath } from './paths.ts';
import { type Action, planStart } from './plan.ts';
import { describeHost, probeMembers } from './probe.ts';
import { attachmentRecordSchema, exportRecordSchema, virtualDeviceRecordSchema } from './records.ts';
import { RemoteDeviceHost } from './remote-host.ts';
import { createRoutes } from './routes.ts';
import { serveControl } from './server.ts';
import { RecordStore } from './store.ts';

const STATE_FOLDER_MODE = 0o700;
/** Others pass through on their way to the sockets, whose folders have modes of their own. */
const RUN_FOLDER_MODE = 0o755;

export interface DaemonOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  /** This program's version. */
  readonly release: string;
}

export interface Daemon {
  /** The control API's socket. */
  readonly socket: string;
  /** Lets the VMMs go, ends the sessions and closes everything. Twice is once. */
  close(): Promise<void>;
}

/** Resolves when the daemon can be asked; what it has from before may still be on its way (`/readyz`). Rejects with nothing left open. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const closers = new Closers();
  try {
    const socket = await start(options, closers);
    return { socket, close: () => closers.close(options.log) };
  } catch (thrown) {
    await closers.close(options.log);
    throw thrown;
  }
}

/** Whatever is opened is added to `closers` at once, and closed in the reverse order. */
async function start(options: DaemonOptions, closers: Closers): Promise<string> {
  const { config, log, clock, release } = options;
  const { host, runDir, stateDir } = config;
  const startedAt = new Date(clock.wallTime()).toISOString();
  const socket = controlSocketPath(runDir);
  const identity = await loadIdentity(config.pki, clock);
  checkIdentity(config, identity);
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();

  closers.add('the state folder', await lockFolder(stateDir, 'state folder', STATE_FOLDER_MODE));
  closers.add('the run folder', await lockFolder(runDir, 'run folder', RUN_FOLDER_MODE));
  const exportRecords = new RecordStore(join(stateDir, 'exports'), exportRecordSchema);
  const attachmentRecords = new RecordStore(join(stateDir, 'attachments'), attachmentRecordSchema);
  const virtualDeviceRecords = new RecordStore(join(stateDir, 'virtual-devices'), virtualDeviceRecordSchema);
  const actions = planStart({
    exports: await load(exportRecords, options),
    attachments: await load(attachmentRecords, options),
    virtualDevices: await load(virtualDeviceRecords, options),
  });

  const metrics = new Metrics(release);
  closers.add('the metrics', () => metrics.clear());

  const exports = new Exports({
    host,
    bootId,
    exports: exportRecords,
    attachments: attachmentRecords,
    openExport: diskOpener(clock, log),
    clock,
    log,
  });
  closers.add('the exports', () => exports.close());

  const directory = await openDirectory(config, identity, options);
  const targetOf = (name: string) => {
    const address = directory.members().get(name)?.address;
    return address && { host: name, address: address.host, port: address.port };
  };
  const bus = new Bus({
    identity,
    bootId,
    release,
    clock,
    log,
    isMember: (name) => directory.members().has(name),
    targetOf,
    sessionHost: { open: async (peer, { attachment }, onEnded) => exports.openSession(peer, attachment, onEnded) },
    handlers: { ...createCallHandlers(exports), 'host.describe': describeHost(release, clock) },
    allocate: (bytes) => NativeRegion.allocate(bytes),
  });
  closers.add('the bus', () => bus.close());

  // What a cut leaves in the kernel must not reach a guest's memory; far away, the network stands in between.
  const isolate = bounce();
  const deviceHosts = new Map<string, DeviceHost>();
  for (const name of directory.members().keys()) {
    deviceHosts.set(
      name,
      name === host ? new LocalDeviceHost(exports, host, isolate) : new RemoteDeviceHost(bus, targetOf(name)!),
    );
  }

  const attachments = new Attachments({
    host,
    runDir,
    records: virtualDeviceRecords,
    hosts: [...directory.members().keys()],
    deviceHost: (name) => deviceHosts.get(name),
    createFrontend: createDiskFrontend,
    clock,
    log,
  });
  closers.add('the attachments', () => attachments.close());
  const links = () => linkEntries(bus, host, directory.members());
  metrics.watch({ links, attachments: () => attachments.all, exports: () => exports.all });

  // A VMM may be waiting for its socket, and needs nobody else for it.
  for (const action of actions) {
    if (action.type === 'restore-virtual-device') await attachments.restore(action.record);
  }
  await bus.listen(config.listen.host, config.listen.port);
  let ready = false;
  const restored = restoreExports(actions, exports, log);

  const status = async (): Promise<Status> => ({
    host,
    cluster: config.cluster,
    release,
    pid: process.pid,
    startedAt,
    bootId,
    address: formatAddress(config.listen),
    certificateExpiresAt: new Date(identity.expiresAt).toISOString(),
    links: links(),
    exports: await exports.entries(),
    attachments: attachments.entries(),
    warnings: [],
  });
  const app = createRoutes({
    exports,
    attachments,
    metrics,
    status,
    devices: (withinMs) => listDevices(deviceHosts, clock, withinMs),
    probe: () => probeMembers(bus.links, otherAddresses(host, directory.members()), clock),
    notReady: () => (ready ? undefined : 'exports and attachments of before are being opened'),
    log,
  });
  const server = await serveControl(socket, app);
  closers.add('the control socket', () => server.close());
  log.info({ socket, listen: formatAddress(config.listen), release, pid: process.pid }, 'daemon started');
  void restored.then(() => {
    ready = true;
    log.info({}, 'daemon ready');
  });
  return socket;
}

function otherAddresses(host: string, members: ReadonlyMap<string, Member>): Map<string, Address> {
  return new Map([...members.values()].filter((member) => member.host !== host).map((member) => [member.host, member.address]));
}

/** One for each other host, whether there was something to say to it yet or not. */
function linkEntries(bus: Bus, host: string, members: ReadonlyMap<string, Member>): LinkEntry[] {
  const others = [...members.keys()].filter((name) => name !== host);
  return bus.links.status(others).map(({ peer, state, since, error }) => ({
    host: peer,
    address: formatAddress(members.get(peer)!.address),
    state,
    since: new Date(since).toISOString(),
    ...(error !== undefined && { reason: error }),
  }));
}

/** The identity is what other hosts go by; a config that says something else is a mix-up. */
function checkIdentity(config: Config, identity: Identity): void {
  if (identity.cluster === config.cluster && identity.host === config.host) return;
  const { certificate } = config.pki;
  throw new NetbusError(
    'config',
    `${config.file}: this is host ${config.host} of cluster ${config.cluster}, but ${certificate} is for ${identity.host} of ${identity.cluster}: correct one of them`,
  );
}

async function load<Value>(store: RecordStore<Value>, { clock, log }: DaemonOptions): Promise<ReadonlyMap<string, Value>> {
  const { records, damaged } = await store.load(clock.wallTime());
  for (const { file, keptAs, reason } of damaged) log.error({ file, keptAs, reason }, 'a damaged record was set aside');
  return records;
}

/** Resolves when each is open or known not to be: all at once, because one may wait for long. */
async function restoreExports(actions: readonly Action[], exports: Exports, log: Log): Promise<void> {
  const opening: Promise<void>[] = [];
  for (const action of actions) {
    if (action.type === 'restore-export') opening.push(exports.restore(action.record, action.attachments));
    if (action.type === 'report') log.error({ reason: action.reason }, `${action.subject} is not served`);
  }
  await Promise.all(opening);
}
