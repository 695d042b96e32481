/** `--keep`: the disk is attached once more, the guest boots, and all of it stays until the user ends it. */

import { join } from 'node:path';
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { type Cluster, netbusProgram } from '../../test/support/cluster.ts';
import type { Host } from '../../test/support/hosts.ts';
import { bootGuest, imagePath, netbus } from './disk.ts';
import type { Story } from './story.ts';

/** A shell on the guest's second serial port. */
const SHELL_LOOP =
  'setsid sh -c "while :; do setsid -c sh -i </dev/ttyS1 >/dev/ttyS1 2>&1; sleep 1; done" </dev/null >/dev/null 2>&1 &';

/** Resolves never: the process ends by a signal, which cleans up. */
export async function explore(story: Story, cleanup: Cleanup, cluster: Cluster): Promise<never> {
  story.step('All of it once more, for you to explore');
  const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
  await netbus(story, cluster, 'm1', 'export', 'data', '--disk', imagePath(m1, 'data'), '--allow', 'm2');
  const disk = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/data', '--vm', 'web');
  const shell = join(m2.folder, 'shell');
  const serial = ['-chardev', `socket,id=shell,path=${shell},server=on,wait=off`, '-serial', 'chardev:shell'];
  const guest = await bootGuest(cleanup, m2, [disk], serial);
  await guest.succeed('mkdir -p /mnt/m1 && mount /dev/vda /mnt/m1');
  await guest.succeed(SHELL_LOOP);
  story.say('The disk of m1 is mounted at /mnt/m1 in the guest on m2. In another terminal:');
  for (const host of [m1, m2]) {
    story.say(`\nnetbus on ${host.name}:`);
    story.output(`${command(host)} status`);
  }
  if (cluster.hosts.kind === 'namespace') {
    story.say('\na shell on m2:');
    story.output(m2.command(['bash']).join(' '));
  }
  story.say('\na shell in the guest (package socat; leave it with Ctrl-]):');
  story.output(`socat -,raw,echo=0,escape=0x1d UNIX-CONNECT:${shell}`);
  story.say("\nwhat the daemons and the guest's console say:");
  story.output(`tail -f ${cluster.logPath(m1)} ${cluster.logPath(m2)} ${guest.consolePath}`);
  story.say(`\nCtrl-C here (or "kill ${process.pid}") ends everything and cleans it up.`);
  return await new Promise<never>(() => {});
}

/** `--keep` of the others: the guest and these hosts stay as they are. */
export async function exploreHosts(story: Story, cluster: Cluster, hosts: readonly string[]): Promise<never> {
  story.step('All of it stays, for you to explore');
  for (const host of hosts.map((name) => cluster.host(name))) {
    story.say(`netbus on ${host.name}, and what its daemon says:`);
    story.output(`${command(host)} status`);
    story.output(`tail -f ${cluster.logPath(host)}`);
  }
  story.say(`\nCtrl-C here (or "kill ${process.pid}") ends everything and cleans it up.`);
  return await new Promise<never>(() => {});
}

function command(host: Host): string {
  const program = netbusProgram().join(' ');
  return host.kind === 'namespace' ? host.command([program]).join(' ') : `NETBUS_RUN_DIR=${host.runDir} ${program}`;
}
