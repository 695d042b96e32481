import { fstat } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { DISK_SECTOR_BYTES } from '../../device/profile.ts';

const fstatDescriptor = promisify(fstat);

/** Pages of the cache, and blocks of nearly every filesystem. */
const FILE_BLOCK_BYTES = 4096;
const DISCARD_GRANULARITY_BYTES_MAX = 2 ** 30;

export interface ImageSize {
  /** Whole sectors. */
  readonly sizeBytes: number;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
}

/** Looks at the open image. Throws `device` where it is gone. */
export async function measureImage(
  fd: number,
  path: string,
  isBlockDevice: boolean,
): Promise<ImageSize & { readonly exactBytes: number }> {
  try {
    if (isBlockDevice) {
      const { sizeBytes, logicalBlockBytes, physicalBlockBytes } = native.blockDevice(fd);
      if (sizeBytes === 0) throw new NetbusError('device', `${path}: the device has no medium, or is gone: plug it in again`);
      return { sizeBytes: wholeSectors(sizeBytes), exactBytes: sizeBytes, logicalBlockBytes, physicalBlockBytes };
    }
    const { size } = await fstatDescriptor(fd);
    const blocks = { logicalBlockBytes: DISK_SECTOR_BYTES, physicalBlockBytes: FILE_BLOCK_BYTES };
    return { sizeBytes: wholeSectors(size), exactBytes: size, ...blocks };
  } catch (thrown) {
    if (thrown instanceof NetbusError) throw thrown;
    throw new NetbusError('device', `${path}: cannot be looked at: ${(thrown as Error).message}`, { cause: thrown });
  }
}

function wholeSectors(bytes: number): number {
  return bytes - (bytes % DISK_SECTOR_BYTES);
}

/** Alignment that a discard must have to give space back. */
export async function discardAlignment(fd: number, isBlockDevice: boolean): Promise<number> {
  if (!isBlockDevice) return FILE_BLOCK_BYTES;
  const { rdev } = await fstatDescriptor(fd);
  const granularity = Number(await sysfs(rdev, 'queue/discard_granularity'));
  const usable = granularity >= DISK_SECTOR_BYTES && granularity <= DISCARD_GRANULARITY_BYTES_MAX;
  return usable ? granularity : FILE_BLOCK_BYTES;
}

/**
 * Tells this file or device from every other one that had or will have its name, for as long as the host runs: what was written and
 * not flushed is in the kernel's memory under it, also when the daemon starts anew.
 */
export async function imageIdentity(fd: number, isBlockDevice: boolean): Promise<string> {
  const { dev, ino, birthtimeNs, rdev } = await promisify(fstat)(fd, { bigint: true });
  if (!isBlockDevice) return `file-${dev}-${ino}-${birthtimeNs}`;
  // Counts each time that a disk appears, so that a replugged one is another one (Linux 5.15; empty before).
  return `block-${rdev}-${await sysfs(Number(rdev), 'diskseq')}`;
}

/** A value of the block device, or of the whole disk where it is a partition; empty where there is none. */
async function sysfs(rdev: number, name: string): Promise<string> {
  // glibc's makedev(3): 12 bits of major and 20 bits of minor, which are all that Linux uses.
  const major = Math.floor(rdev / 256) % 4096;
  const minor = (rdev % 256) + Math.floor(rdev / 2 ** 20) * 256;
  const folder = `/sys/dev/block/${major}:${minor}`;
  const own = await readFile(`${folder}/${name}`, 'utf8').catch(() => undefined);
  return (own ?? (await readFile(`${folder}/../${name}`, 'utf8').catch(() => ''))).trim();
}
