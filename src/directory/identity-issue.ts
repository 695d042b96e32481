/**
 * Issues certificates: root, issuing CA, and one for each host that names it by a URI (docs/protocol.md, 1). Node's own crypto issues none:
 * docs/decisions/0007. Why root and issuing key are two: docs/decisions/0010.
 */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  type PublicKeyType,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { netbusUri } from '../protocols/netbus/names.ts';
import { newAdmission, serialNumberOf } from './admission.ts';
import { keyOfRequest } from './identity-request.ts';
import { checkName, clusterUri } from './names.ts';
import { exportKey, generateKeys, importKey, KEY_ALGORITHM } from './pem-keys.ts';

const ROOT_VALID_DAYS = 3650;
const ISSUING_VALID_DAYS = 5 * 365;
export const HOST_VALID_DAYS = 30;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Hosts' clocks differ a little: a certificate is valid from this long before it was issued. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;

/** A certificate and its private key, as PEM text. */
export interface IssuedIdentity {
  readonly certificate: string;
  /** PKCS #8. */
  readonly key: string;
}

/** A certificate that is about to be made, but for what its issuer adds. */
interface Leaf {
  readonly cluster: string;
  readonly host: string;
  readonly publicKey: PublicKeyType;
  readonly serialNumber: string;
  readonly validDays: number;
}

/**
 * A CA for `cluster` that signs hosts' certificates itself: what a CA of one's own looks like (docs/operations.md). `netbus init` makes `issueRoot` and
 * `issueIssuing` instead. Throws `usage` for a bad name.
 */
export function issueAuthority(options: { cluster: string; clock: Clock; validDays?: number }): Promise<IssuedIdentity> {
  return issueSelfSigned(options, 0);
}

/** The root of a cluster: it signs issuing CAs and nothing else, so its key can lie in a safe. Throws `usage` for a bad name. */
export function issueRoot(options: { cluster: string; clock: Clock; validDays?: number }): Promise<IssuedIdentity> {
  return issueSelfSigned(options, 1);
}

/** The CA that signs hosts' certificates and the member list; it names its cluster. Throws `usage` for a bad name. */
export async function issueIssuing(options: {
  root: IssuedIdentity;
  cluster: string;
  clock: Clock;
  validDays?: number;
}): Promise<IssuedIdentity> {
  const { cluster, clock, root } = options;
  checkName('cluster', cluster);
  const keys = await generateKeys();
  const issuer = new X509Certificate(root.certificate);
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumberOf(newAdmission()),
      subject: `CN=${cluster} issuing, O=Netbus`,
      issuer: issuer.subject,
      ...validity(clock, options.validDays ?? ISSUING_VALID_DAYS, issuer.notAfter),
      publicKey: keys.publicKey,
      signingKey: await importKey(root.key),
      signingAlgorithm: KEY_ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign | KeyUsageFlags.digitalSignature, true),
        new SubjectAlternativeNameExtension([{ type: 'url', value: clusterUri(cluster) }]),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
        await AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
}

/**
 * A certificate for one host with a key of its own, good for both ends of a connection. `authority` is an issuing CA (its certificate then follows
 * the host's) or a CA that signs hosts itself. Throws `usage` for a bad name.
 */
export async function issueHost(options: {
  authority: IssuedIdentity;
  cluster: string;
  host: string;
  clock: Clock;
  validDays?: number;
  admission?: string;
}): Promise<IssuedIdentity> {
  const { authority, cluster, host, clock, validDays = HOST_VALID_DAYS, admission = newAdmission() } = options;
  const keys = await generateKeys();
  const serialNumber = serialNumberOf(admission);
  const certificate = await issueLeaf(authority, { cluster, host, publicKey: keys.publicKey, serialNumber, validDays }, clock);
  return { certificate, key: await exportKey(keys.privateKey) };
}

/**
 * A certificate (with the issuing CA's behind it) for the key of a request, under the name that the caller has decided on; names in the request mean nothing. Throws
 * `denied` where the request is none, is for another kind of key, or was not made by the key's owner; `usage` for a bad name.
 */
export async function issueForRequest(options: {
  authority: IssuedIdentity;
  request: string;
  cluster: string;
  host: string;
  admission: string;
  clock: Clock;
  validDays?: number;
}): Promise<string> {
  const { authority, cluster, host, clock, admission, validDays = HOST_VALID_DAYS } = options;
  const publicKey = await keyOfRequest(options.request);
  return issueLeaf(authority, { cluster, host, publicKey, serialNumber: serialNumberOf(admission), validDays }, clock);
}

async function issueSelfSigned(
  options: { cluster: string; clock: Clock; validDays?: number },
  pathLength: number,
): Promise<IssuedIdentity> {
  checkName('cluster', options.cluster);
  const keys = await generateKeys();
  const subject = `CN=${options.cluster}, O=Netbus`;
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumberOf(newAdmission()),
      subject,
      issuer: subject,
      ...validity(options.clock, options.validDays ?? ROOT_VALID_DAYS),
      publicKey: keys.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: KEY_ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(true, pathLength, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { certificate: certificate.toString('pem'), key: await exportKey(keys.privateKey) };
}

/** The host's certificate, and the issuing CA's behind it where that is not the root. */
async function issueLeaf(authority: IssuedIdentity, leaf: Leaf, clock: Clock): Promise<string> {
  const { cluster, host } = leaf;
  checkName('cluster', cluster);
  checkName('host', host);
  const issuer = new X509Certificate(authority.certificate);
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: leaf.serialNumber,
      subject: `CN=${host}, O=Netbus`,
      issuer: issuer.subject,
      ...validity(clock, leaf.validDays, issuer.notAfter),
      publicKey: leaf.publicKey,
      signingKey: await importKey(authority.key),
      signingAlgorithm: KEY_ALGORITHM,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new SubjectAlternativeNameExtension([{ type: 'url', value: netbusUri({ cluster, host }) }]),
        await AuthorityKeyIdentifierExtension.create(issuer.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  const chain = issuer.subject === issuer.issuer ? [certificate] : [certificate, issuer];
  return chain.map((each) => `${each.toString('pem')}\n`).join('');
}

/** No certificate outlives its issuer's. Throws `config` where that one is at its end. */
function validity(clock: Clock, days: number, issuerEnds?: Date): { notBefore: Date; notAfter: Date } {
  const now = clock.wallTime();
  if (issuerEnds !== undefined && issuerEnds.getTime() <= now) {
    throw new NetbusError(
      'config',
      `the CA's certificate expired on ${issuerEnds.toISOString().slice(0, 10)}, so it issues no more: renew it with the CA above it`,
    );
  }
  const notAfter = Math.min(now + days * DAY_MS, issuerEnds?.getTime() ?? Number.POSITIVE_INFINITY);
  return { notBefore: new Date(now - CLOCK_SKEW_MS), notAfter: new Date(notAfter) };
}
