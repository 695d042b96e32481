/** io_uring: the way to the disks; a thread pool takes its place where it is forbidden. */
import { type Check, type Finding, hint, ok, skipped } from '../check.ts';
import { errorCode, errorText, type HostFacts } from '../facts.ts';
import { isBefore } from '../version.ts';

const SYSCTL = '/proc/sys/kernel/io_uring_disabled';
/** From here on rings are not counted as locked memory. */
const UNCOUNTED_KERNEL = '5.12';

export const ioUring: Check = {
  name: 'io_uring',
  async run({ facts, daemon }) {
    const disabled = (await facts.readText(SYSCTL).catch(() => '0')).trim();
    try {
      await facts.openIoUring();
    } catch (thrown) {
      return [explain(facts, thrown, disabled)];
    }
    // Root may what the daemon may not.
    if (disabled === '1' && daemon.name === 'running' && daemon.uid !== 0) {
      return [hint('io_uring is allowed to root only, and the daemon is not root', 'sysctl -w kernel.io_uring_disabled=0')];
    }
    return [ok('io_uring is allowed')];
  },
};

function explain(facts: HostFacts, thrown: unknown, disabled: string): Finding {
  const slower = 'disks are served by a thread pool meanwhile';
  switch (errorCode(thrown)) {
    case 'ERR_DLOPEN_FAILED':
    case 'MODULE_NOT_FOUND':
      return skipped('not tried: the addon cannot be loaded');
    case 'EPERM':
    case 'EACCES':
      if (disabled === '1' || disabled === '2') {
        return hint(
          `kernel.io_uring_disabled is ${disabled}: ${slower}`,
          'sysctl -w kernel.io_uring_disabled=0, and in /etc/sysctl.d',
        );
      }
      return hint(
        `io_uring is forbidden, not by sysctl but by a seccomp filter or a security module: ${slower}`,
        'allow io_uring_setup, io_uring_enter and io_uring_register in the filter of the service or container',
      );
    case 'ENOSYS':
      return hint(
        `this kernel has no io_uring that can be used: ${slower}`,
        'boot a kernel of 5.6 or newer with CONFIG_IO_URING',
      );
    case 'ENOMEM':
      if (isBefore(facts.kernel, UNCOUNTED_KERNEL)) {
        return hint(
          `a ring does not fit RLIMIT_MEMLOCK: ${slower}`,
          'LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited',
        );
      }
      return hint(`there is no memory for a ring: ${slower}`, 'see the memory limit of the service or container');
    default:
      return hint(`io_uring does not work (${errorText(thrown)}): ${slower}`, 'see dmesg');
  }
}
