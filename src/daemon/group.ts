/** The group of people who may ask the daemon without being root. */
import { chown, readFile } from 'node:fs/promises';

/** Made by the Debian package, or by hand: `groupadd --system netbus`. */
export const CONTROL_GROUP = 'netbus';

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
