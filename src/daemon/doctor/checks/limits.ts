/** Limits of the daemon's process; before there is one, of this one. */
import { type Check, type Finding, hint, ok, skipped, warning } from '../check.ts';
import { isBefore } from '../version.ts';

/** Most files of a daemon with all the attachments that it may have: a listener, a connection, a ring's events, an image, a session each. */
const OPEN_FILES_WANTED = 16_384;
/** Below this a few dozen virtual devices are the end. */
const OPEN_FILES_MIN = 1_024;
/** Older kernels count a ring's memory as locked: enough for a ring per export of a modest host. */
const LOCKED_BYTES_WANTED = 8 * 1024 * 1024;
const UNCOUNTED_KERNEL = '5.12';

export const limits: Check = {
  name: 'limits',
  async run({ facts, daemon }) {
    const process = daemon.name === 'running' ? `${daemon.status.pid}` : 'self';
    const whose = daemon.name === 'running' ? 'the daemon' : 'this shell';
    const text = await facts.readText(`/proc/${process}/limits`).catch(() => undefined);
    if (text === undefined) return [skipped(`the limits of ${whose} may not be read by this user`, 'run this as root')];
    return [openFiles(limitOf(text, 'Max open files', 'hard'), whose), lockedMemory(text, facts.kernel, whose)];
  },
};

/** Node raises its soft limit to the hard one. */
function openFiles(most: number | undefined, whose: string): Finding {
  if (most === undefined) return skipped('RLIMIT_NOFILE is not in /proc');
  const found = `${whose} may have ${most === Number.POSITIVE_INFINITY ? 'any number of' : most} open files`;
  const advice = `LimitNOFILE=65536 in the unit of the daemon, or ulimit -n before it starts; each virtual device and each session takes some`;
  if (most < OPEN_FILES_MIN) return warning(found, advice);
  return most < OPEN_FILES_WANTED ? hint(found, advice) : ok(found);
}

function lockedMemory(text: string, kernel: string, whose: string): Finding {
  const most = limitOf(text, 'Max locked memory', 'soft');
  if (most === undefined) return skipped('RLIMIT_MEMLOCK is not in /proc');
  const found = `${whose} may lock ${most === Number.POSITIVE_INFINITY ? 'any amount of memory' : `${most} bytes of memory`}`;
  if (!isBefore(kernel, UNCOUNTED_KERNEL) || most >= LOCKED_BYTES_WANTED) return ok(found);
  return hint(`${found}, and this kernel counts io_uring`, 'LimitMEMLOCK=infinity in the unit of the daemon, or ulimit -l');
}

/** Of the table in /proc/PID/limits, whose columns are aligned: name, soft limit, hard limit, unit. */
function limitOf(text: string, name: string, which: 'soft' | 'hard'): number | undefined {
  const line = text.split('\n').find((candidate) => candidate.startsWith(name));
  const value = line?.slice(name.length).trim().split(/\s+/)[which === 'soft' ? 0 : 1];
  if (value === undefined) return undefined;
  return value === 'unlimited' ? Number.POSITIVE_INFINITY : Number(value);
}
