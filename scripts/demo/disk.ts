/** The demo's story: a disk of host m1, used by a real guest on host m2. */

import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentEntry, Invitation } from '../../src/api/types.ts';
import { type Guest, startGuest } from '../../test/guest/guest.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { type Cluster, startCluster } from '../../test/support/cluster.ts';
import type { Host } from '../../test/support/hosts.ts';
import { runOk } from '../../test/support/process.ts';
import { type Checksums, makeSources, randomIops, type Speeds, VOLUME_BYTES, writeAndRead } from './guest-work.ts';
import type { Story } from './story.ts';

export const DISK_MIB = 512;
const GUEST_MEMORY_MIB = 512;
/** Characters of a token that the story shows; the rest is a secret, as elsewhere. */
const TOKEN_SHOWN = 24;

/** The image of export NAME on a host. */
export const imagePath = (host: Host, name: string): string => join(host.folder, `${name}.img`);

export interface DiskResult {
  /** Bytes of the files whose content on m1 is what the guest made in its memory on m2. */
  verifiedBytes: number;
  files: number;
  remote: Speeds;
  local: Speeds;
}

export async function tellDiskStory(story: Story, cleanup: Cleanup): Promise<{ cluster: Cluster; result: DiskResult }> {
  story.step('Two hosts, with a daemon on each');
  const cluster = await startCluster(['m1', 'm2'], { cleanup, start: false, configure: false });
  const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
  story.say(`${describeHosts(cluster)}. m1 makes a cluster and lets m2 in.`);
  await makeCluster(story, cluster, m1, [m2]);

  story.step('m1 exports a disk; m2 gives it to a virtual machine');
  await makeImage(story, m1, 'data');
  await netbus(story, cluster, 'm1', 'export', 'data', '--disk', imagePath(m1, 'data'), '--allow', 'm2');
  await netbus(story, cluster, 'm2', 'ls');
  const remote = await attach(story, cluster, 'm1/data', 'web');
  story.say('Beside it, to compare with: a disk of m2 itself, by the same way but without the network.');
  await makeImage(story, m2, 'near');
  await netbus(story, cluster, 'm2', 'export', 'near', '--disk', imagePath(m2, 'near'), '--allow', 'm2');
  const local = await attach(story, cluster, 'm2/near', 'web');

  story.step('A real Linux guest boots on m2');
  const guest = await bootGuest(cleanup, m2, [remote, local]);
  story.say(`It took ${(guest.bootMs / 1000).toFixed(1)} s. Its own virtio-blk driver found both disks:`);
  await inGuest(story, guest, 'head /sys/block/vd?/serial');

  story.step('The guest makes a filesystem on each, writes files and reads them back');
  const sources = await makeSources(guest);
  story.say(
    `${sources.size} files, ${mebibytes(VOLUME_BYTES)}, are random bytes made in the guest's memory, with checksums taken there.`,
  );
  const remoteSpeeds = await useDisk(story, guest, '/dev/vda', '/mnt/m1', sources, `the disk of m1, over the network`);
  const localSpeeds = await useDisk(story, guest, '/dev/vdb', '/mnt/near', sources, 'the disk of m2 itself');
  await netbus(story, cluster, 'm2', 'status');

  story.step('The guest powers off, and the disk goes back');
  await inGuest(story, guest, 'umount /mnt/m1 /mnt/near');
  await guest.powerOff();
  await netbus(story, cluster, 'm2', 'detach', 'web/data');
  await netbus(story, cluster, 'm2', 'detach', 'web/near');
  await netbus(story, cluster, 'm1', 'unexport', 'data');

  story.step('m1 looks at its disk');
  const { bytes, files } = await verifyImage(story, m1, sources);
  story.good(`the filesystem is clean, and all ${files} files (${mebibytes(bytes)}) are what the guest on m2 made`);
  return { cluster, result: { verifiedBytes: bytes, files, remote: remoteSpeeds, local: localSpeeds } };
}

/** Boots a guest on `host` with what is attached, plus other QEMU arguments. */
export function bootGuest(
  cleanup: Cleanup,
  host: Host,
  attachments: readonly AttachmentEntry[],
  more: readonly string[] = [],
): Promise<Guest> {
  const disks = attachments.flatMap(({ qemuArguments }) => qemuArguments);
  return startGuest({ name: 'web', cleanup, host, fio: true, memoryMiB: GUEST_MEMORY_MIB, arguments: [...disks, ...more] });
}

export function describeHosts(cluster: Cluster): string {
  const addresses = cluster.hosts.all.map(({ name, address }) => `${name} at ${address}`).join(', ');
  return cluster.hosts.kind === 'namespace'
    ? `Network and mount namespaces of this machine: ${addresses}`
    : `Loopback addresses of this machine, as this is not run by root: ${addresses}`;
}

