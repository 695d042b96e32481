/** PEM files as people keep them: read with their permissions checked, and told in one line where something is wrong. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { open } from 'node:fs/promises';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';

/** Bits of a key file's mode that let others in. Its group may read it (0640), so that a daemon without root can. */
const KEY_MODE_FORBIDDEN = 0o137;
/** Longest file that is read, in bytes: these have about a thousand. */
const FILE_BYTES_MAX = 64 * 1024;

export interface ReadOptions {
  /** It must not be open to others. */
  readonly secret?: true;
  /** What to do where it is not there. */
  readonly ifMissing?: string;
}

export const MAKE_ALL = 'run "netbus init" or "netbus join", or correct the path in the config';

/** The text of a file. Who may read a secret one is checked on the open file, so that it is the one that is read. Throws `config`. */
export async function readPem(path: string, what: string, { secret, ifMissing = MAKE_ALL }: ReadOptions = {}): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode, size, uid } = await file.stat();
      if (secret !== undefined) checkPrivate(path, what, mode, uid);
      if (size > FILE_BYTES_MAX)
        throw wrong(path, `(${what}) has ${size} bytes`, `give a PEM file of at most ${FILE_BYTES_MAX}`);
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (thrown) {
    if (thrown instanceof NetbusError) throw thrown;
    const { code, message } = thrown as NodeJS.ErrnoException;
    switch (code) {
      case 'ENOENT':
        throw wrong(path, `(${what}) does not exist`, ifMissing, thrown);
      case 'EACCES':
        throw wrong(path, `(${what}) may not be read by this user`, 'correct its owner or mode, or run this as root', thrown);
      default:
        throw wrong(path, `(${what}) cannot be read (${message})`, 'correct the path in the config', thrown);
    }
  }
}

/** The first certificate of a text. */
export function parseCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (thrown) {
    throw wrong(path, 'has no certificate in PEM form', 'issue it again', thrown);
  }
}

/** All certificates of a text, at least one. */
export function parseChain(path: string, pem: string): [X509Certificate, ...X509Certificate[]] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [pem];
  const [first, ...rest] = blocks.map((block) => parseCertificate(path, block));
  return [first, ...rest];
}

export function parseKey(path: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (thrown) {
    throw wrong(path, 'has no private key in PEM form without a passphrase', 'issue it again', thrown);
  }
}

/** `which` is the certificate, where the file has several. */
export function checkDates(
  path: string,
  certificate: X509Certificate,
  clock: Clock,
  which?: string,
  expired?: 'allowed',
): void {
  const now = clock.wallTime();
  const { validFrom, validTo } = certificate;
  const prefix = which === undefined ? '' : `(${which}) `;
  if (now > Date.parse(validTo) && expired === undefined) {
    const dates = `${prefix}expired on ${day(validTo)}, and here it is ${day(now)}`;
    throw wrong(path, dates, "check this host's clock, or issue a new certificate");
  }
  if (now < Date.parse(validFrom)) {
    throw wrong(path, `${prefix}is valid from ${day(validFrom)} on, and here it is ${day(now)}`, "set this host's clock");
  }
}

export function wrong(path: string, problem: string, advice: string, cause?: unknown): NetbusError {
  return new NetbusError('config', `${path} ${problem}: ${advice}`, cause === undefined ? {} : { cause });
}

/** Its owner may do with it what he likes: that has to be this user, or root. */
function checkPrivate(path: string, what: string, mode: number, uid: number): void {
  if ((mode & KEY_MODE_FORBIDDEN) !== 0) {
    const text = (mode & 0o777).toString(8).padStart(4, '0');
    throw wrong(path, `(${what}) has mode ${text}, which lets others in`, `chmod 0600 ${path}`);
  }
  const self = process.getuid?.();
  if (uid !== 0 && uid !== self)
    throw wrong(path, `(${what}) belongs to user ${uid}, which lets it in`, `chown ${self} ${path}`);
}

function day(date: string | number): string {
  return new Date(date).toISOString().slice(0, 10);
}
