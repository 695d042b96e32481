/** Reads this host's identity: the CA's certificate, the host's own and its key, checked before anything depends on them. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { open } from 'node:fs/promises';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { identityOfSubjectAltName } from '../protocols/netbus/names.ts';

/** Bits of a key file's mode that let others in. Its group may read it (0640), so that a daemon without root can. */
const KEY_MODE_FORBIDDEN = 0o137;
/** Longest file that is read, in bytes: these have about a thousand. */
const FILE_BYTES_MAX = 64 * 1024;

export interface Identity {
  readonly cluster: string;
  readonly host: string;
  /** PEM text. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

/** Paths of the three files. */
export interface IdentityFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/** Throws `config` with the file, what is wrong with it and what to do. */
export async function loadIdentity(files: IdentityFiles, clock: Clock): Promise<Identity> {
  const ca = await readFile(files.ca, 'the CA certificate');
  const certificate = await readFile(files.certificate, "this host's certificate");
  const key = await readFile(files.key, "this host's private key", KEY_MODE_FORBIDDEN);
  const authority = parseCertificate(files.ca, ca);
  const own = parseCertificate(files.certificate, certificate);
  if (!authority.ca) throw wrong(files.ca, "is not a CA's certificate", "give the cluster's ca.pem");
  if (!own.checkIssued(authority) || !own.verify(authority.publicKey)) {
    throw wrong(files.certificate, `was not issued by the CA in ${files.ca}`, 'take both files from the same cluster');
  }
  const identity = identityOfSubjectAltName(own.subjectAltName);
  if (identity === undefined) {
    throw wrong(files.certificate, 'names no host (no single URI netbus://CLUSTER/HOST)', 'issue a certificate for this host');
  }
  if (!own.checkPrivateKey(parseKey(files.key, key))) {
    throw wrong(files.key, `does not belong to the certificate in ${files.certificate}`, 'take both files from the same issue');
  }
  checkDates(files.ca, authority, clock);
  checkDates(files.certificate, own, clock);
  return { ...identity, ca, certificate, key, expiresAt: Date.parse(own.validTo) };
}

/** `forbidden` are mode bits that the file must not have; checked on the open file, so that it is the one that is read. */
async function readFile(path: string, what: string, forbidden = 0): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode, size } = await file.stat();
      if ((mode & forbidden) !== 0) {
        const text = (mode & 0o777).toString(8).padStart(4, '0');
        throw wrong(path, `(${what}) has mode ${text}, which lets others in`, `chmod 0600 ${path}`);
      }
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
        throw wrong(path, `(${what}) does not exist`, 'issue it, or correct the path in the config', thrown);
      case 'EACCES':
        throw wrong(path, `(${what}) may not be read by this user`, 'correct its owner or mode', thrown);
      default:
        throw wrong(path, `(${what}) cannot be read (${message})`, 'correct the path in the config', thrown);
    }
  }
}

function parseCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (thrown) {
    throw wrong(path, 'has no certificate in PEM form', 'issue it again', thrown);
  }
}

function parseKey(path: string, pem: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (thrown) {
    throw wrong(path, 'has no private key in PEM form without a passphrase', 'issue it again', thrown);
  }
}

function checkDates(path: string, certificate: X509Certificate, clock: Clock): void {
  const now = clock.wallTime();
  const { validFrom, validTo } = certificate;
  if (now > Date.parse(validTo)) throw wrong(path, `expired on ${day(validTo)}`, 'issue a new certificate');
  if (now < Date.parse(validFrom)) throw wrong(path, `is valid from ${day(validFrom)} on`, "check this host's clock");
}

function day(date: string): string {
  return new Date(Date.parse(date)).toISOString().slice(0, 10);
}

function wrong(path: string, problem: string, advice: string, cause?: unknown): NetbusError {
  return new NetbusError('config', `${path} ${problem}: ${advice}`, cause === undefined ? {} : { cause });
}
