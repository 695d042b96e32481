/** Puts an identity's files where the config names them; the reverse of `loadIdentity`. */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import { writeDurably } from './durable-file.ts';
import type { IssuedIdentity } from './identity-issue.ts';

export const KEY_MODE = 0o600;
export const CERTIFICATE_MODE = 0o644;
const FOLDER_MODE = 0o755;

/**
 * Writes certificate and key. The key is never readable for others, not even for a moment, and no file is ever half written. Throws `config`. For a first identity: a
 * renewal keeps the key and calls `writeCertificate`, because two files cannot be replaced in one step.
 */
export async function writeIdentity(paths: { certificate: string; key: string }, identity: IssuedIdentity): Promise<void> {
  await writeWhole(paths.key, identity.key, KEY_MODE);
  await writeWhole(paths.certificate, identity.certificate, CERTIFICATE_MODE);
}

/** Writes a CA's certificate, which every host has. Throws `config`. */
export async function writeAuthority(path: string, certificate: string): Promise<void> {
  await writeWhole(path, certificate, CERTIFICATE_MODE);
}

/** Writes a renewed certificate of the key that is there. Throws `config`; the old one is then still in its place. */
export async function writeCertificate(path: string, certificate: string): Promise<void> {
  await writeWhole(path, certificate, CERTIFICATE_MODE);
}

async function writeWhole(path: string, text: string, mode: number): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: FOLDER_MODE });
    await writeDurably(path, text.endsWith('\n') ? text : `${text}\n`, mode);
  } catch (thrown) {
    throw new NetbusError('config', `${path} cannot be written: ${(thrown as Error).message}`, { cause: thrown });
  }
}
