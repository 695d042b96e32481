/**
 * The composition root: makes every part of a daemon, top to bottom, and gives each what it needs. Nothing lives in modules, so that two daemons
 * fit into one process.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NativeRegion } from '../../native/region.ts';
import type { LinkEntry, Status } from '../api/types.ts';
import { Bus } from '../bus/bus.ts';
import type { EndpointOptions } from '../bus/endpoint.ts';
import { NetbusError } from '../device/errors.ts';
import type { Member } from '../directory/directory.ts';
import { type Identity, loadIdentity } from '../directory/identity.ts';
import { verifyHandOver } from '../directory/signed-hand-over.ts';
import { bounce } from '../filters/bounce.ts';
import { createDiskFrontend } from '../frontends/vhost-user/disk-frontend.ts';
import { type Address, formatAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { Attachments } from './attachments.ts';
import { busAttachments } from './bus-attachments.ts';
import { busEvents } from './bus-events.ts';
import { createCallHandlers, forMembersAlone } from './calls.ts';
import { Closers } from './closers.ts';
import type { Config } from './config.ts';
import { LocalDeviceHost } from './device-host.ts';
import { DeviceHosts, targetIn } from './device-hosts.ts';
import { listDevices } from './devices.ts';
import { openDirectory } from './directory.ts';
import { Events } from './events.ts';
import { Exports } from './exports.ts';
import { checkFence, fenceHost } from './fence.ts';
import { Follows, startFollow } from './follow.ts';
import { deviceGroup } from './group.ts';
import { handOverHandlers, handOverPeers } from './hand-over-calls.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { IssuingDesk } from './issuing-desk.ts';
import { openIssuingHost } from './issuing-host.ts';
import { jobRecordSchema } from './job-record.ts';
import { Jobs } from './jobs.ts';
import { askKeptPage, keptLogHandlers } from './kept-log.ts';
import { Membership } from './membership.ts';
import { Metrics } from './metrics.ts';
import { createMigrationHandlers } from './migration-calls.ts';
import { MigrationDesk } from './migration-desk.ts';
import { exportOpener } from './open-export.ts';
import { Overview } from './overview.ts';
import { keepFailure, takeFolders } from './own-folders.ts';
import { controlSocketPath } from './paths.ts';
import { type Action, planStart } from './plan.ts';
import { Preparation } from './preparation.ts';
import { describeHost, probeMembers } from './probe.ts';
import { Rates } from './rates.ts';
import { attachmentRecordSchema, exportRecordSchema, virtualDeviceRecordSchema } from './records.ts';
import { createRoutes } from './routes.ts';
import { serveControl } from './server.ts';
import { RecordStore } from './store.ts';
import { Swaps } from './swaps.ts';
import { askVmDevices, vmDeviceHandlers } from './vm-devices.ts';

export interface DaemonOptions {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  /** Of what a VMM waits for, with its bounds; `clock` by default. */
  readonly frontendClock?: Clock;
  /** This program's version. */
  readonly release: string;
  /** What tells this boot of the host from others; the kernel's by default. */
  readonly bootId?: string;
  /** For tests of neighbouring releases: what this host says that it speaks. */
  readonly protocol?: Pick<EndpointOptions, 'versions' | 'features'>;
}

export interface Daemon {
  /** The control API's socket. */
  readonly socket: string;
  /** Takes certificate and key anew from their files. Rejects with what is wrong with them; those of before then stay. */
  reload(): Promise<void>;
  /** Lets the VMMs go, ends the sessions and closes everything. Twice is once. */
  close(): Promise<void>;
}

