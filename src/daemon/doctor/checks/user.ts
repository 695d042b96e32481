/** Who asks: whoever may write to the control socket may do everything, and the group `netbus` is how people are let in. */
import { findGroup, CONTROL_GROUP as GROUP, type Group } from '../../group.ts';
import { type Check, type Finding, failure, hint, ok, skipped, warning } from '../check.ts';
import type { HostFacts } from '../facts.ts';
import { octal } from './state-folder.ts';

export const user: Check = {
  name: 'user',
  async run({ facts, socket, daemon }) {
    const group = findGroup(await facts.readText('/etc/group').catch(() => ''), GROUP);
    const findings = [await asker(facts, group)];
    if (daemon.name !== 'running') return findings;
    if (daemon.uid === undefined) findings.push(skipped('whose process the daemon is cannot be seen from here'));
    else if (daemon.uid !== 0) {
      findings.push(
        hint(
          `the daemon runs as user ${daemon.uid}, not as root`,
          'it serves the images and block devices that this user may open, no others',
        ),
      );
    }
    const file = await facts.stat(socket).catch(() => undefined);
    if (file !== undefined && (file.mode & 0o007) !== 0) {
      findings.push(
        failure(`${socket} has mode ${octal(file.mode)}: everybody may command the daemon`, `chmod 0660 ${socket}`),
      );
    } else if (file !== undefined && group !== undefined && file.gid !== group.id && file.gid === 0) {
      findings.push(
        hint(
          `${socket} is root's alone, although there is a group ${GROUP}`,
          'restart the daemon, which gives it to the group',
        ),
      );
    }
    return findings;
  },
};

async function asker(facts: HostFacts, group: Group | undefined): Promise<Finding> {
  const { uid, groups } = facts.user;
  if (uid === 0) return ok(group === undefined ? `root; there is no group ${GROUP}` : `root; others by the group ${GROUP}`);
  if (group === undefined) {
    return warning(
      `user ${uid} is not root, and there is no group ${GROUP}`,
      `as root: groupadd --system ${GROUP}, usermod -aG ${GROUP} USER, then restart the daemon`,
    );
  }
  if (groups.includes(group.id)) return ok(`user ${uid}, of the group ${GROUP}`);
  const name = await userName(facts, uid);
  if (group.members.includes(name)) {
    return warning(`user ${name} was put into the group ${GROUP} after this session began`, `log in anew, or: newgrp ${GROUP}`);
  }
  return warning(
    `user ${name} is not in the group ${GROUP} and may not ask the daemon`,
    `as root: usermod -aG ${GROUP} ${name}, then log in anew`,
  );
}

/** passwd(5): name, password, number. */
async function userName(facts: HostFacts, uid: number): Promise<string> {
  const lines = (await facts.readText('/etc/passwd').catch(() => '')).split('\n').map((line) => line.split(':'));
  return lines.find(([, , id]) => id === `${uid}`)?.[0] ?? `${uid}`;
}
