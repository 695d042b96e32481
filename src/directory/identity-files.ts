/** Puts an identity's files where the config names them; the reverse of `loadIdentity`. */
import { chmod, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import type { IssuedIdentity } from './identity-issue.ts';

const KEY_MODE = 0o600;
const CERTIFICATE_MODE = 0o644;
const FOLDER_MODE = 0o755;

/** Writes certificate and key. The key is never readable for others, not even for a moment, and no file is ever half written. Throws `config`. */
export async function writeIdentity(paths: { certificate: string; key: string }, identity: IssuedIdentity): Promise<void> {
  await writeWhole(paths.key, identity.key, KEY_MODE);
  await writeWhole(paths.certificate, identity.certificate, CERTIFICATE_MODE);
}

/** Writes a CA's certificate, which every host has. */
export async function writeAuthority(path: string, certificate: string): Promise<void> {
  await writeWhole(path, certificate, CERTIFICATE_MODE);
}

/** Beside the place, on stable storage, then renamed: a crash leaves the old file or the new one. */
async function writeWhole(path: string, text: string, mode: number): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: FOLDER_MODE });
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(text.endsWith('\n') ? text : `${text}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    // The process's umask may have taken bits from the mode.
    await chmod(temporary, mode);
    await rename(temporary, path);
  } catch (thrown) {
    await rm(temporary, { force: true });
    throw new NetbusError('config', `${path} cannot be written: ${(thrown as Error).message}`, { cause: thrown });
  }
}