/** As the README says it: the first makes a cluster and lets the others in. */
export async function makeCluster(story: Story, cluster: Cluster, first: Host, others: readonly Host[]): Promise<void> {
  const places = (host: Host) => [
    '--address',
    host.address,
    '--config',
    cluster.configPath(host),
    ...cluster.folderArguments(host),
  ];
  await netbus(story, cluster, first.name, 'init', '--cluster', cluster.name, '--host', first.name, ...places(first));
  await startDaemon(story, cluster, first);
  for (const other of others) {
    story.command(first.name, `netbus invite ${other.name}`);
    const { token, expiresAt } = await cluster.ask<Invitation>(first.name, 'invite', other.name);
    story.output(`${token.slice(0, TOKEN_SHOWN)}…\n(works once, until ${expiresAt})\n`);
    story.command(other.name, `netbus join ${token.slice(0, TOKEN_SHOWN)}… ${places(other).join(' ')}`);
    const { status, stdout, stderr } = await cluster.netbus(other.name, 'join', token, ...places(other));
    story.output(stderr + stdout);
    if (status !== 0) throw new Error(`"netbus join" on ${other.name} ended with ${status}: ${stderr.trim()}`);
    await startDaemon(story, cluster, other);
  }
  await netbus(story, cluster, first.name, 'members');
}

async function startDaemon(story: Story, cluster: Cluster, host: Host): Promise<void> {
  story.command(host.name, `netbus ${cluster.daemonArguments(host).join(' ')}`);
  await cluster.startDaemon(host);
}

export async function makeImage(story: Story, host: Host, name: string): Promise<void> {
  story.command(host.name, `truncate -s ${DISK_MIB}M ${imagePath(host, name)}`);
  writeFileSync(imagePath(host, name), '');
  truncateSync(imagePath(host, name), DISK_MIB * 1024 * 1024);
}

/** Runs a command of the user's, and shows it with its answer. Throws where it fails. */
export async function netbus(story: Story, cluster: Cluster, host: string, ...argv: readonly string[]): Promise<void> {
  story.command(host, `netbus ${argv.join(' ')}`);
  const { status, stdout, stderr } = await cluster.netbus(host, ...argv);
  story.output(stdout + stderr);
  if (status !== 0) throw new Error(`"netbus ${argv.join(' ')}" on ${host} ended with ${status}: ${stderr.trim()}`);
}

async function attach(story: Story, cluster: Cluster, device: string, vm: string): Promise<AttachmentEntry> {
  await netbus(story, cluster, 'm2', 'attach', device, '--vm', vm);
  const { attachments } = await cluster.client('m2').status();
  return attachments.find((entry) => entry.vm === vm && entry.device === device)!;
}

async function inGuest(story: Story, guest: Guest, commands: string): Promise<void> {
  story.command(guest.name, commands);
  story.output(await guest.succeed(commands));
}

async function useDisk(
  story: Story,
  guest: Guest,
  device: string,
  mountPoint: string,
  sources: Checksums,
  what: string,
): Promise<Speeds> {
  await inGuest(story, guest, `mkdir -p ${mountPoint} && mkfs.ext4 -q ${device} && mount ${device} ${mountPoint}`);
  const { read, writeMBs, readMBs } = await writeAndRead(guest, mountPoint);
  for (const [name, sum] of sources) {
    if (read.get(name) !== sum) throw new Error(`${mountPoint}/${name} came back different from ${what}`);
  }
  story.good(`${sources.size} files written to ${what}, read back after its cache was dropped: all equal`);
  const randomReadIops = await randomIops(guest, mountPoint, 'randread');
  const randomWriteIops = await randomIops(guest, mountPoint, 'randwrite');
  await guest.succeed(`rm ${mountPoint}/random`);
  return { writeMBs, readMBs, randomReadIops, randomWriteIops };
}

/** e2fsck, and the content of each file as it stands in the image, against the checksums that the guest took. */
async function verifyImage(story: Story, host: Host, sources: Checksums): Promise<{ bytes: number; files: number }> {
  const image = imagePath(host, 'data');
  // For users who are not root these folders are often not in PATH.
  const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
  story.command(host.name, `e2fsck -f -n ${image}`);
  const report = await runOk(['e2fsck', '-f', '-n', image], { env });
  story.output(report.split('\n').at(-2) ?? report);
  const folder = join(host.folder, 'files');
  mkdirSync(folder);
  story.command(host.name, `debugfs -R "rdump / ${folder}" ${image} && sha256sum ${folder}/*`);
  await runOk(['debugfs', '-R', `rdump / ${folder}`, image], { env });
  let bytes = 0;
  for (const [name, sum] of sources) {
    const path = join(folder, name);
    if ((await sha256(path)) !== sum) throw new Error(`${name} in ${image} is not what the guest wrote`);
    bytes += statSync(path).size;
  }
  return { bytes, files: sources.size };
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}
