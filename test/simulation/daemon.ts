/**
 * A host's daemon, put together as src/daemon/daemon.ts does it, of the real parts: store, records, exports, lease, disk device, bus, attachments,
 * virtual devices, write logs. In their places stand the simulated clock, network, files, kernel and frontend.
 */
import { join } from 'node:path';
import { DiskDevice } from '../../src/backends/disk/disk-device.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';
import { FailureLog } from '../../src/backends/disk/failure-log.ts';
import { Image } from '../../src/backends/disk/image.ts';
import { Bus } from '../../src/bus/bus.ts';
import { Attachments } from '../../src/daemon/attachments.ts';
import { createCallHandlers } from '../../src/daemon/calls.ts';
import { LocalDeviceHost } from '../../src/daemon/device-host.ts';
import { DeviceHosts, targetIn } from '../../src/daemon/device-hosts.ts';
import type { NewEvent } from '../../src/daemon/events.ts';
import type { OpenExport } from '../../src/daemon/export.ts';
import { Exports } from '../../src/daemon/exports.ts';
import { jobRecordSchema } from '../../src/daemon/job-record.ts';
import { Jobs } from '../../src/daemon/jobs.ts';
import { askKeptPage, keptLogHandlers } from '../../src/daemon/kept-log.ts';
import { createMigrationHandlers } from '../../src/daemon/migration-calls.ts';
import { MigrationDesk } from '../../src/daemon/migration-desk.ts';
import { planStart } from '../../src/daemon/plan.ts';
import { Preparation } from '../../src/daemon/preparation.ts';
import { attachmentRecordSchema, exportRecordSchema, virtualDeviceRecordSchema } from '../../src/daemon/records.ts';
import { RecordStore } from '../../src/daemon/store.ts';
import { Swaps } from '../../src/daemon/swaps.ts';
import { askVmDevices, vmDeviceHandlers } from '../../src/daemon/vm-devices.ts';
import type { Device } from '../../src/device/device.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { BackendSource, DataExtents } from '../../src/device/source.ts';
import { StaticDirectory } from '../../src/directory/static-directory.ts';
import { bounce } from '../../src/filters/bounce.ts';
import { WriteLog, type WriteLogOptions } from '../../src/filters/write-log/write-log.ts';
import type { Clock } from '../../src/lib/clock.ts';
import type { Log } from '../../src/lib/log.ts';
import { DirtyMap, type DirtyMaps } from '../../src/migration/mirror/dirty-map.ts';
import { BLOCK_BYTES, profileOf, type SimDisk, simulatedIo } from './disk.ts';
import { SimFrontend } from './frontend.ts';
import type { HostOptions, SimHost } from './host.ts';
import { watchStores } from './log-kill.ts';
import { ProcessMemory } from './memory.ts';
import { tellingSteps } from './swap-steps.ts';
import { SimProcess } from './world.ts';

export const STATE_FOLDER = '/state';
const LOCK_RETRY_MS = 200;
/** One log in so many kills its daemon, at one of the first so many stores. */
const DYING_LOGS = 6;
const STORES_MAX = 400;
/** Events that show that what a run is there for came about. */
const COUNTED = new Set<NewEvent['type']>([
  'export.moved',
  'export.handed-over',
  'export.settled',
  'export.fenced',
  'export.taken-over',
  'export.swap-decided',
  'export.superseded',
]);
/** What a host says that could not take back that it expects a VM. */
const NOT_TOLD = "the device's host was not told that the VM does not come";
/** Nothing can be made there. */
const NO_FILE = '/proc/none/log';

export class SimDaemon {
  readonly process: SimProcess;
  readonly memory: ProcessMemory;
  attachments!: Attachments;
  bus!: Bus;
  exports!: Exports;
  jobs!: Jobs;
  preparation!: Preparation;
  migrations!: MigrationDesk;
  deviceHosts!: DeviceHosts;
  isReady = false;
  readonly #host: SimHost;
  readonly #options: HostOptions;
  readonly #clock: Clock;
  readonly #bootId: string;
  readonly #io: IoCalls;
  readonly #diskOf = new Map<number, SimDisk>();
  #swaps!: Swaps;
  readonly #allocate: ProcessMemory['allocate'];
  #lastFd = 2;

