/** Groups that get at sockets without being root: people at the control socket, users of VMMs at those of virtual devices. */
import { chown, readFile } from 'node:fs/promises';
import { NetbusError } from '../device/errors.ts';

/** Made by the Debian package, or by hand: `groupadd --system netbus`. */
export const CONTROL_GROUP = 'netbus';

/** Who may use /dev/kvm runs virtual machines: on Debian this is the group of libvirt's QEMU, too. */
export const DEVICE_GROUP_DEFAULT = 'kvm';

const GROUP_FILE = '/etc/group';
/** -1 of chown(2): the owner stays. */
const SAME_OWNER = -1;

/**
 * Gives a file to a group, where this is root's and the group exists; else it stays as it is, which lets in fewer and never more.
 * Node knows no getgrnam(3): groups that are not in /etc/group (LDAP) are not found.
 */
export async function giveToGroup(path: string, group: string, groupFile = GROUP_FILE): Promise<void> {
  if (process.geteuid?.() !== 0) return;
  const found = findGroup(await readFile(groupFile, 'utf8').catch(() => ''), group);
  if (found !== undefined) await chown(path, SAME_OWNER, found.id).catch(() => {});
}

/**
 * The number of the group that gets the devices' sockets: the one of the config, or else kvm where this is root's and there is one. Undefined: the daemon's own.
 * Throws `config` where the one of the config is not there, or is not this user's to give to.
 */
export async function deviceGroup(
  { file, deviceGroup: configured }: { readonly file: string; readonly deviceGroup: string | undefined },
  groupFile = GROUP_FILE,
): Promise<number | undefined> {
  const root = process.geteuid?.() === 0;
  if (configured === undefined && !root) return undefined;
  const found = findGroup(await readFile(groupFile, 'utf8').catch(() => ''), configured ?? DEVICE_GROUP_DEFAULT);
  if (configured === undefined) return found?.id;
  if (found === undefined) {
    throw new NetbusError(
      'config',
      `${file}: deviceGroup: there is no group "${configured}" in ${groupFile}: correct it, or make the group: groupadd --system ${configured}`,
    );
  }
  if (root || process.getgroups?.().includes(found.id)) return found.id;
  throw new NetbusError(
    'config',
    `${file}: deviceGroup: the daemon is neither root nor in the group "${configured}": run it as root, or put its user into that group`,
  );
}

export interface Group {
  readonly id: number;
  readonly members: readonly string[];
}

/** A group by the text of group(5): name, password, number, members. Undefined where it is not there or makes no sense. */
export function findGroup(text: string, group: string): Group | undefined {
  for (const line of text.split('\n')) {
    const [name, , id, members = ''] = line.split(':');
    if (name === group && id !== undefined && /^\d{1,10}$/.test(id)) return { id: Number(id), members: members.split(',') };
  }
  return undefined;
}
