/** What must hold in the end, when all is mended: whatever waits goes on, what is there is right, and nothing is left over. */
import type { Checker } from './checker.ts';
import { begin, type Cluster } from './faults.ts';
import type { SimVm } from './guest.ts';
import type { SimHost, Wrappers } from './host.ts';
import { checkLeftovers } from './leftovers.ts';
import type { Network } from './network.ts';
import { checkOneCopy } from './one-copy.ts';
import { endSwaps } from './swaps.ts';
import { bringUp, tidy } from './takeover.ts';
import type { World } from './world.ts';

/** After which everything that waits must have gone on: longer than any timer of the product. */
const PEACE_MS = 120_000;
/** After which nothing of what was before is there any more. */
const LEFTOVERS_MS = 60_000;
/** After which every device that is there is in use again. */
const RECONNECTION_MS = 20_000;
/** Later than that after the hold time a guest that waits must have been told. */
const HOLD_SLACK_MS = 1_000;
const HOLD_LOOK_MS = 500;

/** A disk, where it is, and its guest. */
export interface Placement {
  readonly vm: SimVm;
  readonly key: string;
  readonly checker: Checker;
}

export interface Situation {
  readonly hosts: readonly SimHost[];
  readonly placements: readonly Placement[];
  readonly network: Network;
  readonly wrappers: Wrappers;
}

/** All is mended; whatever waits must go on, and what is there must be right. */
export async function peace(cluster: Cluster, situation: Situation): Promise<void> {
  const { world, vms } = cluster;
  const { hosts, placements, network } = situation;
  world.trace('peace');
  cluster.isPeace = true;
  for (const { vm } of placements) vm.rest();
  await world.run(world.nowMs + 40_000);
  const mend = () => {
    network.mendAll();
    for (const host of hosts) {
      for (const disk of host.disks.values()) disk.stallMs = 0;
      host.boot();
      host.startDaemon();
      host.daemon?.process.goOn();
    }
    for (const vm of vms) begin(cluster, bringUp(cluster, vm));
  };
  mend();
  // Whoever moves VMs comes to an end.
  if (!(await world.run(world.nowMs + PEACE_MS, () => cluster.work.size === 0))) {
    world.violated('every hold ends', `all is well again, and yet ${cluster.work.size} moves of VMs have not ended`);
  }
  mend();
  await world.run(world.nowMs + PEACE_MS, () => cluster.work.size === 0);
  await endStrays(cluster);
  await freeStuck(cluster);
  const isDone = () => placements.every(({ vm }) => vm.isIdle);
  const look = async () => {
    for (const { vm } of placements) vm.readAll();
    await world.run(world.nowMs + PEACE_MS, isDone);
  };
  await look();
  for (const { vm, checker } of placements) {
    if (vm.waiting > 0) stuck(world, placements);
    // Who hears errors until it is started anew is started anew.
    if (!checker.needsStart) continue;
    vm.stop();
    world.at(100, () => begin(cluster, restart(cluster, vm)));
  }
  await world.run(world.nowMs + RECONNECTION_MS);
  await endSwaps(cluster);
  for (const { vm, checker } of placements) {
    checker.deviceIsBack = true;
    checker.knowledge.isWhole = true;
    vm.work(20, 5);
  }
  await look();
  if (!isDone()) stuck(world, placements);
  await world.run(world.nowMs + LEFTOVERS_MS);
  if (world.violation === undefined) checkLeftovers(world, situation);
  for (const vm of vms) await checkOneCopy(world, vm);
  await loseLastPower(cluster, situation);
  await look();
  await look();
  if (!isDone()) stuck(world, placements);
}

/** What it reads at once on the old disk it must find on the new one as well. */
async function restart(cluster: Cluster, vm: SimVm): Promise<void> {
  await bringUp(cluster, vm);
  if (cluster.hasSwaps) vm.readAll();
}

/** Guests that go on where their host was fenced have their errors, and go. */
async function endStrays(cluster: Cluster): Promise<void> {
  const { world, zombies } = cluster;
  if (zombies.length === 0) return;
  const isTold = () => zombies.every(({ waiting }) => waiting === 0);
  if (!(await world.run(world.nowMs + PEACE_MS, isTold)) && world.violation === undefined) {
    const { vm, vmm, waiting } = zombies.find((zombie) => zombie.waiting > 0)!;
    const entry = vmm.host.entryOf(vm.key);
    const where = `${vmm.host.name}, which was fenced: ${entry?.state} (${entry?.reason ?? vmm.frontend?.whyHeld ?? 'no reason'})`;
    world.violated('every hold ends', `${vm.key}: ${waiting} requests of a guest wait at ${where}`);
  }
  for (const { vm, vmm } of zombies) {
    vmm.quit();
    begin(cluster, tidy(cluster, vm));
  }
  await world.run(world.nowMs + PEACE_MS, () => cluster.work.size === 0);
}

