/** When VMs move in a run, and what goes wrong just then: close to a step of a migration more is wrong than elsewhere. */
import { begin, type Cluster, cut, cutOneWay, freeze, killDaemon, losePower } from './faults.ts';
import type { SimVm } from './guest.ts';
import type { SimHost, Wrappers } from './host.ts';
import { Migration, type Step } from './migration.ts';
import { bringUp } from './takeover.ts';
import type { World } from './world.ts';

/** One VM in so many never moves. */
const STAYS = 4;
const MIGRATIONS_MAX = 5;
/** One step in so many has a fault of its own. */
const STRUCK_STEPS = [6, 12, 1_000];
/** In one migration of so many the device's host loses its power between stop and start, or is too slow for the stop. */
const FORGOTTEN = 8;
const STALLED = 6;

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
export function planMoves(cluster: Cluster, spanMs: number, how: Wrappers['moves']): void {
  const { world, vms } = cluster;
  for (const vm of vms) {
    if (how === undefined && world.chance(STAYS)) continue;
    const outOf = world.pick(STRUCK_STEPS);
    const count = 1 + world.random.below(MIGRATIONS_MAX);
    for (let i = 0; i < count; i++) {
      world.at(world.between(0, spanMs), () => {
        const hosts = cluster.hosts.filter((host) => host !== vm.host && host.isOn && !host.isSuspect);
        if (vm.isMoving || !vm.isOn || vm.host.isSuspect || hosts.length === 0) return;
        const isForgotten = how === 'forgotten' || world.chance(FORGOTTEN);
        const isStalled = world.chance(STALLED);
        const onStep = (step: Step, migration: Migration) => {
          if (world.chance(outOf)) strike(cluster, step, migration);
          if (step === 'stop' && isStalled) stall(world, vm);
          if (step === 'switch' && isForgotten) world.at(world.latency(3), () => forget(cluster, vm));
          // Where the source has the device it goes with it, and the guest must have left by then.
          if (step === 'arrive' && isForgotten && migration.from === vm.deviceHost)
            world.at(world.latency(3), () => powerFails(cluster, vm.deviceHost));
        };
        const migration = new Migration({ world, vm, to: world.pick(hosts), onStep });
        begin(
          cluster,
          migration.run().then(() => bringUp(cluster, vm)),
        );
      });
    }
  }
}

/** What has to be fetched from the source's host is rarely needed: the device's host forgets before the first flush of the destination. */
function forget(cluster: Cluster, vm: SimVm): void {
  const { deviceHost } = vm;
  if (deviceHost !== vm.host && deviceHost !== vm.movesTo) powerFails(cluster, deviceHost);
}

/** For a moment. */
function powerFails(cluster: Cluster, deviceHost: SimHost): void {
  const { world } = cluster;
  deviceHost.losePower();
  world.at(world.latency(100), () => {
    deviceHost.boot();
    for (const other of cluster.vms) if (other.host === deviceHost) begin(cluster, bringUp(cluster, other));
  });
}

/** Then the stop meets its bound, and requests are left over. */
function stall(world: World, { deviceHost }: SimVm): void {
  const disks = [...deviceHost.disks.values()];
  for (const disk of disks) disk.stallMs = world.pick([200, 1_500]);
  world.at(world.between(500, 3_000), () => {
    for (const disk of disks) disk.stallMs = 0;
  });
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
