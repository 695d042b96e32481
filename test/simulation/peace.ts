/** What must hold in the end, when all is mended: whatever waits goes on, what is there is right, and nothing is left over. */
import type { Checker } from './checker.ts';
import type { SimDisk } from './disk.ts';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import type { Network } from './network.ts';
import type { World } from './world.ts';

/** After which everything that waits must have gone on: longer than any timer of the product. */
const PEACE_MS = 120_000;
/** After which nothing of what was before is there any more. */
const LEFTOVERS_MS = 60_000;
/** After which every device that is there is in use again. */
const RECONNECTION_MS = 20_000;
/** Of one host in peace: heartbeats and retries. */
const TIMERS_MAX = 64;
/** Later than that after the hold time a guest that waits must have been told. */
const HOLD_SLACK_MS = 1_000;
const HOLD_LOOK_MS = 500;

/** A disk, where it is, and its guest. */
export interface Placement {
  /** "m1/d0" */
  readonly device: string;
  readonly host: SimHost;
  readonly deviceHost: SimHost;
  readonly vm: SimVm;
  readonly key: string;
  readonly disk: SimDisk;
  readonly checker: Checker;
  readonly holdMs: number | undefined;
}

export interface Situation {
  readonly hosts: readonly SimHost[];
  readonly placements: readonly Placement[];
  readonly network: Network;
  readonly faults: readonly string[] | undefined;
}

/** All is mended; whatever waits must go on, and what is there must be right. */
export async function peace(world: World, situation: Situation): Promise<void> {
  const { hosts, placements, network } = situation;
  world.trace('peace');
  for (const { vm } of placements) vm.rest();
  await world.run(world.nowMs + 40_000);
  const mend = () => {
    network.mendAll();
    for (const host of hosts) {
      for (const disk of host.disks.values()) disk.stallMs = 0;
      host.boot();
      host.startDaemon();
      host.daemon?.process.goOn();
      for (const vm of host.vms.values()) vm.start();
    }
  };
  mend();
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
    world.at(100, () => vm.start());
  }
  await world.run(world.nowMs + RECONNECTION_MS);
  for (const { vm, checker } of placements) {
    checker.deviceIsBack = true;
    checker.logIsWhole = true;
    vm.work(20, 5);
  }
  await look();
  if (!isDone()) stuck(world, placements);
  await world.run(world.nowMs + LEFTOVERS_MS);
  if (world.violation === undefined) checkLeftovers(world, situation);
  await loseLastPower(world, situation);
  await look();
  await look();
  if (!isDone()) stuck(world, placements);
}

/** Whatever was before: a guest whose device has been there for long loses nothing with the power of the device's host. */
async function loseLastPower(world: World, { placements }: Situation): Promise<void> {
  for (const { vm } of placements) vm.work(20, 5);
  await world.run(world.nowMs + world.random.below(200));
  for (const { checker } of placements) checker.deviceIsBack = false;
  const deviceHosts = new Set(placements.map(({ deviceHost }) => deviceHost));
  for (const host of deviceHosts) host.losePower();
  await world.run(world.nowMs + world.latency(100));
  for (const host of deviceHosts) host.boot();
  for (const { vm } of placements) vm.start();
  await world.run(world.nowMs + RECONNECTION_MS);
  for (const { checker } of placements) checker.deviceIsBack = true;
}

/** Who waits for a device that is away is told at the end of the hold time, however often the device's host was asked meanwhile. */
export function watchHold(world: World, { host, vm, key, holdMs }: Placement): void {
  if (holdMs === undefined) return;
  let waitedMs = 0;
  let since: string | undefined;
  let use: object | undefined;
  const look = () => {
    world.at(HOLD_LOOK_MS, look, { calls: false });
    const { daemon } = host;
    const entry =
      vm.waiting === 0 ? undefined : daemon?.entries.find((candidate) => `${candidate.vm}/${candidate.name}` === key);
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
  const states = placements.map(({ key, host, vm, deviceHost }) => {
    const entry = host.daemon?.entries.find((candidate) => `${candidate.vm}/${candidate.name}` === key);
    const state = entry === undefined ? 'no daemon' : `${entry.state} (${entry.reason ?? 'no reason'})`;
    const exported = [...(deviceHost.daemon?.exports?.all ?? [])].map(
      (candidate) => `${candidate.name} ${candidate.state.name}`,
    );
    return `${key}: ${vm.waiting} requests wait; ${state}; ${deviceHost.name} has ${exported.join(', ')}`;
  });
  world.violated('every hold ends', `all is well again, and yet: ${states.join('; ')}`);
}

/** What is in use in peace is what the attachments need, whatever was before. */
function checkLeftovers(world: World, { hosts, placements, network }: Situation): void {
  const remote = placements.filter(({ host, deviceHost }) => host !== deviceHost);
  if (network.connections.size > remote.length) {
    world.violated('bounded', `${network.connections.size} connections are open, for ${remote.length} sessions`);
  }
  for (const host of hosts) {
    const daemon = host.daemon!;
    // A guest's own memory, and the staging of a session or of a bounce.
    const regions = placements.reduce((sum, one) => sum + Number(one.host === host) + Number(one.deviceHost === host), 0);
    if (daemon.memory.count > regions)
      world.violated('bounded', `${host.name} has ${daemon.memory.count} regions of memory, not ${regions}`);
    if (daemon.process.timers > TIMERS_MAX) world.violated('bounded', `${host.name} has ${daemon.process.timers} timers`);
    const sessions = daemon.bus.exporter.sessions.length;
    const served = remote.filter(({ deviceHost }) => deviceHost === host).length;
    if (sessions > served) world.violated('bounded', `${host.name} has ${sessions} sessions, for ${served} attachments`);
  }
}
