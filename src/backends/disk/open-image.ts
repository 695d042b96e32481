import { constants, open, type Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { NetbusError } from '../../device/errors.ts';

/** A plain descriptor: a FileHandle closes itself when it is collected, which I/O in the kernel must not meet. */
const openDescriptor = promisify(open);

export interface OpenImageOptions {
  readonly path: string;
  readonly readOnly: boolean;
  readonly direct: boolean;
}

/**
 * Opens a file or block device, or says in one line what is wrong with it. The descriptor is the caller's. A block device
 * that is to be written is opened exclusively, which the kernel refuses while it is mounted or otherwise in use.
 */
export async function openImage(options: OpenImageOptions): Promise<{ fd: number; isBlockDevice: boolean }> {
  const { path, readOnly, direct } = options;
  try {
    // Looked at first: to open a FIFO may wait for ever, and to open a terminal may do something.
    const isBlockDevice = isBlock(await stat(path), path);
    const mode = readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const exclusive = isBlockDevice && !readOnly ? constants.O_EXCL : 0;
    return { fd: await openDescriptor(path, mode | exclusive | (direct ? constants.O_DIRECT : 0)), isBlockDevice };
  } catch (thrown) {
    throw thrown instanceof NetbusError ? thrown : openError(thrown as NodeJS.ErrnoException, options);
  }
}

function isBlock(stats: Stats, path: string): boolean {
  if (stats.isBlockDevice()) return true;
  if (stats.isFile()) return false;
  const kind = stats.isDirectory() ? 'a directory' : 'neither a file nor a block device';
  throw new NetbusError('usage', `${path} is ${kind}: name an image file or a block device`);
}

function openError(error: NodeJS.ErrnoException, { path, readOnly, direct }: OpenImageOptions): NetbusError {
  const failed = (code: 'not_found' | 'denied' | 'usage' | 'in_use' | 'device', message: string) =>
    new NetbusError(code, `${path}: ${message}`, { cause: error });
  switch (error.code) {
    case 'ENOENT':
      return failed('not_found', 'no such file or device: check the path, or make an image with "truncate -s 10G"');
    case 'ENOTDIR':
    case 'ELOOP':
    case 'ENAMETOOLONG':
      return failed('usage', `not a path to a file (${error.code}): check it`);
    case 'EACCES':
    case 'EPERM':
      return failed(
        'denied',
        `no permission to ${readOnly ? 'read' : 'write'} it: change its owner or mode${readOnly ? '' : ', or export it read-only'}`,
      );
    case 'EROFS':
      return failed('denied', 'it can only be read (read-only filesystem or write-protected device): export it read-only');
    case 'EBUSY':
      return failed('in_use', 'the block device is mounted or in use by another program: unmount it, or export it read-only');
    case 'ETXTBSY':
      return failed('in_use', 'it is in use as swap or as a running program: stop that first');
    case 'EINVAL':
      if (direct) return failed('usage', 'its filesystem has no direct I/O: leave "direct" out');
      break;
    case 'ENXIO':
    case 'ENODEV':
    case 'ENOMEDIUM':
      return failed('not_found', `there is no device or no medium behind it (${error.code}): plug it in`);
  }
  return failed('device', `cannot be opened: ${error.message}`);
}
