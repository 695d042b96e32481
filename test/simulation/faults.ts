/** What goes wrong in a run, and when: drawn from the seed. Each fault also ends, so that a run always comes to rest. */
import type { SimHost } from './host.ts';
import type { Network } from './network.ts';
import type { World } from './world.ts';

export interface Cluster {
  readonly world: World;
  readonly network: Network;
  readonly hosts: readonly SimHost[];
}

/** Drawn more often than the others: what loses state. */
const COMMON = ['killDaemon', 'losePower', 'losePower', 'cut'];

/** One daemon in so many that are killed. */
const LOSES_LOGS = 8;

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
    const { world, network } = cluster;
    const [a, b] = pair(cluster);
    const ms = duration(world);
    network.cut(a.name, b.name);
    network.cut(b.name, a.name);
    world.at(ms, () => {
      network.mend(a.name, b.name);
      network.mend(b.name, a.name);
    });
  },

  cutOneWay(cluster) {
    const { world, network } = cluster;
    const [a, b] = pair(cluster);
    network.cut(a.name, b.name);
    world.at(duration(world), () => network.mend(a.name, b.name));
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

  /** Often while its disks are slow, so that its I/O outlives it. */
  killDaemon({ world, hosts }) {
    const host = world.pick(hosts);
    const isSlow = world.chance(2);
    const stallMs = duration(world) / 2;
    if (isSlow) for (const disk of host.disks.values()) disk.stallMs = stallMs;
    world.at(isSlow ? world.latency(10) : 0, () => {
      for (const disk of host.disks.values()) disk.stallMs = 0;
      host.killDaemon();
      if (world.chance(LOSES_LOGS)) host.loseLogs();
      world.at(duration(world) / 4, () => host.startDaemon());
    });
  },

  stopDaemon({ world, hosts }) {
    const host = world.pick(hosts);
    host.stopDaemon();
    world.at(duration(world) / 4, () => host.startDaemon());
  },

  /** SIGSTOP and SIGCONT. */
  freeze({ world, hosts }) {
    const { daemon } = world.pick(hosts);
    daemon?.process.stop();
    world.at(duration(world), () => daemon?.process.goOn());
  },

  /** Mostly of a host that others use disks of: its guests outlive it. */
  losePower({ world, hosts }) {
    const withDisks = hosts.filter(({ disks }) => disks.size > 0);
    const host = world.pick(world.chance(3) ? hosts : withDisks);
    host.losePower();
    world.at(duration(world), () => {
      host.boot();
      for (const vm of host.vms.values()) vm.start();
    });
  },

  restartVm({ world, hosts }) {
    const vms = hosts.flatMap((host) => (host.isOn ? [...host.vms.values()] : []));
    if (vms.length === 0) return;
    const vm = world.pick(vms);
    vm.stop();
    world.at(world.latency(50), () => {
      if (hosts.some((host) => host.isOn && [...host.vms.values()].includes(vm))) vm.start();
    });
  },

  pauseRings({ world, hosts }) {
    const vms = hosts.flatMap((host) => [...host.vms.values()]);
    world.pick(vms).pauseRings();
  },
};

/**
 * Draws some kinds for this run, of all or of `only` these, and times for them, within `spanMs`; some follow close on the one before, while it is being
 * dealt with.
 */
export function plan(cluster: Cluster, spanMs: number, only?: readonly string[]): void {
  const { world } = cluster;
  const names = only ?? [...Object.keys(faults), ...COMMON, ...COMMON];
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
