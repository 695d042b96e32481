/** Makes a folder this daemon's own: two daemons on one folder would each believe that they alone write there. */
import { existsSync } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';
import { removeEmpty } from '../directory/durable-file.ts';

export const LOCK_FILE = 'lock';

export interface FolderLock {
  /** Twice is once. */
  release(): Promise<void>;
  /** Releases it, and takes away what locking it has made: the file, the folder and those above it. */
  undo(): Promise<void>;
}

/**
 * Makes the folder where it is missing, and locks the file `lock` in it. The lock ends with the process, however that ends. Throws `in_use` where
 * another daemon has it, `denied` or `config` where the folder cannot be used.
 */
export async function lockFolder(folder: string, what: string, mode: number): Promise<FolderLock> {
  const path = join(folder, LOCK_FILE);
  try {
    const madeFolder = await mkdir(folder, { recursive: true, mode });
    const isNew = !existsSync(path);
    const file = await open(path, 'a+', 0o600);
    if (native.lockFile(file.fd, 'exclusive', 0, 0) && (await isAt(file, path))) {
      await noteOwner(file);
      const undo = async () => {
        // While it is locked: nobody else takes this file for theirs.
        if (isNew) await unlink(path);
        await file.close();
        if (madeFolder !== undefined) await removeEmpty(folder, madeFolder);
      };
      return { release: () => file.close(), undo };
    }
    const owner = (await file.readFile('utf8')).trim();
    await file.close();
    const by = /^\d+$/.test(owner) ? ` (process ${owner})` : '';
    throw new NetbusError(
      'in_use',
      `the ${what} ${folder} is in use by another daemon${by}: stop that one, or name another folder`,
    );
  } catch (thrown) {
    if (thrown instanceof NetbusError) throw thrown;
    throw unusable(folder, what, thrown);
  }
}

/** The file of a daemon that has just taken it away would keep nobody out. */
async function isAt(file: FileHandle, path: string): Promise<boolean> {
  const [own, there] = [await file.stat(), await lstat(path).catch(() => undefined)];
  return own.ino === there?.ino;
}

/** For people, and for the message of a second daemon. A full filesystem is no reason not to start: what is stored already is served. */
async function noteOwner(file: FileHandle): Promise<void> {
  try {
    await file.truncate(0);
    await file.write(`${process.pid}\n`);
  } catch {
    // The lock itself needs no room.
  }
}

function unusable(folder: string, what: string, thrown: unknown): NetbusError {
  const { code, message } = thrown as NodeJS.ErrnoException;
  const options = { cause: thrown };
  switch (code) {
    case 'EACCES':
    case 'EPERM': {
      const user = `user ${process.geteuid?.()}`;
      const advice = `run the daemon as root or as the folder's owner, or give the folder to ${user}`;
      return new NetbusError('denied', `the ${what} ${folder} may not be used by ${user}: ${advice}`, options);
    }
    case 'EROFS':
      return new NetbusError('denied', `the ${what} ${folder} is on a read-only filesystem: mount it to be written`, options);
    case 'ENOSPC':
    case 'EDQUOT':
      return new NetbusError(
        'device',
        `the ${what} ${folder} is full: make room there (df ${folder}; df -i ${folder})`,
        options,
      );
    default:
      return new NetbusError('config', `the ${what} ${folder} cannot be used: ${message}`, options);
  }
}
