/** Of all the disks that a VM's data was copied to one is the guest's, and whoever asks for another one is told that it is stale. */

import type { AttachmentRecord } from '../../src/daemon/records.ts';
import { isTarget } from '../../src/device/copy-mark.ts';
import type { DiskHome, SimVm } from './guest.ts';
import { ask } from './operator.ts';
import type { World } from './world.ts';

/** Follows the guest from disk to disk, by what their hosts grant: a disk takes the place of another one only by a swap from that. */
export function watchCopies(world: World, vm: SimVm): void {
  let present: string | undefined;
  for (const home of vm.homes) {
    const told = home.host.onGranted;
    home.host.onGranted = (record) => {
      told(record);
      const { id, copy, swapped } = record;
      if (record.export !== home.exported || `${record.vm}/${record.name}` !== vm.key) return;
      // That one is for the copy.
      if (copy !== undefined && isTarget(copy)) return;
      if (home !== vm.home) {
        if (swapped === undefined || swapped.from.attachment !== present) {
          world.violated('one copy', `${vm.key} is granted ${nameOf(home)}, and ${nameOf(vm.home)} is its disk`);
          return;
        }
        moveTo(world, vm, home);
      }
      present = id;
    };
  }
}

function moveTo(world: World, vm: SimVm, home: DiskHome): void {
  const { disk: old } = vm.home;
  world.count('swaps that were decided');
  world.trace(`${vm.key} is at ${nameOf(home)} now`);
  old.witness = undefined;
  old.retired = new Set(old.users);
  home.disk.witness = vm.checker;
  vm.home = home;
  vm.checker.swapped(home.disk, { hasLog: vm.isLocal || vm.host.hasLogMemory });
}

/** In peace, when no job runs. */
export async function checkOneCopy(world: World, vm: SimVm): Promise<void> {
  if (vm.homes.length === 1 || world.violation !== undefined) return;
  const violated = (message: string) => world.violated('one copy', `${vm.key} is at ${nameOf(vm.home)}, but ${message}`);
  const device = vm.host.entryOf(vm.key)?.device;
  if (device !== nameOf(vm.home)) violated(`${vm.host.name} has it at ${device}`);
  const mark = vm.recordAtDevice?.copy?.state;
  // Of a swap that was refused because the answer to its first step was lost: the next one begins over it.
  const isLeft = mark === 'copied' && world.counts.has('swaps refused without an answer');
  if (isLeft) world.count('marks that stay');
  if (mark !== undefined && !isLeft) violated(`that is marked as ${mark}`);
  for (const home of vm.homes) {
    if (home === vm.home) continue;
    const marks = attachmentsOf(home);
    const user = marks.find(({ copy }) => copy === undefined || copy.state === 'copied');
    const undecided = marks.find(({ copy }) => copy?.state === 'complete' || copy?.state === 'handing-over');
    if (undecided !== undefined) violated(`${nameOf(home)} is ${undecided.copy?.state}`);
    if (user !== undefined) violated(`${nameOf(home)} may be used by ${user.host}:${user.vm}`);
    if (marks.length > 1) violated(`${nameOf(home)} has ${marks.length} marks`);
    if (marks.length === 0 && !home.disk.isBlank) violated(`${nameOf(home)} has a copy without a mark`);
    if (marks.length === 0) continue;
    let answer: { ok: boolean; code?: string } | undefined;
    const request = { device: nameOf(home), vm: 'other', name: 'disk', takeover: false };
    void ask(world, vm.host, `attach ${nameOf(home)}`, ({ attachments }) => attachments.attach(request)).then((told) => {
      answer = told;
    });
    await world.run(world.nowMs + 60_000, () => answer !== undefined);
    if (answer?.code !== 'in_use') violated(`${nameOf(home)}, which is ${marks[0].copy?.state}, can be attached`);
  }
}

function attachmentsOf({ host, exported }: DiskHome): readonly AttachmentRecord[] {
  return [...(host.daemon?.exports.all ?? [])].find(({ name }) => name === exported)?.attachments ?? [];
}

function nameOf({ host, exported }: DiskHome): string {
  return `${host.name}/${exported}`;
}
