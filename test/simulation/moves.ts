/** When VMs move in a run, and what goes wrong just then: close to a step of a migration more is wrong than elsewhere. */
import { begin, type Cluster, cut, cutOneWay, freeze, killDaemon, losePower } from './faults.ts';
import type { SimHost } from './host.ts';
import { Migration, type Step } from './migration.ts';

/** One VM in so many never moves. */
const STAYS = 4;
const MIGRATIONS_MAX = 5;
/** One step in so many has a fault of its own. */
const STRUCK_STEPS = [6, 12, 1_000];

const strikes: readonly ((cluster: Cluster, host: SimHost, other: SimHost, migration: Migration) => void)[] = [
  killDaemon,
  killDaemon,
  losePower,
  losePower,
  cut,
  cut,
  cutOneWay,
  ({ world }, host) => freeze(world, host),
  (_, __, ___, { source, destination }) => (destination ?? source).quit(),
  (_, __, ___, { source }) => source.quit(),
];

/** Draws how often each VM moves, and begins each migration when it can: a VM that is off or on its way does not. */
export function planMoves(cluster: Cluster, spanMs: number, always = false): void {
  const { world, vms } = cluster;
  for (const vm of vms) {
    if (!always && world.chance(STAYS)) continue;
    const outOf = world.pick(STRUCK_STEPS);
    const count = 1 + world.random.below(MIGRATIONS_MAX);
    for (let i = 0; i < count; i++) {
      world.at(world.between(0, spanMs), () => {
        const hosts = cluster.hosts.filter((host) => host !== vm.host && host.isOn);
        if (vm.isMoving || !vm.isOn || hosts.length === 0) return;
        const onStep = (step: Step, migration: Migration) => {
          if (world.chance(outOf)) strike(cluster, step, migration);
        };
        begin(cluster, new Migration({ world, vm, to: world.pick(hosts), onStep }).run());
      });
    }
  }
}

/** Just before it, or in the middle of it. */
function strike(cluster: Cluster, step: Step, migration: Migration): void {
  const { world } = cluster;
  const { vm, from, to } = migration;
  const hosts = [from, to, vm.deviceHost];
  const host = world.pick(hosts);
  const others = hosts.filter((candidate) => candidate !== host);
  const fault = world.pick(strikes);
  world.at(world.pick([0, world.latency(1), world.latency(10)]), () => {
    world.trace(`fault at ${step}, of ${host.name}`);
    fault(cluster, host, world.pick(others), migration);
  });
}
