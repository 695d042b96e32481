/**
 * One run of the deterministic simulation: two or three whole hosts, VMs with disks, faults, and then peace, in which all that was promised must
 * hold. Everything follows from the seed.
 */
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LOG_BLOCK_BYTES } from '../../src/filters/write-log/log-file.ts';
import type { Address } from '../../src/lib/address.ts';
import { REGION_BYTES_MIN } from '../../src/migration/mirror/dirty-map.ts';
import { TestAuthority } from '../support/bus-host.ts';
import { Checker } from './checker.ts';
import { STATE_FOLDER } from './daemon.ts';
import { BLOCK_BYTES, profileOf, SimDisk } from './disk.ts';
import { type Cluster, plan } from './faults.ts';
import { SimVm } from './guest.ts';
import { SimHost, type Wrappers } from './host.ts';
import { planMoves } from './moves.ts';
import { Network } from './network.ts';
import { watchCopies } from './one-copy.ts';
import { type Placement, peace, type Situation, watchHold } from './peace.ts';
import { planSwaps } from './swaps.ts';
import { type Violation, World } from './world.ts';

const HOSTS = ['m1', 'm2', 'm3'];
const PORT = 7443;
/** Of the guests' work under faults. */
const SPAN_MS = [2_000, 20_000, 60_000];
const QUEUE_DEPTH_MAX = 24;
/** Half of a block of a write log, two, and eight. */
const DISK_BLOCKS = [4, 16, 64];
/** Of a disk that is swapped: two regions of a copy (src/migration/mirror/dirty-map.ts), and its guest works across their border. */
const SWAPPED_BLOCKS = (2 * REGION_BYTES_MIN) / BLOCK_BYTES;
/** A guest that never flushes has the most to lose, and one that does the most to check. */
const FLUSH_PERCENT = [0, 1, 5, 20];
const CREATED_AT = '2026-01-01T00:00:00.000Z';
const RECORD = { version: 1, createdAt: CREATED_AT } as const;
/** Small, so that logs are full often; 1: there is never room for the new content beside the old; the last ones hold any disk. */
const LOG_BLOCKS = [1, 2, 3, 5, 16, 64, 64, 64];
/** One host in so many has no memory for logs. */
const WITHOUT_LOG = 12;
/** For ever more often than not. */
const HOLD_MS = [undefined, undefined, undefined, 1_000, 10_000];
/** Where everybody has memory that is a file system. */
const MEMORY_FOLDER = ['/dev/shm', '/run', tmpdir()].find((folder) => existsSync(folder))!;

export interface Run {
  readonly seed: number;
  readonly violation: Violation | undefined;
  /** Of everything that happened: the same seed, the same hash. */
  readonly hash: string;
  readonly events: number;
  readonly answered: number;
  /** What the run is there for, and how often it came about. */
  readonly counts: ReadonlyMap<string, number>;
  /** In the world of the run. */
  readonly seconds: number;
  readonly trace: readonly string[] | undefined;
}

/** Certificates are the one thing that no seed decides; nothing of them is looked at but names. */
export class Simulator {
  readonly #certificates: ReadonlyMap<string, X509Certificate>;
  readonly #runDir: string;

  private constructor(certificates: ReadonlyMap<string, X509Certificate>) {
    this.#certificates = certificates;
    this.#runDir = mkdtempSync(join(MEMORY_FOLDER, 'netbus-simulation-'));
  }

  static async make(): Promise<Simulator> {
    const authority = new TestAuthority();
    const made = HOSTS.map(async (host): Promise<[string, X509Certificate]> => {
      return [host, new X509Certificate((await authority.identity(host)).certificate)];
    });
    return new Simulator(new Map(await Promise.all(made)));
  }

  close(): void {
    rmSync(this.#runDir, { recursive: true });
  }

  async run(seed: number, options: { wrappers?: Wrappers; keepTrace?: boolean } = {}): Promise<Run> {
    const world = new World(seed, options);
    const { hosts, placements, network } = this.#build(world, options.wrappers ?? {});
    const mend = options.wrappers?.during?.();
    try {
      await work(world, { hosts, placements, network, wrappers: options.wrappers ?? {} });
    } finally {
      mend?.();
      for (const host of hosts) host.losePower();
    }
    const { violation, hash, events, nowMs, lines, counts } = world;
    const answered = placements.reduce((sum, { vm }) => sum + vm.answered, 0);
    return { seed, violation, hash, events, answered, counts, seconds: nowMs / 1000, trace: lines };
  }

  /** Hosts with records as `netbus export` and `netbus attach` leave them. */
  #build(world: World, wrappers: Wrappers): { hosts: SimHost[]; placements: Placement[]; network: Network } {
    const { random } = world;
    const network = new Network(world);
    const names = HOSTS.slice(0, 2 + random.below(2));
    const addresses = new Map(names.map((name, i): [string, Address] => [name, { host: `10.0.0.${i + 1}`, port: PORT }]));
    const hosts = names.map((name) => {
      const address = addresses.get(name)!.host;
      const certificate = this.#certificates.get(name)!;
      const logBytes = world.chance(WITHOUT_LOG) ? undefined : world.pick(LOG_BLOCKS) * LOG_BLOCK_BYTES;
      return new SimHost({
        world,
        network,
        name,
        address,
        certificate,
        hosts: addresses,
        runDir: this.#runDir,
        logBytes,
        wrappers,
      });
    });
    const count = 1 + random.below(2);
    const placements = Array.from({ length: count }, (_, i): Placement => {
      const deviceHost = hosts[i === 0 ? 0 : random.below(hosts.length)];
      // The first one is always far away.
      const host = i === 0 ? hosts[1] : world.pick(hosts);
      return place(world, i, { host, deviceHost, hosts, wrappers });
    });
    return { hosts, placements, network };
  }
}

