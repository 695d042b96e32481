/**
 * A VM whose host is taken for dead is started at another one, with the real calls: fence, and attach with --takeover. The old host comes back later,
 * perhaps with its guest still running, and is put in order.
 */
import { fenceHost } from '../../src/daemon/fence.ts';
import { takesPart } from '../../src/device/succession.ts';
import type { Cluster } from './faults.ts';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import { ask } from './operator.ts';
import { Zombie } from './zombie.ts';

const RETRY_MS = 700;

/** Fences what is said to be dead, and starts the VM at `at`. Resolves when it runs there. */
export async function startAnew(
  cluster: Cluster,
  vm: SimVm,
  at: SimHost,
  { dead, onFenced = () => vm.checker.fenced() }: { dead: readonly SimHost[]; onFenced?: () => void },
): Promise<void> {
  const { world } = cluster;
  const [vmName, name] = vm.key.split('/');
  const device = `${vm.deviceHost.name}/${vm.home.exported}`;
  vm.isMoving = true;
  let isFenced = dead.length === 0;
  for (;;) {
    for (const host of isFenced ? [] : dead) {
      const answer = await ask(world, at, `fence ${host.name}`, ({ deviceHosts }) =>
        fenceHost(host.name, { own: at.name, hosts: deviceHosts.all, links: [] }),
      );
      isFenced = answer.ok && answer.value.untold.every((untold) => untold.host !== vm.deviceHost.name);
      if (isFenced) onFenced();
    }
    if (isFenced) {
      const own = at.entryOf(vm.key);
      const isAtHome = vm.recordAtDevice?.host === at.name && own?.state !== 'standby';
      if (own !== undefined && isAtHome) break;
      if (own !== undefined)
        await ask(world, at, `detach ${vm.key}`, ({ attachments }) => attachments.detach(vmName, name, true));
      const attached = await ask(world, at, `take ${vm.key} over`, ({ attachments }) =>
        attachments.attach({ device, vm: vmName, name, takeover: true, ...(vm.holdMs !== undefined && { holdMs: vm.holdMs }) }),
      );
      if (attached.ok) break;
    }
    await world.pause(RETRY_MS);
  }
  world.count('takeovers');
  vm.host = at;
  vm.mayBeStuck = false;
  vm.isMoving = false;
  vm.start();
}

/** Starts a VM that is off where it is at home, as soon as it is known what is there. */
export async function bringUp(cluster: Cluster, vm: SimVm): Promise<void> {
  const { world } = cluster;
  if (vm.isOn || vm.isMoving) return;
  // The first home of a VM has what it needs.
  if (vm.lastMove === undefined) return vm.start();
  vm.isMoving = true;
  // The lease may never have followed it, or may have gone where it never ran.
  while (vm.host.isOn && vm.recordAtDevice === undefined) await world.pause(RETRY_MS / 10);
  const home = cluster.hosts.find(({ name }) => name === vm.recordAtDevice?.host) ?? vm.host;
  const isElsewhere = home !== vm.host;
  if (isElsewhere) vm.mayBeStuck = true;
  vm.host = home;
  while (home.isOn && home.daemon?.isReady !== true) await world.pause(RETRY_MS / 10);
  vm.isMoving = false;
  // Else it is started when there is power again.
  if (home.isOn) {
    const entry = home.entryOf(vm.key);
    // A guest that came is gone: what starts now is another one.
    if (entry === undefined || entry.state === 'standby') await startAnew(cluster, vm, home, { dead: [] });
    else vm.start();
  }
  // Where it was last on its way.
  if (isElsewhere) await tidy(cluster, vm);
}

/** Takes what other hosts have of a VM, as people do it whose VM is elsewhere now. */
export async function tidy({ world, hosts }: Cluster, vm: SimVm): Promise<void> {
  const [vmName, name] = vm.key.split('/');
  for (const host of hosts) {
    while (vm.host !== host) {
      // Whoever takes it away where the device's host still has it takes it away for good.
      const isKnownElsewhere = vm.recordAtDevice !== undefined && vm.recordAtDevice.host !== host.name;
      if (!vm.isMoving && isKnownElsewhere) {
        host.vmms.get(vm.key)?.quit();
        const answer = await ask(world, host, `detach ${vm.key}`, ({ attachments }) => attachments.detach(vmName, name, true));
        // A device's host that could not be told goes on expecting the VM there.
        if (answer.ok && answer.value.length > 0) world.count('standbys that stay');
        if (answer.ok || answer.code === 'not_found') break;
      }
      await world.pause(RETRY_MS);
    }
  }
}

/** A host has lost its power, or (`runs`) is taken for dead although its guests go on: its VMs are started elsewhere. */
export async function failOver(cluster: Cluster, old: SimHost, { runs }: { runs: boolean }): Promise<void> {
  const { world, hosts, vms } = cluster;
  const others = hosts.filter((host) => host !== old && host.isOn && !host.isSuspect);
  // What a host has of its own devices can be had nowhere else while it is away.
  const moved = vms.filter((vm) => vm.host === old && !vm.isLocal);
  const isMoving = vms.some((vm) => vm.isMoving && (vm.host === old || vm.movesTo === old));
  if (old.isSuspect || moved.length === 0 || isMoving || others.length === 0) return;
  world.trace(`${old.name} is taken for dead${runs ? ', and is not' : ''}`);
  old.isSuspect = true;
  for (const vm of moved) vm.isMoving = true;
  // Where the VM went on elsewhere for good, there is nothing that a fence could take: the guest that is left waits until it is stopped.
  const isStranger = ({ recordAtDevice: record }: SimVm) => record !== undefined && !takesPart(record, old.name);
  for (const vm of moved) if (isStranger(vm)) vm.stop();
  const zombies = runs ? moved.filter(({ isOn }) => isOn).map((vm) => new Zombie(world, vm)) : [];
  cluster.zombies.push(...zombies);
  if (runs) isolate(cluster, old);
  for (const vm of moved) {
    const zombie = zombies.find((one) => one.vm === vm);
    const onFenced = () => (zombie === undefined ? vm.checker.fenced() : zombie.fenced());
    const at = world.pick(others);
    await startAnew(cluster, vm, at, { dead: [old], onFenced });
  }
  old.isSuspect = false;
  for (const vm of moved) if (!zombies.some((one) => one.vm === vm)) await tidy(cluster, vm);
}

/** In one direction alone, so that what is on its way comes late, in both, or not at all: somebody errs. */
function isolate({ world, network, hosts }: Cluster, host: SimHost): void {
  const way = world.random.below(3);
  const others = hosts.filter((other) => other !== host);
  for (const other of others) {
    if (way > 0) network.cut(host.name, other.name);
    if (way > 1) network.cut(other.name, host.name);
  }
  world.at(world.pick([300, 5_000, 30_000]), () => {
    for (const other of others) {
      network.mend(host.name, other.name);
      network.mend(other.name, host.name);
    }
  });
}
