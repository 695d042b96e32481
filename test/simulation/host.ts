/** A host: its disks, records and run folder, the VMs that run on it, and its daemon; it loses its power, and boots. */
import type { X509Certificate } from 'node:crypto';
import { existsSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { IoCalls } from '../../src/backends/disk/engine.ts';
import type { Transport } from '../../src/bus/transport.ts';
import type { DeviceHost } from '../../src/daemon/device-host.ts';
import { dirtyMapPath } from '../../src/daemon/paths.ts';
import type { RecordFiles } from '../../src/daemon/record-files.ts';
import type { AttachmentRecord } from '../../src/daemon/records.ts';
import type { BackendSource } from '../../src/device/source.ts';
import { LOG_BLOCK_BYTES } from '../../src/filters/write-log/log-file.ts';
import type { WriteLog, WriteLogOptions } from '../../src/filters/write-log/write-log.ts';
import type { Address } from '../../src/lib/address.ts';
import type { Clock } from '../../src/lib/clock.ts';
import type { DirtyMap } from '../../src/migration/mirror/dirty-map.ts';
import { SimDaemon } from './daemon.ts';
import type { SimDisk } from './disk.ts';
import { SimFiles } from './files.ts';
import type { BrokenFrontend, SimFrontend } from './frontend.ts';
import type { ProcessMemory } from './memory.ts';
import type { Network, NetworkHost } from './network.ts';
import type { SimVmm } from './vmm.ts';
import type { SimProcess, World } from './world.ts';

/** Typically. */
const RESTART_MS = 100;

/** The places where a test puts something broken between a daemon and its world. */
export interface Wrappers {
  readonly calls?: (calls: IoCalls, process: SimProcess) => IoCalls;
  readonly files?: (files: RecordFiles) => RecordFiles;
  readonly transport?: (transport: Transport) => Transport;
  readonly clock?: (clock: Clock) => Clock;
  readonly source?: (source: BackendSource) => BackendSource;
  readonly deviceHost?: (host: DeviceHost) => DeviceHost;
  readonly memory?: (memory: ProcessMemory['allocate']) => ProcessMemory['allocate'];
  readonly bootId?: (bootId: string) => string;
  readonly createLog?: (options: WriteLogOptions, isFirst: boolean) => WriteLog;
  readonly map?: (map: DirtyMap) => DirtyMap;
  /** False: an image is opened although I/O of a process that was killed is under way. */
  readonly ignoresLock?: boolean;
  /** True: see VmOptions. */
  readonly repeatsAnswered?: boolean;
  readonly frontend?: BrokenFrontend;
  /** Breaks something for the time of a run; the result mends it. */
  readonly during?: () => () => void;
  /** The faults that find it, where others seldom do. */
  readonly faults?: readonly string[];
  /** Whether VMs move: never, or all of them; `forgotten`: and the device's host loses its power each time. By the seed where it is left out. */
  readonly moves?: boolean | 'forgotten';
  /** True: their disks are swapped, and they stay where they are. */
  readonly swaps?: boolean;
  /** And the guests: of how many blocks their disks are, and how many in a hundred of their requests are flushes. */
  readonly guests?: { readonly blocks: number; readonly flushPercent: number };
  /** True: hold times are not in the records. */
  readonly forgetsHold?: boolean;
}

export interface HostOptions {
  readonly world: World;
  readonly network: Network;
  readonly name: string;
  readonly address: string;
  readonly certificate: X509Certificate;
  readonly hosts: ReadonlyMap<string, Address>;
  /** In memory. The run folder of each host is in it. */
  readonly runDir: string;
  /** Of each write log: bytes of data; undefined: there is no memory for one. */
  readonly logBytes: number | undefined;
  readonly wrappers: Wrappers;
}

export class SimHost implements NetworkHost {
  readonly name: string;
  readonly address: string;
  readonly files: SimFiles;
  /** By path. */
  readonly disks = new Map<string, SimDisk>();
  /** By "vm/name": their processes on this host. */
  readonly vmms = new Map<string, SimVmm>();
  /** By "vm/name": of the daemon that was here last. */
  readonly sockets = new Map<string, SimFrontend>();
  isOn = true;
  /** Taken for dead, perhaps in error. */
  isSuspect = false;
  readonly #options: HostOptions;
  readonly #world: World;
  #boot = 1;
  #daemon: SimDaemon | undefined;
  /** Daemons so far. */
  #started = 0;
  readonly onDaemonLost: (() => void)[] = [];
  readonly onPowerLost: (() => void)[] = [];
  onLogLost: (key: string) => void = () => {};
  /** Of one of its exports, to an attachment. */
  onGranted: (record: AttachmentRecord) => void = () => {};
  /** A step of a swap of "vm/name" is being stored. */
  onStep: (step: string, key: string) => void = () => {};
  /** By attachment to an export of this host: epochs only grow, over all daemons. */
  readonly epochs = new Map<string, number>();

  constructor(options: HostOptions) {
    this.#options = options;
    this.#world = options.world;
    this.name = options.name;
    this.address = options.address;
    this.files = new SimFiles(options.world);
    options.network.add(this);
  }

  get hasLogMemory(): boolean {
    return this.#options.logBytes !== undefined;
  }

  get logBytes(): number {
    return this.#options.logBytes ?? LOG_BLOCK_BYTES;
  }

  /** Where the write logs of "vm/name" are: more than one while a swap decides. */
  logPaths(key: string): string[] {
    const folder = join(this.#options.runDir, this.name, dirname(key));
    if (!existsSync(folder)) return [];
    const files = readdirSync(folder).filter((file) => file.endsWith('.log'));
    return files.map((file) => join(folder, file)).sort();
  }

  /** Of a swap of "vm/name", if it runs. */
  mapPath(key: string): string {
    const [vm, name] = key.split('/');
    return dirtyMapPath(join(this.#options.runDir, this.name), vm, name);
  }

  /** Of "vm/name", as `status` shows it. */
  entryOf(key: string): AttachmentEntry | undefined {
    return this.#daemon?.entries.find(({ vm, name }) => `${vm}/${name}` === key);
  }

  get daemon(): SimDaemon | undefined {
    return this.#daemon;
  }

  startDaemon(): void {
    if (!this.isOn || this.#daemon !== undefined) return;
    this.#world.trace(`${this.name} daemon starts`);
    const bootId = `${this.name}-boot-${this.#boot}`;
    const { wrappers } = this.#options;
    const id = wrappers.bootId?.(bootId) ?? bootId;
    this.#daemon = new SimDaemon(this, this.#options, id, `${this.name}.${++this.#started}`);
  }

  /** kill -9 */
  killDaemon(): void {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    this.#world.trace(`${this.name} daemon is killed`);
    this.#daemon = undefined;
    daemon.process.kill();
    for (const told of this.onDaemonLost) told();
  }

  /** It is killed by what it is doing; whoever watches services starts it again. */
  daemonDies(daemon: SimDaemon): void {
    this.#world.count('daemons killed in their logs');
    this.#world.at(0, () => {
      if (this.#daemon === daemon) this.killDaemon();
    });
    this.#world.at(this.#world.latency(RESTART_MS), () => this.startDaemon());
  }

  /** What is in memory for a daemon that comes back is gone, or cut short. Only while there is none. */
  loseLogs(): void {
    if (this.#daemon !== undefined) return;
    for (const key of this.sockets.keys()) {
      for (const path of this.logPaths(key)) {
        this.#world.trace(`${this.name} loses the log of ${key}`);
        this.#loseFile(path);
        this.onLogLost(key);
      }
      if (existsSync(this.mapPath(key)) && this.#world.chance(2)) this.#loseFile(this.mapPath(key));
    }
  }

  #loseFile(path: string): void {
    const { size } = statSync(path);
    if (this.#world.chance(2)) rmSync(path);
    else truncateSync(path, this.#world.random.below(size));
  }

  /** As by systemd: it closes what it has, and is gone then. */
  stopDaemon(): void {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    this.#world.trace(`${this.name} daemon stops`);
    daemon.close(() => {
      if (this.#daemon === daemon) this.killDaemon();
    });
  }

  losePower(): void {
    if (!this.isOn) return;
    this.#world.trace(`${this.name} loses its power`);
    this.isOn = false;
    for (const disk of this.disks.values()) disk.operations.clear();
    for (const told of this.onPowerLost) told();
    this.killDaemon();
    for (const vmm of [...this.vmms.values()]) vmm.quit();
    this.sockets.clear();
    for (const disk of this.disks.values()) disk.losePower();
    this.files.losePower();
    rmSync(join(this.#options.runDir, this.name), { recursive: true, force: true });
  }

  boot(): void {
    if (this.isOn) return;
    this.#boot++;
    this.isOn = true;
    this.#world.trace(`${this.name} boots`);
    this.startDaemon();
  }
}
