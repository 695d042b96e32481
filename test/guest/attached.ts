/** Guests whose disks come through Netbus: exported on one host, attached on another. */

import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { Cleanup } from '../support/cleanup.ts';
import type { Cluster } from '../support/cluster.ts';
import { type Guest, type GuestOptions, startGuest } from './guest.ts';
import { makeEmptyDisk } from './root-disk.ts';

export const MIB = 1024 * 1024;

/** Makes an empty image on a host and exports it. Returns the image's path. */
export async function exportEmptyDisk(
  cluster: Cluster,
  hostName: string,
  name: string,
  options: { sizeMiB: number; allow: readonly string[]; more?: readonly string[] },
): Promise<string> {
  const path = join(cluster.host(hostName).folder, `${name}.img`);
  makeEmptyDisk(path, options.sizeMiB);
  await exportDisk(cluster, hostName, name, path, options);
  return path;
}

/** Exports an image that is there. */
export async function exportDisk(
  cluster: Cluster,
  hostName: string,
  name: string,
  path: string,
  { allow, more = [] }: { allow: readonly string[]; more?: readonly string[] },
): Promise<void> {
  await cluster.ask(hostName, 'export', name, '--disk', path, '--allow', allow.join(','), ...more);
}

/** Attaches devices to a VM of a host, in this order (/dev/vda, /dev/vdb …), and boots it. */
export async function bootAttached(
  cluster: Cluster,
  hostName: string,
  vm: string,
  devices: readonly string[],
  options: Omit<GuestOptions, 'name' | 'host' | 'cleanup'> & { cleanup: Cleanup },
): Promise<Guest> {
  const disks: string[] = [];
  for (const device of devices) {
    const entry = await cluster.ask<AttachmentEntry>(hostName, 'attach', device, '--vm', vm);
    disks.push(...entry.qemuArguments);
  }
  return startGuest({
    ...options,
    name: vm,
    host: cluster.host(hostName),
    arguments: [...disks, ...(options.arguments ?? [])],
  });
}
