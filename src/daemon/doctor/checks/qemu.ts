/** QEMU, where there is one: a host that only has devices needs none. */
import { type Check, hint, ok, warning } from '../check.ts';
import { isBefore } from '../version.ts';

/** The oldest that Netbus is tested with. */
const TESTED_VERSION = '7.2';
/** Debian's name of the system emulator for an architecture of Node. */
const EMULATORS: Readonly<Record<string, string>> = { x64: 'qemu-system-x86_64', arm64: 'qemu-system-aarch64' };
/** Red Hat's place. */
const OTHER_PLACE = '/usr/libexec/qemu-kvm';

export const qemu: Check = {
  name: 'qemu',
  async run({ facts }) {
    for (const program of [EMULATORS[facts.architecture], OTHER_PLACE]) {
      if (program === undefined) continue;
      const version = await facts.run([program, '--version']);
      if (version === undefined) continue;
      const found = /version (\S+)/.exec(version.output)?.[1] ?? 'of an unknown version';
      const devices = await facts.run([program, '-machine', 'none', '-device', 'help']);
      if (devices !== undefined && !devices.output.includes('vhost-user-blk')) {
        return [warning(`${program} ${found} has no vhost-user-blk`, 'install a QEMU with it to attach disks here')];
      }
      if (isBefore(found, TESTED_VERSION)) {
        return [
          hint(`${program} ${found} is older than what Netbus is tested with`, `${TESTED_VERSION} or newer is known to work`),
        ];
      }
      return [ok(`${program} ${found}, with vhost-user-blk`)];
    }
    return [hint('there is no QEMU here', 'nothing, unless VMs are to run on this host')];
  },
};
