/**
 * The image's lock. It belongs to the open file, so that it stays until the kernel's last I/O of a killed process is done, and
 * no second open file of the same process gets past it.
 *
 * Who writes locks the whole file. Who reads shares what others read of it, in a way that QEMU understands (its block/file-posix.c
 * locks byte 100 + n for a permission that it uses and 200 + n for one that it does not let others have): a QEMU that writes the
 * image is refused, and so are we where one does.
 */
import { readFile } from 'node:fs/promises';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { lockHolder } from './lock-holder.ts';

/** Bytes that readers share with each other, and a writer's lock excludes. */
const READERS_BYTES = 100;
const QEMU_USES_WRITE_BYTE = 101;
const QEMU_REFUSES_WRITERS_BYTE = 201;

/** Locks the open file. Throws `in_use` with who has it, as far as that can be seen. */
export async function lockImage(fd: number, path: string, readOnly: boolean): Promise<void> {
  if (!takeLocks(fd, readOnly)) throw await inUse(path);
  if (readOnly && (await isWrittenByQemu(fd))) throw await inUse(path);
}

function takeLocks(fd: number, readOnly: boolean): boolean {
  if (!readOnly) return native.lockFile(fd, 'exclusive', 0, 0);
  return native.lockFile(fd, 'shared', 0, READERS_BYTES) && native.lockFile(fd, 'shared', QEMU_REFUSES_WRITERS_BYTE, 1);
}

/**
 * True where somebody locks the byte by which QEMU says that it writes. Shared locks do not meet each other, so it is looked up;
 * our own lock is in place by then, and a QEMU that comes later meets that.
 */
async function isWrittenByQemu(fd: number): Promise<boolean> {
  const own = /^lock:.* ([0-9a-f]+:[0-9a-f]+:\d+) \d+ /m.exec(await readFile(`/proc/self/fdinfo/${fd}`, 'utf8'));
  if (own === null) return false;
  for (const line of (await readFile('/proc/locks', 'utf8')).split('\n')) {
    const lock = /^\d+: \S+ +\S+ +\S+ -?\d+ (\S+) (\d+) (\d+|EOF)$/.exec(line);
    if (lock === null || lock[1] !== own[1]) continue;
    const end = lock[3] === 'EOF' ? Number.POSITIVE_INFINITY : Number(lock[3]);
    if (Number(lock[2]) <= QEMU_USES_WRITE_BYTE && QEMU_USES_WRITE_BYTE <= end) return true;
  }
  return false;
}

async function inUse(path: string): Promise<NetbusError> {
  const holder = (await lockHolder(path)) ?? 'another program, or I/O of one that was killed and is not finished yet';
  return new NetbusError(
    'in_use',
    `${path}: the image is in use (its lock is held by ${holder}): stop that, or export another image`,
  );
}
