/** What is in use in peace is what the attachments need, whatever was before. */
import { existsSync } from 'node:fs';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import type { Situation } from './peace.ts';
import type { World } from './world.ts';

/** Of one host in peace: heartbeats and retries. */
const TIMERS_MAX = 64;

export function checkLeftovers(world: World, { hosts, placements, network }: Situation): void {
  const vms = placements.map(({ vm }) => vm);
  const remote = vms.filter(({ isLocal }) => !isLocal);
  // Each host may have a control link to each other one.
  const connections = remote.length + hosts.length * (hosts.length - 1);
  if (network.connections.size > connections) {
    world.violated('bounded', `${network.connections.size} connections are open, for ${remote.length} sessions`);
  }
  for (const host of hosts) {
    const daemon = host.daemon!;
    // A guest's own memory, and the staging of a session or of a bounce.
    const regions = vms.reduce((sum, vm) => sum + Number(vm.host === host) + Number(vm.deviceHost === host), 0);
    if (daemon.memory.count > regions)
      world.violated('bounded', `${host.name} has ${daemon.memory.count} regions of memory, not ${regions}`);
    if (daemon.process.timers > TIMERS_MAX) world.violated('bounded', `${host.name} has ${daemon.process.timers} timers`);
    const sessions = daemon.bus.exporter.sessions.length;
    const served = remote.filter(({ deviceHost }) => deviceHost === host).length;
    if (sessions > served) world.violated('bounded', `${host.name} has ${sessions} sessions, for ${served} attachments`);
  }
  for (const vm of vms) checkPlace(world, vm, hosts);
}

/** Where the VM is, everything is; where it is not, nothing is. */
function checkPlace(world: World, vm: SimVm, hosts: readonly SimHost[]): void {
  const violated = (message: string) => world.violated('left over', `${vm.key} is at ${vm.host.name}, but ${message}`);
  const record = vm.recordAtDevice;
  if (record === undefined) {
    violated(`${vm.deviceHost.name} knows nothing of it`);
    return;
  }
  const logs = vm.host.logPaths(vm.key).length;
  if (logs > 1) violated(`${vm.host.name} has ${logs} write logs of it`);
  if (existsSync(vm.host.mapPath(vm.key))) violated(`${vm.host.name} has a map of its copy`);
  const { host, lease, standby, previous, handOver } = record;
  if (host !== vm.host.name || lease.holder !== vm.host.name)
    violated(`${vm.deviceHost.name} has it at ${host}, and the lease is with ${lease.holder}`);
  // A host that could not tell the device's host that the VM does not come has said so.
  if (standby !== undefined && !world.counts.has('standbys that stay')) violated(`it is expected at ${standby.host}`);
  if (previous !== undefined) violated(`it may go back to ${previous.host}`);
  if (handOver !== undefined) violated('what it had left is kept');
  for (const other of hosts) {
    if (other === vm.host) continue;
    const entry = other.entryOf(vm.key);
    // What was taken from a host stays there, with the reason, until people detach it.
    if (entry?.state === 'failed' && record.fenced?.includes(other.name)) continue;
    if (entry !== undefined) violated(`${other.name} has it, too: ${entry.state} (${entry.reason ?? 'no reason'})`);
    if (other.logPaths(vm.key).length > 0) violated(`${other.name} has a write log of it`);
  }
}
