/** Which directory this host goes by: the hosts of its config, or the signed member list of its state folder. */
import { join } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import type { Directory } from '../directory/directory.ts';
import type { Identity } from '../directory/identity.ts';
import { SignedDirectory } from '../directory/signed-directory.ts';
import { StaticDirectory } from '../directory/static-directory.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Config } from './config.ts';

/** Where the directory keeps what it stores. */
export function directoryFolder(stateDir: string): string {
  return join(stateDir, 'directory');
}

/**
 * Throws `config` where neither is there: a host that never knew anybody is not one to start. One whose list was damaged starts: it serves its own VMs,
 * refuses all others, and gets the list from them.
 */
export async function openDirectory(
  config: Config,
  identity: Identity,
  { clock, log }: { clock: Clock; log: Log },
): Promise<Directory> {
  if (config.hosts !== undefined) return new StaticDirectory(config.host, config.hosts);
  const folder = directoryFolder(config.stateDir);
  const directory = await SignedDirectory.open({ folder, cluster: config.cluster, ca: identity.ca, clock });
  for (const { file, keptAs, reason } of directory.damaged)
    log.error({ file, keptAs, reason }, 'a damaged member list was set aside');
  if (directory.list() !== undefined) return directory;
  if (directory.lost) {
    log.error(
      { folder, trusted: directory.trusted },
      'there is no member list: other hosts are refused until one of them brings it',
    );
    return directory;
  }
  throw new NetbusError(
    'config',
    `${folder} has no member list: run "netbus init" or "netbus join", copy the file from another host of the cluster, or name the \`hosts\` in ${config.file}`,
  );
}