/** Resolves when the daemon can be asked; what it has from before may still be on its way (`/readyz`). Rejects with nothing left open. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { config, log, clock } = options;
  const closers = new Closers();
  const events = new Events({ host: config.host, path: join(config.stateDir, 'events.ndjson'), clock, log });
  try {
    const started = await start(options, closers, events);
    return { ...started, close: () => closers.close(log) };
  } catch (thrown) {
    const error = NetbusError.from(thrown);
    const told = events.isOpen;
    if (told) events.failed(error);
    await closers.close(log);
    if (!told) await keepFailure(events, config.stateDir, error);
    throw thrown;
  }
}

/** Whatever is opened is added to `closers` at once, and closed in the reverse order. */
async function start(options: DaemonOptions, closers: Closers, events: Events): Promise<Pick<Daemon, 'socket' | 'reload'>> {
  const { config, log, clock, frontendClock = clock, release } = options;
  const { host, runDir, stateDir, busyPollUs, writeLogBytes } = config;
  const startedAt = new Date(clock.wallTime()).toISOString();
  const socket = controlSocketPath(runDir);
  // One that has expired stops nothing here: the devices of this host need no other one, and the issuing host renews its own.
  const identity = await loadIdentity(config.pki, clock, { expired: 'allowed' });
  checkIdentity(config, identity);
  let presentIdentity = identity;
  const socketGroup = await deviceGroup(config);
  const bootId = options.bootId ?? (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();

  closers.add('the folders', await takeFolders({ stateDir, runDir }));
  closers.add('the events', () => events.close());
  await events.open({ release, bootId, pid: process.pid });
  const exportRecords = new RecordStore(join(stateDir, 'exports'), exportRecordSchema);
  const attachmentRecords = new RecordStore(join(stateDir, 'attachments'), attachmentRecordSchema);
  const virtualDeviceRecords = new RecordStore(join(stateDir, 'virtual-devices'), virtualDeviceRecordSchema);
  const jobRecords = new RecordStore(join(stateDir, 'jobs'), jobRecordSchema);
  const jobsBefore = await load(jobRecords, options, events);
  const actions = planStart({
    exports: await load(exportRecords, options, events),
    attachments: await load(attachmentRecords, options, events),
    virtualDevices: await load(virtualDeviceRecords, options, events),
  });

  const directory = await openDirectory(config, identity, options);
  const desk: IssuingDesk = new IssuingDesk({
    ...{ host, directory, log, events },
    open: () => openIssuingHost(config, identity, directory, options),
    announce: (left) => membership.announce(left),
  });
  await desk.open();
  const membership = new Membership({ host, cluster: config.cluster, directory, desk, clock, log, events });
  const isMember = (name: string) => directory.members().has(name);
  const targetOf = (name: string) => targetIn(directory, name);

  const metrics = new Metrics(release);
  closers.add('the metrics', () => metrics.clear());

  const exports = new Exports({
    host,
    bootId,
    exports: exportRecords,
    attachments: attachmentRecords,
    openExport: exportOpener(clock, log),
    membershipOf: (name) => membership.numberOf(name),
    isMember,
    verifyHandOver: (signed) => verifyHandOver(signed, { ca: identity.ca, cluster: config.cluster, directory, clock }),
    askOutcome: (name, request) => deviceHosts.get(name).copyOutcome(request),
    clock,
    log,
    events,
  });
  closers.add('the exports', () => exports.close());

  const bus = new Bus({
    ...options.protocol,
    identity,
    bootId,
    release,
    clock,
    log,
    admits: (name, certificate) => directory.admits(name, certificate),
    isUnknown: (name) => membership.isUnknown(name),
    wasMember: (name) => membership.wasMember(name),
    targetOf,
    onLinkUp: (name) => membership.linkUp(name),
    joinHost: desk.joinHost,
    sessionHost: { open: async (peer, { attachment }, onEnded) => exports.openSession(peer, attachment, onEnded) },
    handlers: forMembersAlone(
      {
        ...createCallHandlers(exports),
        ...vmDeviceHandlers(() => attachments),
        ...keptLogHandlers(() => attachments),
        ...handOverHandlers(() => attachments),
        ...createMigrationHandlers(
          {
            entries: () => attachments.entries(),
            prepare: (...given) => preparation.prepare(...given),
            preparedBy: (vm) => preparation.preparedBy(vm),
            unprepare: (vm) => preparation.unprepare(vm),
          },
          (request) => startFollow({ host, jobs: () => jobs, isMember, deviceHost: (name) => deviceHosts.get(name) }, request),
        ),
        'host.describe': describeHost(release, clock),
        ...membership.handlers,
      },
      isMember,
    ),
    allocate: (bytes) => NativeRegion.allocate(bytes),
    busyPollUs,
    observer: busEvents(events, exports),
  });
  closers.add('the bus', () => bus.close());

  // What a cut leaves in the kernel must not reach a guest's memory; far away, the network stands in between.
  const isolate = bounce();
  const local = new LocalDeviceHost(exports, host, isolate);
  const deviceHosts: DeviceHosts = new DeviceHosts({ host, local, directory, bus });

  const attachments: Attachments = new Attachments({
    host,
    runDir,
    socketGroup,
    records: virtualDeviceRecords,
    hosts: () => deviceHosts.names,
    deviceHost: (name) => deviceHosts.get(name),
    createFrontend: (frontend) => createDiskFrontend({ ...frontend, clock: frontendClock, busyPollUs, migratable: true }),
    membership: () => membership.numberOf(host),
    whyFenced: (record) => membership.whyFenced(record),
    writeLog: {
      boundBytes: writeLogBytes,
      bootId,
      askKeptPage: (from, attachment, after) => askKeptPage(bus.links, from, attachment, after),
      allocate: (bytes) => NativeRegion.allocate(bytes),
    },
    handOverPeers: handOverPeers(bus.links, () => presentIdentity),
    jobOf: (vm, name) => swaps.of(vm, name),
    clock,
    log,
    events,
  });
  const swaps: Swaps = new Swaps({
    runDir,
    bootId,
    attachments: () => attachments,
    deviceHost: (name) => deviceHosts.get(name),
    membershipAt: (name) => (name === host ? undefined : membership.numberOf(host)),
    forgets: (device) => device.host === host && exports.forgets(device.export),
    allocate: (bytes) => NativeRegion.allocate(bytes),
    clock,
    log,
  });
  const jobs: Jobs = new Jobs({ records: jobRecords, makeJob: swaps.makeJob, clock, log, events });
  closers.add('the jobs', () => jobs.close());
  // Their mirrors note what a guest writes as long as it has its device.
  closers.add('the attachments', () => attachments.close());
  closers.add('what jobs wait for', async () => swaps.end());
  const preparation: Preparation = new Preparation({
    host,
    hosts: () => deviceHosts.names,
    deviceHost: (name) => deviceHosts.get(name),
    attachments,
    askDevices: (from, vm) => askVmDevices(bus.links, from, vm),
  });
  const links = () => linkEntries(bus, host, directory.members());
  const rates = new Rates(clock, () => attachments.all);
  closers.add('the rates', () => rates.close());
  const overview = new Overview({
    host,
    clock,
    attachments: () => attachments.all,
    rates,
    sessions: () => bus.exporter.sessions,
    record: (id) => exports.record(id),
    jobs: () => jobs.entries(),
    eventsNotStored: () => events.notStored,
  });
  metrics.watch({ jobs: () => jobs.entries(), links, attachments: () => attachments.all, exports: () => exports.all });

  // Before any guest comes: a job stands in the path of its virtual device.
  jobs.restore(jobsBefore);
  // A VMM may be waiting for its socket, and needs nobody else for it.
  for (const action of actions) {
    if (action.type === 'restore-virtual-device') await attachments.restore(action.record);
  }
  let ready = false;
  const restored = restoreExports(actions, exports, options, events);
  // Who was evicted while this daemon was down must not find anything of its own when the port is open.
  await membership.start({ bus, exports });
  await bus.listen(config.listen.host, config.listen.port);
  closers.add('the membership', async () => membership.close());
  void jobs.resumeAll();
  const keeper = new IdentityKeeper({
    files: config.pki,
    identity,
    ...(directory.signed && { renew: (...given) => membership.renew(...given) }),
    use: (renewed) => {
      presentIdentity = renewed;
      bus.useIdentity(renewed);
    },
    clock,
    log,
    events,
  });
  keeper.start();
  closers.add('the identity', () => keeper.close());

  const status = async (): Promise<Status> =>
    overview.complete({
      host,
      cluster: config.cluster,
      release,
      pid: process.pid,
      startedAt,
      bootId,
      address: formatAddress(config.listen),
      certificateExpiresAt: new Date(keeper.identity.expiresAt).toISOString(),
      links: links(),
      exports: await exports.entries(),
      warnings: [...keeper.warnings, ...membership.warnings],
    });
  const migrations = new MigrationDesk({ host, entries: () => attachments.entries(), isMember, links: bus.links, clock, log });
  const follows = new Follows({ host, entries: () => attachments.entries(), isMember, links: bus.links });
  const app = createRoutes({
    exports,
    attachments,
    preparation,
    membership,
    desk,
    migrations,
    jobs,
    follows,
    metrics,
    status,
    devices: (query) => listDevices({ ...query, hosts: deviceHosts.all, links: links(), clock }),
    busAttachments: async () => {
      const devices = await listDevices({ details: true, hosts: deviceHosts.all, links: links(), clock });
      return busAttachments(devices, attachments.entries(), host);
    },
    checkFence: (dead) => checkFence(dead, { own: host, hosts: deviceHosts.all, links: links() }),
    fence: async (dead) => {
      const result = await fenceHost(dead, { own: host, hosts: deviceHosts.all, links: links() });
      log.warn({ host: dead, fenced: result.fenced, untold: result.untold }, `host ${dead} was fenced`);
      return result;
    },
    events,
    probe: () => probeMembers(bus.links, otherAddresses(host, directory.members()), clock),
    notReady: () => (ready ? undefined : 'exports and attachments of before are being opened'),
    log,
  });
  const server = await serveControl(socket, app);
  closers.add('the control socket', () => server.close());
  closers.add('the watchers', () => events.endWatchers());
  log.info({ socket, listen: formatAddress(config.listen), release, pid: process.pid }, 'daemon started');
  void restored.then(() => {
    ready = true;
    log.info({}, 'daemon ready');
  });
  const reload = async () => {
    try {
      await keeper.reload();
    } catch (thrown) {
      const message = `certificate and key were not taken anew: ${NetbusError.from(thrown).message}`;
      events.record({ type: 'identity.error', subject: host, message });
      throw thrown;
    }
  };
  return { socket, reload };
}

function otherAddresses(host: string, members: ReadonlyMap<string, Member>): Map<string, Address> {
  return new Map([...members.values()].filter((member) => member.host !== host).map((member) => [member.host, member.address]));
}

/** One for each other host, whether there was something to say to it yet or not. */
function linkEntries(bus: Bus, host: string, members: ReadonlyMap<string, Member>): LinkEntry[] {
  const others = [...members.keys()].filter((name) => name !== host);
  return bus.links.status(others).map(({ peer, state, since, rttMs, lastSeen, error }) => ({
    host: peer,
    address: formatAddress(members.get(peer)!.address),
    state,
    since: new Date(since).toISOString(),
    ...(rttMs !== undefined && { rttMs: Number(rttMs.toFixed(3)) }),
    ...(lastSeen !== undefined && { lastSeen: new Date(lastSeen).toISOString() }),
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

async function load<Value>(
  store: RecordStore<Value>,
  { config, clock, log }: DaemonOptions,
  events: Events,
): Promise<ReadonlyMap<string, Value>> {
  const { records, damaged } = await store.load(clock.wallTime());
  for (const { file, keptAs, reason } of damaged) {
    log.error({ file, keptAs, reason }, 'a damaged record was set aside');
    const message = `the record ${file} cannot be used and was kept as ${keptAs}: ${reason}`;
    events.record({ type: 'state.damaged', subject: config.host, message, details: { file, keptAs, reason } });
  }
  return records;
}

/** Resolves when each is open or known not to be: all at once, because one may wait for long. */
async function restoreExports(
  actions: readonly Action[],
  exports: Exports,
  { config, log }: DaemonOptions,
  events: Events,
): Promise<void> {
  const opening: Promise<void>[] = [];
  for (const action of actions) {
    if (action.type === 'restore-export') opening.push(exports.restore(action.record, action.attachments));
    if (action.type !== 'report') continue;
    const { subject, reason } = action;
    log.error({ reason }, `${subject} is not served`);
    events.record({ type: 'state.damaged', subject: config.host, message: `${subject} is not served: ${reason}` });
  }
  await Promise.all(opening);
}
