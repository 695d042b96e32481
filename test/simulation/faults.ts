/** What goes wrong in a run, and when: drawn from the seed. Each fault also ends, so that a run always comes to rest. */
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import type { Network } from './network.ts';
import { bringUp, failOver } from './takeover.ts';
import type { World } from './world.ts';
import type { Zombie } from './zombie.ts';

export interface Cluster {
  readonly world: World;
  readonly network: Network;
  readonly hosts: readonly SimHost[];
  readonly vms: readonly SimVm[];
  readonly zombies: Zombie[];
  /** What VMs, and whoever manages them, are at. */
  readonly work: Set<Promise<void>>;
  /** VMs stay where they are, and their disks do not. */
  readonly hasSwaps: boolean;
  /** Nothing goes wrong any more. */
  isPeace?: boolean;
}

/** Drawn more often than the others: what loses state. */
const COMMON = ['killDaemon', 'losePower', 'losePower', 'cut'];

/** One daemon in so many that are killed. */
const LOSES_LOGS = 8;
/** Of one host in so many that lose their power the VMs are started elsewhere. */
const FAILS_OVER = 3;

type Fault = (cluster: Cluster) => void;

/** How long a fault lasts: often a moment, sometimes longer than every timer of the product. */
function duration(world: World): number {
  return world.pick([world.between(1, 100), world.between(100, 3_000), world.between(3_000, 40_000)]);
}

function pair({ world, hosts }: Cluster): [SimHost, SimHost] {
  const from = world.random.below(hosts.length);
  const to = (from + 1 + world.random.below(hosts.length - 1)) % hosts.length;
  return [hosts[from], hosts[to]];
}

export const faults: Readonly<Record<string, Fault>> = {
  cut(cluster) {
    cut(cluster, ...pair(cluster));
  },

  cutOneWay(cluster) {
    cutOneWay(cluster, ...pair(cluster));
  },

  /** Both ends hear of it, the second perhaps much later: until then its connection is half open. */
  reset({ world, network }) {
    if (network.connections.size === 0) return;
    const connection = world.pick([...network.connections]);
    const first = world.random.below(2);
    connection.ends[first]?.cut();
    world.at(duration(world), () => connection.ends[1 - first]?.cut());
  },

  slow({ world, network }) {
    network.slowness = world.between(10, 500);
    world.at(duration(world), () => {
      network.slowness = 1;
    });
  },

  stallDisk({ world, hosts }) {
    const disks = hosts.flatMap((host) => [...host.disks.values()]);
    const disk = world.pick(disks);
    disk.stallMs = duration(world) / 2;
    world.at(duration(world), () => {
      disk.stallMs = 0;
    });
  },

  killDaemon(cluster) {
    killDaemon(cluster, cluster.world.pick(cluster.hosts));
  },

  stopDaemon({ world, hosts }) {
    const host = world.pick(hosts);
    host.stopDaemon();
    world.at(duration(world) / 4, () => host.startDaemon());
  },

  /** SIGSTOP and SIGCONT. */
  freeze({ world, hosts }) {
    freeze(world, world.pick(hosts));
  },

  /** Mostly of a host that others use disks of: its guests outlive it. */
  losePower(cluster) {
    const { world, hosts } = cluster;
    const withDisks = hosts.filter(({ disks }) => disks.size > 0);
    losePower(cluster, world.pick(world.chance(3) ? hosts : withDisks));
  },

  restartVm(cluster) {
    const { world, vms } = cluster;
    const vm = world.pick(vms);
    if (!vm.host.isOn || vm.isMoving) return;
    vm.stop();
    world.at(world.latency(50), () => {
      begin(cluster, bringUp(cluster, vm));
    });
  },

  pauseRings({ world, vms }) {
    world.pick(vms).pauseRings();
  },

  /** A host is taken for dead that is not. */
  failOver(cluster) {
    begin(cluster, failOver(cluster, cluster.world.pick(cluster.hosts), { runs: true }));
  },
};

/** Work that has to come to its end. */
export function begin({ world, work }: Cluster, begun: Promise<void>): void {
  work.add(begun);
  begun.then(
    () => work.delete(begun),
    (thrown: Error) => world.violated('bug', `the simulation itself: ${thrown.stack}`),
  );
}

/** Nothing arrives any more, for a while. */
export function cut({ world, network }: Cluster, a: SimHost, b: SimHost): void {
  network.cut(a.name, b.name);
  network.cut(b.name, a.name);
  world.at(duration(world), () => {
    network.mend(a.name, b.name);
    network.mend(b.name, a.name);
  });
}

/** What one says does not arrive at the other any more, for a while. */
export function cutOneWay({ world, network }: Cluster, a: SimHost, b: SimHost): void {
  network.cut(a.name, b.name);
  world.at(duration(world), () => network.mend(a.name, b.name));
}

/** Often while its disks are slow, so that its I/O outlives it. */
export function killDaemon({ world }: Cluster, host: SimHost): void {
  const isSlow = world.chance(2);
  const stallMs = duration(world) / 2;
  if (isSlow) for (const disk of host.disks.values()) disk.stallMs = stallMs;
  world.at(isSlow ? world.latency(10) : 0, () => {
    for (const disk of host.disks.values()) disk.stallMs = 0;
    host.killDaemon();
    if (world.chance(LOSES_LOGS)) host.loseLogs();
    world.at(duration(world) / 4, () => host.startDaemon());
  });
}

/** SIGSTOP and SIGCONT. */
export function freeze(world: World, { daemon }: SimHost): void {
  daemon?.process.stop();
  world.at(duration(world), () => daemon?.process.goOn());
}

/** Its VMs start again with it, or at another host before that. */
export function losePower(cluster: Cluster, host: SimHost): void {
  const { world, vms } = cluster;
  host.losePower();
  if (!cluster.hasSwaps && world.chance(FAILS_OVER)) {
    world.at(world.latency(500), () => {
      if (!host.isOn) begin(cluster, failOver(cluster, host, { runs: false }));
    });
  }
  world.at(duration(world), () => {
    host.boot();
    for (const vm of vms) if (vm.host === host) begin(cluster, bringUp(cluster, vm));
  });
}

/**
 * Draws some kinds for this run, of all or of `only` these, and times for them, within `spanMs`; some follow close on the one before, while it is being
 * dealt with.
 */
export function plan(cluster: Cluster, spanMs: number, only?: readonly string[]): void {
  const { world } = cluster;
  const all = Object.keys(faults).filter((name) => !cluster.hasSwaps || name !== 'failOver');
  const names = only ?? [...all, ...COMMON, ...COMMON];
  const kinds = Array.from({ length: 1 + world.random.below(5) }, () => world.pick(names));
  const count = world.random.below(13);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const name = world.pick(kinds);
    at = world.chance(2) ? world.between(0, spanMs) : Math.min(spanMs, at + world.latency(world.pick([1, 20, 300])));
    world.at(at, () => {
      world.trace(`fault ${name}`);
      faults[name](cluster);
    });
  }
}