  constructor(host: SimHost, options: HostOptions, bootId: string, name: string) {
    const { wrappers, world } = options;
    this.#host = host;
    this.#options = options;
    this.#bootId = bootId;
    this.process = new SimProcess(world, name);
    this.memory = new ProcessMemory(this.process);
    this.#allocate = wrappers.memory?.(this.memory.allocate) ?? this.memory.allocate;
    this.#clock = wrappers.clock?.(this.process.clock) ?? this.process.clock;
    const calls = simulatedIo(this.process, this.memory, this.#diskOf);
    this.#io = wrappers.calls?.(calls, this.process) ?? calls;
    this.process.at(world.latency(50), () => void this.#start().catch((thrown) => this.#failed(thrown)));
  }

  /** Devices of VMs as `status` shows them. */
  get entries(): ReturnType<Attachments['entries']> {
    return this.isReady ? this.attachments.entries() : [];
  }

  /** In the order of the composition root; `closed` once all is. */
  close(closed: () => void): void {
    if (!this.isReady) {
      closed();
      return;
    }
    const { world } = this.#options;
    const close = async () => {
      this.#swaps.end();
      await this.attachments.close();
      await this.jobs.close();
      await this.bus.close();
      await this.exports.close();
    };
    this.process.tell(() => {
      close().then(
        () => world.at(0, closed),
        (thrown) => this.#failed(thrown),
      );
    });
  }

  async #start(): Promise<void> {
    const { world, network, wrappers, hosts, certificate, runDir } = this.#options;
    const host = this.#host.name;
    const clock = this.#clock;
    const plainFiles = tellingSteps(this.#host.files.of(this.process), (...told) => this.#host.onStep(...told));
    const files = wrappers.files?.(plainFiles) ?? plainFiles;
    const log = this.#log();
    const events = { record: (event: NewEvent) => this.#recorded(event) };

    const exportRecords = new RecordStore(join(STATE_FOLDER, 'exports'), exportRecordSchema, files);
    const attachmentRecords = new RecordStore(join(STATE_FOLDER, 'attachments'), attachmentRecordSchema, files);
    const virtualDeviceRecords = new RecordStore(join(STATE_FOLDER, 'virtual-devices'), virtualDeviceRecordSchema, files);
    const jobRecords = new RecordStore(join(STATE_FOLDER, 'jobs'), jobRecordSchema, files);
    const load = async <Value>(store: RecordStore<Value>) => {
      const { records, damaged } = await store.load(clock.wallTime());
      for (const { file, reason } of damaged) this.#violated('records', `${file} cannot be used after a start: ${reason}`);
      return records;
    };
    const jobsBefore = await load(jobRecords);
    const actions = planStart({
      exports: await load(exportRecords),
      attachments: await load(attachmentRecords),
      virtualDevices: await load(virtualDeviceRecords),
    });

    const directory = new StaticDirectory(host, hosts);
    this.exports = new Exports({
      ...{ host, bootId: this.#bootId, exports: exportRecords, attachments: attachmentRecords },
      ...{ openExport: this.#openExport, clock, log, events },
      newId: () => world.nextId(),
      askOutcome: (name, request) => this.deviceHosts.get(name).copyOutcome(request),
    });
    const transport = network.transport(this.#host, this.process, certificate);
    this.bus = new Bus({
      identity: { cluster: 'lab', host },
      bootId: this.#bootId,
      release: '0.0.0',
      clock,
      log,
      admits: (name) => directory.admits(name),
      targetOf: (name) => targetIn(directory, name),
      sessionHost: { open: async (peer, { attachment }, onEnded) => this.exports.openSession(peer, attachment, onEnded) },
      handlers: {
        ...createCallHandlers(this.exports),
        ...vmDeviceHandlers(() => this.attachments),
        ...keptLogHandlers(() => this.attachments),
        ...createMigrationHandlers(
          {
            entries: () => this.attachments.entries(),
            prepare: (...given) => this.preparation.prepare(...given),
            preparedBy: (vm) => this.preparation.preparedBy(vm),
            unprepare: (vm) => this.preparation.unprepare(vm),
          },
          async () => {
            throw new NetbusError('not_found', 'the simulation has no jobs');
          },
        ),
      },
      allocate: this.#allocate,
      busyPollUs: 0,
      transport: wrappers.transport?.(transport) ?? transport,
    });
    const local = new LocalDeviceHost(this.exports, host, bounce(undefined, this.#allocate));
    const deviceHosts = new DeviceHosts({ host, local, directory, bus: this.bus });
    this.deviceHosts = deviceHosts;
    const deviceHost = (name: string) => wrappers.deviceHost?.(deviceHosts.get(name)) ?? deviceHosts.get(name);
    this.attachments = new Attachments({
      host,
      runDir: join(runDir, host),
      socketGroup: undefined,
      records: virtualDeviceRecords,
      hosts: () => deviceHosts.names,
      deviceHost,
      jobOf: (vm, name) => this.#swaps.of(vm, name),
      createFrontend: (options) => {
        const frontend = new SimFrontend(options, this.process, this.memory, wrappers.frontend ?? {});
        const key = options.path.slice(join(runDir, host).length + 1, -'.sock'.length);
        this.#host.sockets.set(key, frontend);
        const vmm = this.#host.vmms.get(key);
        if (vmm !== undefined) vmm.socket = frontend;
        return frontend;
      },
      identifyProcess: (pid) => ([...this.#host.vmms.values()].some((vmm) => vmm.pid === pid) ? String(pid) : 'gone'),
      writeLog: {
        boundBytes: this.#host.logBytes,
        bootId: this.#bootId,
        createLog: this.#createLog,
        askKeptPage: async (from, attachment, after) => {
          const page = await askKeptPage(this.bus.links, from, attachment, after);
          this.#options.world.count('pages of logs fetched');
          return page;
        },
        allocate: this.#allocate,
      },
      clock,
      log,
      events,
    });

    this.#swaps = new Swaps({
      ...{ runDir: join(runDir, host), bootId: this.#bootId, attachments: () => this.attachments, deviceHost },
      ...{ membershipAt: () => undefined, forgets: () => false, allocate: this.#allocate, maps: this.#maps, clock, log },
    });
    this.jobs = new Jobs({ records: jobRecords, makeJob: this.#swaps.makeJob, clock, log, events });
    this.jobs.restore(jobsBefore);

    const { names: hostNames } = deviceHosts;
    const { attachments, bus } = this;
    this.preparation = new Preparation({
      ...{ host, hosts: () => hostNames, deviceHost: (name) => deviceHosts.get(name), attachments },
      askDevices: (from, vm) => askVmDevices(bus.links, from, vm),
    });
    this.migrations = new MigrationDesk({
      ...{ host, entries: () => attachments.entries(), isMember: (name) => hosts.has(name) },
      ...{ links: bus.links, clock, log },
    });

    for (const action of actions) {
      if (action.type === 'restore-virtual-device') await this.attachments.restore(action.record);
      if (action.type === 'report') this.#violated('records', `${action.subject} is not served: ${action.reason}`);
    }
    for (const action of actions) {
      if (action.type === 'restore-export') void this.exports.restore(action.record, action.attachments);
    }
    const { address } = this.#host;
    await this.bus.listen(address, hosts.get(host)!.port);
    void this.jobs.resumeAll();
    this.isReady = true;
  }

  /** As backends/disk/disk.ts does it, but on a simulated disk. The lock belongs to the open file: whatever a killed process left in the kernel keeps it. */
  readonly #openExport: OpenExport = async (record, { signal, onWaiting, onFlushFailed }) => {
    const disk = this.#host.disks.get(record.disk!)!;
    const { wrappers } = this.#options;
    while (disk.leftBehind && wrappers.ignoresLock !== true) {
      onWaiting(`${record.disk} is in use`);
      await new Promise<void>((resolve) => this.#clock.after(LOCK_RETRY_MS, resolve));
      if (signal.aborted) throw new NetbusError('ended', 'closed');
    }
    const fd = ++this.#lastFd;
    this.#diskOf.set(fd, disk);
    const profile = profileOf(disk);
    const failures = new FailureLog(record.disk!, this.#clock, this.#log());
    const image = new Image({ path: record.disk!, fd, isBlockDevice: false, profile, failures });
    image.onFlushFailed = onFlushFailed;
    const source: BackendSource = {
      instance: `${record.disk}-${record.reopened}`,
      profile,
      open: (): Device => new DiskDevice(image, this.#io, 'threads', () => {}),
      describe: () => ({ path: record.disk! }),
      refresh: async () => profile,
      isBlank: async () => disk.isBlank,
      extents: (from) => this.#extents(disk, from),
      close: async () => {},
    };
    return wrappers.source?.(source) ?? source;
  };

  /** Those of a copy, in the host's memory; what is mapped goes with this process. */
  readonly #maps: DirtyMaps = {
    open: (options) => {
      const map = DirtyMap.open(options);
      return map && this.#mapped(map);
    },
    create: (...given) => this.#mapped(DirtyMap.create(...given)),
  };

  #mapped(map: DirtyMap): DirtyMap {
    this.process.onKill(() => map.close());
    return this.#options.wrappers.map?.(map) ?? map;
  }

  /** A look at a few blocks, which takes its time. */
  #extents(disk: SimDisk, from: number): Promise<DataExtents> {
    const { world } = this.#options;
    const first = from / BLOCK_BYTES;
    const end = Math.min(first + 1 + world.random.below(disk.blocks.length), disk.blocks.length);
    const ranges: [number, number][] = [];
    for (let block = first; block < end; block++) {
      if (disk.blocks[block].cache !== 0) ranges.push([block * BLOCK_BYTES, BLOCK_BYTES]);
    }
    const found = { ranges, ...(end < disk.blocks.length && { next: end * BLOCK_BYTES }) };
    return new Promise((resolve) => this.process.at(world.latency(1), () => resolve(found)));
  }

  /** The real one, in the host's memory. What of this process is mapped goes with it, so that it changes nothing of what the next one finds. */
  readonly #createLog = (options: WriteLogOptions, isFirst: boolean): WriteLog => {
    const { world, wrappers } = this.#options;
    const path = this.#host.hasLogMemory ? options.path : NO_FILE;
    const onSent = (bytes: number) => {
      world.count('logs sent again');
      options.onSent(bytes);
    };
    const make = wrappers.createLog ?? ((given, first) => new WriteLog(given, first));
    const log = make({ ...options, path, onSent }, isFirst);
    const { flushed } = log;
    log.flushed = (sequence) => {
      if (log.status().state === 'full') world.count('full logs');
      flushed.call(log, sequence);
    };
    this.#mayDieAtAStore(log);
    this.process.onKill(() => log.close());
    return log;
  };

  /** A daemon may be killed between any two stores of its log, and comes back. */
  #mayDieAtAStore(log: WriteLog): void {
    const { world } = this.#options;
    let left = world.chance(DYING_LOGS) ? 1 + world.random.below(STORES_MAX) : Number.POSITIVE_INFINITY;
    watchStores(log, () => {
      if (this.process.alive && --left > 0) return;
      if (this.process.alive) this.#host.daemonDies(this);
      this.process.die();
    });
  }

  #recorded({ type, subject, details }: NewEvent): void {
    const { world } = this.#options;
    if (this.process.alive && type === 'job.ended') this.#jobEnded(details as { state: string; code?: string });
    if (!this.process.alive || !type.startsWith('export.')) return;
    if (COUNTED.has(type)) world.count(type);
    if (type !== 'export.granted' && type !== 'export.moved') return;
    const { user, epoch } = details as { user: string; epoch: number };
    const exported = [...this.exports.all].find(({ name }) => name === subject)!;
    const record = exported.attachments.find(({ lease }) => lease.epoch === epoch && lease.holder !== null)!;
    const before = this.#host.epochs.get(record.id) ?? 0;
    world.trace(`${this.process.name} grants ${user} epoch ${epoch}`);
    if (epoch <= before) this.#violated('epoch', `${user} was granted epoch ${epoch} after ${before}`);
    this.#host.epochs.set(record.id, epoch);
    this.#host.onGranted(record);
  }

  #jobEnded({ state, code }: { state: string; code?: string }): void {
    const { world } = this.#options;
    world.count(`swaps ${state}`);
    world.trace(`${this.process.name} has a job that is ${state} ${code ?? ''}`);
    if (code === 'internal') this.#violated('bug', `a job of ${this.process.name} failed: ${code}`);
  }

  #log(): Log {
    const { world } = this.#options;
    const line = (level: string) => (fields: object, message: string) => {
      if (!this.process.alive) return;
      if (message === NOT_TOLD) world.count('standbys that stay');
      world.trace(`log ${this.process.name} ${level} ${message.replaceAll(/:5\d{4}/g, '')}`);
      if ('err' in fields) this.#violated('bug', `${message}: ${(fields.err as Error).stack}`);
    };
    return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') };
  }

  #failed(thrown: unknown): void {
    if (this.process.alive) this.#violated('bug', `${this.process.name}: ${(thrown as Error).stack}`);
  }

  #violated(invariant: string, message: string): void {
    this.#options.world.violated(invariant, message);
  }
}
