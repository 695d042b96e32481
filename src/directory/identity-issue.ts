/**
 * Issues identities: the cluster's CA, and a certificate for each host that names it by a URI (docs/protocol.md, 1). What
 * `netbus init` and `netbus join` call. Node's own crypto issues no certificates: docs/decisions/0007.
 */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { isNetbusName, NAME_CHARACTERS_MAX, netbusUri } from '../protocols/netbus/names.ts';

const CA_VALID_DAYS = 3650;
export const HOST_VALID_DAYS = 30;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Hosts' clocks differ a little: a certificate is valid from this long before it was issued. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** A certificate and its private key, as PEM text. */
export interface IssuedIdentity {
  readonly certificate: string;
  /** PKCS #8. */
  readonly key: string;
}

/** A new CA for `cluster`. Throws `usage` for a bad name. */
export async function issueAuthority(options: { cluster: string; clock: Clock; validDays?: number }): Promise<IssuedIdentity> {
  checkName('cluster', options.cluster);
  const keys = await generateKeys();
  const subject = `CN=${options.cluster}, O=Netbus`;
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumber(),
      subject,
      issuer: subject,
      ...validity(options.clock, options.validDays ?? CA_VALID_DAYS),
      publicKey: keys.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: KEY_ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
}

/** A certificate of `authority` for one host, good for both ends of a connection. Throws `usage` for a bad name. */
export async function issueHost(options: {
  authority: IssuedIdentity;
  cluster: string;
  host: string;
  clock: Clock;
  validDays?: number;
}): Promise<IssuedIdentity> {
  checkName('cluster', options.cluster);
  checkName('host', options.host);
  const authority = new X509Certificate(options.authority.certificate);
  const keys = await generateKeys();
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumber(),
      subject: `CN=${options.host}, O=Netbus`,
      issuer: authority.subject,
      ...validity(options.clock, options.validDays ?? HOST_VALID_DAYS),
      publicKey: keys.publicKey,
      signingKey: await importKey(options.authority.key),
      signingAlgorithm: KEY_ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new SubjectAlternativeNameExtension([
          { type: 'url', value: netbusUri({ cluster: options.cluster, host: options.host }) },
        ]),
      ],
    },
    webcrypto,
  );
  return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
}

function checkName(what: string, name: string): void {
  if (isNetbusName(name)) return;
  const rule = `a ${what}'s name has 1 to ${NAME_CHARACTERS_MAX} of a-z, 0-9 and -, with no - at either end`;
  throw new NetbusError('usage', `${JSON.stringify(name)} cannot name a ${what}: ${rule}`);
}

function validity(clock: Clock, days: number): { notBefore: Date; notAfter: Date } {
  const now = clock.wallTime();
  return { notBefore: new Date(now - CLOCK_SKEW_MS), notAfter: new Date(now + days * DAY_MS) };
}

/** RFC 5280, 4.1.2.2: positive, unique for each certificate of a CA. */
function serialNumber(): string {
  const bytes = Buffer.from(webcrypto.getRandomValues(new Uint8Array(16)));
  bytes[0] &= 0x7f;
  return bytes.toString('hex');
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${PemConverter.encode(bytes, 'PRIVATE KEY')}\n`;
}

function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const [bytes] = PemConverter.decode(pem);
  return webcrypto.subtle.importKey('pkcs8', bytes, KEY_ALGORITHM, false, ['sign']);
}
