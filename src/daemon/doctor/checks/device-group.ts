/** The group that gets the sockets of virtual devices: a QEMU that is not root's is in it. */
import { DEVICE_GROUP_DEFAULT, findGroup } from '../../group.ts';
import { type Check, failure, hint, ok, withoutConfig } from '../check.ts';

/** Under whom libvirt runs QEMU: on Debian, and elsewhere. */
const QEMU_USERS = ['libvirt-qemu', 'qemu'];

export const deviceGroup: Check = {
  name: 'device group',
  async run({ facts, config, owner }) {
    if (config.name !== 'loaded') return [withoutConfig];
    const { file, deviceGroup: configured } = config.config;
    const name = configured ?? DEVICE_GROUP_DEFAULT;
    const group = findGroup(await facts.readText('/etc/group').catch(() => ''), name);
    if (configured !== undefined && group === undefined) {
      const found = `${file}: deviceGroup: there is no group "${name}", and no daemon starts`;
      return [failure(found, `correct it, or make the group: groupadd --system ${name}`)];
    }
    if (group === undefined || (configured === undefined && owner !== 0)) {
      return [ok("the sockets of virtual devices are the daemon's user's alone")];
    }
    // passwd(5): name, password, number, number of the primary group.
    const users = (await facts.readText('/etc/passwd').catch(() => '')).split('\n').map((line) => line.split(':'));
    const outside = users.find(
      ([user, , , primary]) => QEMU_USERS.includes(user) && Number(primary) !== group.id && !group.members.includes(user),
    );
    if (outside === undefined) return [ok(`the sockets of virtual devices are for the group ${name}`)];
    const [user] = outside;
    return [
      hint(
        `user ${user}, who runs libvirt's QEMU, is not in the group ${name}, which gets the sockets of virtual devices`,
        `usermod -aG ${name} ${user}, or another \`deviceGroup\` in ${file}`,
      ),
    ];
  },
};
