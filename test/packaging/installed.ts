/** A program that was installed, put to its use: a daemon of its own, and a disk that a virtual machine writes to and reads. */

import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { controlSocket } from '../../src/api/client.ts';
import type { AttachmentEntry } from '../../src/api/types.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { pattern } from '../support/pattern.ts';
import { freePort } from '../support/port.ts';
import { type ProcessOptions, type RunningProcess, runOk } from '../support/process.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitForListener } from '../support/wait.ts';

const IMAGE_BYTES = 4 * 1024 * 1024;
const WRITTEN_BYTES = 64 * 1024;
const DAEMON_START_MS_MAX = 60_000;

export interface Service {
  readonly host: Host;
  readonly daemon: RunningProcess;
  readonly cluster: Cluster;
}

/** Starts `command` (the path of a netbusd, with what stands before it) as the daemon of a cluster of one host. */
export async function startService(
  command: readonly string[],
  cleanup: Cleanup,
  { waits = true, ...options }: ProcessOptions & { waits?: boolean } = {},
): Promise<Service> {
  const cluster = await startCluster(['m1'], { cleanup, kind: 'loopback', start: false });
  const host = cluster.host('m1');
  // Hosts of loopback addresses share the network of this machine, where the usual port may be taken.
  const config = readFileSync(cluster.configPath(host), 'utf8');
  writeFileSync(cluster.configPath(host), config.replaceAll(/:\d+(?=["\n])/g, `:${await freePort(host.address)}`));
  const [, ...own] = cluster.daemonArguments(host); // The name netbusd stands for the verb.
  const daemon = host.spawn([...command, ...own], options);
  if (waits) {
    const ended = daemon.exited.then(() => {
      throw new Error(`the daemon ended at its start: ${daemon.stderr.trim()}`);
    });
    await Promise.race([waitForListener(controlSocket(host.runDir), daemon.pid, DAEMON_START_MS_MAX), ended]);
    ended.catch(() => {}); // It ends later, too, and then nobody waits.
  }
  return { host, daemon, cluster };
}

/** Makes an image of a host, of all holes. */
export function makeImage(host: Host): string {
  const path = join(host.folder, 'data.img');
  writeFileSync(path, '');
  truncateSync(path, IMAGE_BYTES);
  return path;
}

/** Exports `disk`, attaches it to a VM of the same host with the program `netbus`, and uses it. */
export async function useDisk(netbus: readonly string[], { host }: Service, disk: string): Promise<void> {
  const ask = async (...argv: string[]) =>
    JSON.parse(await runOk([...netbus, ...argv, '--json'], { env: { NETBUS_RUN_DIR: host.runDir } })) as unknown;
  await ask('export', 'data', '--disk', disk, '--allow', host.name);
  const { socket } = (await ask('attach', `${host.name}/data`, '--vm', 'web')) as AttachmentEntry;
  const vm = await VhostUserFrontend.connect(socket);
  const written = pattern(WRITTEN_BYTES, 7);
  await vm.write(8, written);
  await vm.flush();
  assert.ok(written.equals(await vm.read(8, WRITTEN_BYTES)), 'what was written is read');
  vm.close();
}