function place(
  world: World,
  index: number,
  { host, deviceHost, hosts, wrappers }: { host: SimHost; deviceHost: SimHost; hosts: readonly SimHost[]; wrappers: Wrappers },
): Placement {
  const [exported, vm] = [`d${index}`, `vm${index}`];
  const key = `${vm}/${exported}`;
  const blocks = wrappers.guests?.blocks ?? world.pick(DISK_BLOCKS);
  const holdMs = world.pick(HOLD_MS);
  const isSwapped = wrappers.swaps === true;
  const diskBlocks = isSwapped ? SWAPPED_BLOCKS : blocks;
  const firstBlock = (diskBlocks - blocks) / 2;
  const checker = new Checker(world, { name: key, blocks: diskBlocks, holdMs });
  const path = `/disks/${exported}`;
  const others = isSwapped ? hosts.filter((other) => other !== deviceHost) : [];
  const homes = [deviceHost, ...others].map((host) => {
    const disk = new SimDisk(world, diskBlocks);
    host.disks.set(path, disk);
    return { host, exported, disk };
  });
  const [{ disk }] = homes;
  disk.witness = checker;
  const queueDepth = 1 + world.random.below(QUEUE_DEPTH_MAX);
  const flushPercent = wrappers.guests?.flushPercent ?? world.pick(FLUSH_PERCENT);
  const repeatsAnswered = wrappers.repeatsAnswered ?? false;
  const guest = { firstBlock, blocks, holdMs, checker, queueDepth, flushPercent, repeatsAnswered };
  const simulated = new SimVm({ world, name: vm, key, host, homes, ...guest });
  const id = `00000000-0000-4000-8000-00000000000${index}`;
  const profile = profileOf(disk);
  const put = (owner: SimHost, path: string, value: object) =>
    owner.files.put(join(STATE_FOLDER, `${path}.json`), JSON.stringify({ ...RECORD, ...value }));
  const more = { disk: path, readOnly: false, direct: false, allow: hosts.map(({ name }) => name), reopened: 0 };
  const hold = holdMs !== undefined && wrappers.forgetsHold !== true ? { holdMs } : {};
  for (const home of homes) put(home.host, `exports/${exported}`, { name: exported, ...more });
  put(deviceHost, `attachments/${id}`, {
    ...{ id, export: exported, host: host.name, vm, name: exported, profile },
    ...{ writeCache: null, lease: { epoch: 0, holder: null }, generation: 1, ...hold },
  });
  put(host, `virtual-devices/${vm}~${exported}`, {
    ...{ vm, name: exported, host: deviceHost.name, export: exported, attachment: id, profile },
    ...{ depth: 256, guest: null, writeCache: null },
    ...hold,
  });
  return { vm: simulated, key, checker };
}

async function work(world: World, situation: Situation): Promise<void> {
  const { hosts, placements, network, wrappers } = situation;
  const vms = placements.map(({ vm }) => vm);
  const cluster: Cluster = { world, network, hosts, vms, zombies: [], work: new Set(), hasSwaps: wrappers.swaps === true };
  for (const host of hosts) {
    host.onDaemonLost.push(() => {
      for (const vm of vms) if (vm.host === host) vm.checker.daemonLost();
    });
    host.onPowerLost.push(() => {
      for (const vm of vms) {
        if (vm.deviceHost === host) vm.checker.powerLost();
        if (vm.host !== host) vm.checker.logLost({ isKept: true });
      }
    });
    host.onLogLost = (lost) => {
      for (const vm of vms) if (vm.key === lost) vm.checker.logLost({ isKept: vm.host !== host });
    };
  }
  for (const vm of vms) watchCopies(world, vm);
  for (const host of hosts) host.startDaemon();
  for (const placement of placements) watchHold(world, placement);
  const spanMs = world.pick(SPAN_MS);
  for (const vm of vms) {
    vm.start();
    // Spread over the time of the faults, or all at its beginning.
    const requests = 20 + world.random.below(150);
    vm.work(requests, world.pick([1, spanMs / requests, (2 * spanMs) / requests]));
  }
  plan(cluster, spanMs, wrappers.faults);
  if (cluster.hasSwaps) planSwaps(cluster, spanMs);
  else if (wrappers.moves !== false) planMoves(cluster, spanMs, wrappers.moves);
  await world.run(spanMs);
  if (world.violation === undefined) await peace(cluster, situation);
}
