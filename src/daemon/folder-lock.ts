/** Makes a folder this daemon's own: two daemons on one folder would each believe that they alone write there. */
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';

/** Releases the folder; twice is once. */
export type Release = () => Promise<void>;

/**
 * Makes the folder where it is missing, and locks the file `lock` in it. The lock ends with the process, however that ends. Throws `in_use` where
 * another daemon has it, `denied` or `config` where the folder cannot be used.
 */
export async function lockFolder(folder: string, what: string, mode: number): Promise<Release> {
  const path = join(folder, 'lock');
  try {
    await mkdir(folder, { recursive: true, mode });
    const file = await open(path, 'a+', 0o600);
    if (native.lockFile(file.fd, 'exclusive', 0, 0)) {
      await file.truncate(0);
      await file.write(`${process.pid}\n`);
      return () => file.close();
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
    const { code, message } = thrown as NodeJS.ErrnoException;
    const denied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS';
    throw new NetbusError(denied ? 'denied' : 'config', `the ${what} ${folder} cannot be used: ${message}`, { cause: thrown });
  }
}
