/** The kernel's release. */
import { type Check, failure, hint, ok } from '../check.ts';
import { isBefore } from '../version.ts';

/** pwritev2(2) with RWF_DSYNC. */
const KERNEL_MIN = '4.7';
/** io_uring with all that the addon asks of it. */
const IO_URING_KERNEL_MIN = '5.6';

export const kernel: Check = {
  name: 'kernel',
  async run({ facts }) {
    const found = `Linux ${facts.kernel}`;
    if (isBefore(facts.kernel, KERNEL_MIN)) return [failure(`${found} is too old`, `boot ${KERNEL_MIN} or newer`)];
    if (isBefore(facts.kernel, IO_URING_KERNEL_MIN)) {
      return [
        hint(
          `${found} has no io_uring that can be used`,
          `disks are served by a thread pool; ${IO_URING_KERNEL_MIN} or newer is faster`,
        ),
      ];
    }
    return [ok(found)];
  },
};
