/** When disks are swapped in a run, what their people do to the jobs, and what goes wrong just then: close to a step of a swap more is wrong than elsewhere. */
import { begin, type Cluster, cut, cutOneWay, freeze, killDaemon, losePower } from './faults.ts';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import { ask } from './operator.ts';
import { bringUp } from './takeover.ts';

const SWAPS_MAX = 5;
/** One step in so many has a fault of its own. */
const STRUCK_STEPS = [4, 8, 1_000];
/** One swap in so many is cancelled, paused, slow, or refuses to write over what is there. */
const CANCELLED = 5;
const PAUSED = 5;
const SLOW = 4;
const CAREFUL = 8;
const BYTES_PER_SECOND = [64 * 1024, 256 * 1024];
/** After which every job has come to its end in peace: longer than any timer of the product. */
const END_MS = 240_000;

const UNANSWERED = new Set(['unreachable', 'timeout', 'ended', 'killed']);

const strikes: readonly ((cluster: Cluster, host: SimHost, other: SimHost, vm: SimVm) => void)[] = [
  killDaemon,
  killDaemon,
  killDaemon,
  losePower,
  losePower,
  cut,
  cut,
  cutOneWay,
  ({ world }, host) => freeze(world, host),
  (cluster, _, __, vm) => restart(cluster, vm),
];

export function planSwaps(cluster: Cluster, spanMs: number): void {
  const { world, vms, hosts } = cluster;
  const outOf = world.pick(STRUCK_STEPS);
  for (const host of hosts) {
    host.onStep = (step, key) => {
      const vm = vms.find((one) => one.key === key);
      // Without a file its write log is a new one, also where it gets the old disk back.
      if (step === 'deciding') vm?.checker.daemonLost();
      if (vm !== undefined && cluster.isPeace !== true && world.chance(outOf)) strike(cluster, step, host, vm);
    };
  }
  for (const vm of vms) {
    const count = 1 + world.random.below(SWAPS_MAX);
    for (let i = 0; i < count; i++) world.at(world.between(0, spanMs), () => begin(cluster, swap(cluster, vm)));
  }
}

/** Somebody asks for a swap, and may not leave it alone then. */
async function swap({ world }: Cluster, vm: SimVm): Promise<void> {
  const [vmName, name] = vm.key.split('/');
  const { host, exported } = world.pick(vm.homes.filter((home) => home !== vm.home));
  const bytesPerSecondMax = world.chance(SLOW) ? world.pick(BYTES_PER_SECOND) : undefined;
  const overwrite = !world.chance(CAREFUL);
  const request = { vm: vmName, name, to: { host: host.name, export: exported }, overwrite, bytesPerSecondMax };
  const begun = await ask(world, vm.host, `swap ${vm.key} to ${host.name}`, ({ jobs }) => jobs.start(request));
  world.count(begun.ok ? 'swaps begun' : 'swaps refused');
  if (!begun.ok) {
    if (UNANSWERED.has(begun.code)) world.count('swaps refused without an answer');
    return;
  }
  const { id } = begun.value;
  if (world.chance(PAUSED)) {
    await world.pause(world.latency(20));
    await ask(world, vm.host, `pause ${id}`, ({ jobs }) => jobs.pause(id));
    await world.pause(world.latency(200));
    await ask(world, vm.host, `resume ${id}`, ({ jobs }) => jobs.resume(id));
  }
  if (world.chance(CANCELLED)) {
    await world.pause(world.latency(world.pick([5, 50, 500])));
    await ask(world, vm.host, `cancel ${id}`, ({ jobs }) => jobs.cancel(id));
  }
}

function restart(cluster: Cluster, vm: SimVm): void {
  const { world } = cluster;
  if (!vm.host.isOn || vm.isMoving) return;
  vm.stop();
  world.at(world.latency(50), () => begin(cluster, bringUp(cluster, vm)));
}

/** Just before it is stored, or just after. */
function strike(cluster: Cluster, step: string, host: SimHost, vm: SimVm): void {
  const { world, hosts } = cluster;
  const victim = world.pick([host, host, vm.host, vm.deviceHost]);
  const other = world.pick(hosts.filter((candidate) => candidate !== victim));
  const fault = world.pick(strikes);
  world.at(world.pick([0, world.latency(0.3), world.latency(1), world.latency(10)]), () => {
    world.trace(`fault at ${step} of ${vm.key}, of ${victim.name}`);
    fault(cluster, victim, other, vm);
  });
}

/** Every job ends, in peace, once nobody holds it up. */
export async function endSwaps({ world, hosts }: Cluster): Promise<void> {
  const running = () =>
    hosts.flatMap((host) => (host.daemon?.jobs?.entries() ?? []).filter(isOpen).map((job) => ({ host, job })));
  for (const { host, job } of running()) {
    void ask(world, host, `speed up ${job.id}`, async ({ jobs }) => {
      await jobs.setSpeed(job.id, undefined);
      await jobs.resume(job.id);
    });
  }
  if (await world.run(world.nowMs + END_MS, () => running().length === 0)) return;
  const [left] = running();
  if (left === undefined) return;
  const { id, to, cancelling, progress } = left.job;
  const state = `${progress?.phase ?? 'no phase'}${cancelling ? ', to be cancelled' : ''} (${progress?.reason ?? 'no reason'})`;
  world.violated(
    'every hold ends',
    `all is well again, and yet job ${id} of ${left.host.name}, to ${to}, has not ended: ${state}`,
  );
}

function isOpen({ state }: { state: string }): boolean {
  return state === 'running' || state === 'paused';
}
