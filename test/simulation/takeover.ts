/**
 * A VM whose host is taken for dead is started at another one, with the real calls: fence, and attach with --takeover. The old host comes back later,
 * perhaps with its guest still running, and is put in order.
 */
import { fenceHost } from '../../src/daemon/fence.ts';
import type { Cluster } from './faults.ts';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import { ask } from './operator.ts';
import { Zombie } from './zombie.ts';

const RETRY_MS = 700;

/** Fences what is said to be dead, and starts the VM at `at`. Resolves when it runs there, or `at` has no power any more: false. */
export async function startAnew(
  cluster: Cluster,
  vm: SimVm,
  at: SimHost,
  { dead, onFenced = () => vm.checker.fenced() }: { dead: readonly SimHost[]; onFenced?: () => void },
): Promise<boolean> {
  const { world } = cluster;
  const [vmName, name] = vm.key.split('/');
  const device = `${vm.deviceHost.name}/${name}`;
  vm.isMoving = true;
  let isFenced = dead.length === 0;
  for (;;) {
    if (!at.isOn) {
      vm.isMoving = false;
      return false;
    }
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
  vm.lastMove = undefined;
  vm.mayBeStuck = false;
  vm.isMoving = false;
  vm.start();
  return true;
}

/** Takes from a host what it has of a VM that is elsewhere. */
export async function tidy({ world }: Cluster, vm: SimVm, host: SimHost): Promise<void> {
  const [vmName, name] = vm.key.split('/');
  while (vm.host !== host) {
    if (!vm.isMoving) {
      host.vmms.get(vm.key)?.quit();
      const answer = await ask(world, host, `detach ${vm.key}`, ({ attachments }) => attachments.detach(vmName, name, true));
      if (answer.ok || answer.code === 'not_found') return;
    }
    await world.pause(RETRY_MS);
  }
}

/** Its host has lost its power, or (`runs`) is only cut off, so that the guest there goes on. */
export async function failOver(cluster: Cluster, vm: SimVm, { runs }: { runs: boolean }): Promise<void> {
  const { world, hosts, network, zombies } = cluster;
  const old = vm.host;
  const others = hosts.filter((host) => host !== old && host.isOn);
  if (old === vm.deviceHost || vm.isMoving || others.length === 0) return;
  const at = world.pick(others);
  let zombie: Zombie | undefined;
  if (runs) {
    if (!vm.isOn) return;
    const way = world.random.below(3);
    for (const other of hosts) {
      if (other === old) continue;
      // Also in one direction alone, so that what is on its way comes late; or not at all: somebody errs.
      if (way > 0) network.cut(old.name, other.name);
      if (way > 1) network.cut(other.name, old.name);
    }
    world.at(world.pick([300, 5_000, 30_000]), () => {
      for (const other of hosts) {
        if (other === old) continue;
        network.mend(old.name, other.name);
        network.mend(other.name, old.name);
      }
    });
    zombie = new Zombie(world, vm);
    zombies.push(zombie);
  }
  world.trace(`${vm.name} fails over from ${old.name} to ${at.name}${runs ? ', and runs on there' : ''}`);
  const onFenced = () => (zombie === undefined ? vm.checker.fenced() : zombie.fenced());
  await startAnew(cluster, vm, at, { dead: [old], onFenced });
  if (!runs) await tidy(cluster, vm, old);
}