/** A destination that died when it had the lease, or a source that died before it had told what it left: people start the VM anew. */
async function freeStuck(cluster: Cluster): Promise<void> {
  const { world, vms } = cluster;
  const isServed = (vm: SimVm) => vm.host.entryOf(vm.key)?.state === 'active' && vm.vmm?.frontend?.whyHeld === undefined;
  const stuck = () => vms.filter((vm) => mayBeStuck(vm) && !isServed(vm));
  for (const vm of stuck()) if (vm.waiting === 0) vm.readAll();
  await world.run(world.nowMs + RECONNECTION_MS, () => stuck().length === 0);
  for (const vm of stuck()) {
    world.count('VMs that waited for people');
    vm.stop();
    // Where the device's host has it, it may be started without a fence; when it is known there that the VM has stopped.
    begin(
      cluster,
      world
        .pause(100)
        .then(() => bringUp(cluster, vm))
        .then(() => tidy(cluster, vm)),
    );
  }
  await world.run(world.nowMs + PEACE_MS, () => cluster.work.size === 0);
}

/** By the design: see docs/decisions/0014. */
function mayBeStuck({ mayBeStuck, lastMove, host, recordAtDevice }: SimVm): boolean {
  if (lastMove === undefined || recordAtDevice === undefined) return false;
  if (mayBeStuck) return true;
  // A host that was started anew gives back what it still holds, and can say nothing of the guest.
  return lastMove.daemon !== lastMove.from.daemon && (recordAtDevice.host !== host.name || !lastMove.wasTold);
}

/** Whatever was before: a guest whose device has been there for long loses nothing with the power of the device's host. */
async function loseLastPower(cluster: Cluster, { placements }: Situation): Promise<void> {
  const { world } = cluster;
  for (const { vm } of placements) vm.work(20, 5);
  await world.run(world.nowMs + world.random.below(200));
  for (const { checker } of placements) checker.deviceIsBack = false;
  const deviceHosts = new Set(placements.map(({ vm }) => vm.deviceHost));
  for (const host of deviceHosts) host.losePower();
  await world.run(world.nowMs + world.latency(100));
  for (const host of deviceHosts) host.boot();
  for (const { vm } of placements) begin(cluster, bringUp(cluster, vm));
  await world.run(world.nowMs + RECONNECTION_MS);
  for (const { checker } of placements) checker.deviceIsBack = true;
}

/** Who waits for a device that is away is told at the end of the hold time, however often the device's host was asked meanwhile. */
export function watchHold(world: World, { vm, key }: Placement): void {
  const { holdMs } = vm;
  if (holdMs === undefined) return;
  let waitedMs = 0;
  let since: string | undefined;
  let use: object | undefined;
  const look = () => {
    world.at(HOLD_LOOK_MS, look, { calls: false });
    const { host } = vm;
    const { daemon } = host;
    const entry = vm.waiting === 0 || vm.isMoving ? undefined : host.entryOf(key);
    const waits = entry?.state === 'connecting' && vm.use !== undefined && daemon?.process.isStopped === false;
    // In use again for a moment, or stopped and started by the guest, it has its hold time again.
    waitedMs = waits && entry.since === since && vm.use === use ? waitedMs + HOLD_LOOK_MS : 0;
    since = entry?.since;
    use = vm.use;
    if (waitedMs <= holdMs + HOLD_SLACK_MS) return;
    const over = `the hold time of ${holdMs} ms was over ${HOLD_SLACK_MS} ms ago`;
    world.violated('hold', `${key}: ${vm.waiting} requests wait, and ${over}`);
  };
  world.at(HOLD_LOOK_MS, look, { calls: false });
}

function stuck(world: World, placements: readonly Placement[]): void {
  const states = placements.map(({ key, vm }) => {
    const { deviceHost } = vm;
    const entry = vm.host.entryOf(key);
    const held = vm.vmm?.frontend?.whyHeld;
    const state = entry === undefined ? 'no daemon' : `${entry.state} (${entry.reason ?? 'no reason'})`;
    const exported = [...(deviceHost.daemon?.exports?.all ?? [])].map(
      (candidate) => `${candidate.name} ${candidate.state.name}`,
    );
    const where = `at ${vm.host.name}${held === undefined ? '' : `, whose ring is held (${held})`}`;
    return `${key}: ${vm.waiting} requests wait ${where}; ${state}; ${deviceHost.name} has ${exported.join(', ')}`;
  });
  world.violated('every hold ends', `all is well again, and yet: ${states.join('; ')}`);
}
