/** Reads this host's identity: the CA's certificate, the host's own and its key, checked before anything depends on them. */
import type { X509Certificate } from 'node:crypto';
import { access } from 'node:fs/promises';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { identityOfSubjectAltName } from '../protocols/netbus/names.ts';
import type { IssuedIdentity } from './identity-issue.ts';
import { clusterUri } from './names.ts';
import { checkDates, MAKE_ALL, parseCertificate, parseChain, parseKey, readPem, wrong } from './pem-files.ts';

export interface Identity {
  readonly cluster: string;
  readonly host: string;
  /** PEM text: the root's. */
  readonly ca: string;
  /** PEM text: the host's, and the issuing CA's behind it where there is one. */
  readonly certificate: string;
  /** PEM text. */
  readonly key: string;
  /** Of the host's certificate, hexadecimal: what a Directory asks for. */
  readonly serialNumber: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

/** Paths of the three files. */
export interface IdentityFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

/**
 * Throws `config` with the file, what is wrong with it and what to do. With `expired: 'allowed'` a host's certificate that has expired is none of that, for
 * who goes on with what is running (`expiresAt` tells).
 */
export async function loadIdentity(
  files: IdentityFiles,
  clock: Clock,
  options: { expired?: 'allowed' } = {},
): Promise<Identity> {
  const ifMissing = await adviceOnMissing(files, (path) => access(path));
  const ca = await readPem(files.ca, 'the CA certificate', { ifMissing: ifMissing.ca });
  const certificate = await readPem(files.certificate, "this host's certificate", { ifMissing: ifMissing.certificate });
  const key = await readPem(files.key, "this host's private key", { secret: true, ifMissing: ifMissing.key });
  const authority = parseAuthority(files.ca, ca);
  const [own, ...above] = parseChain(files.certificate, certificate);
  checkChain(files, own, above, authority);
  const identity = identityOfSubjectAltName(own.subjectAltName);
  if (identity === undefined) {
    throw wrong(files.certificate, 'names no host (no single URI netbus://CLUSTER/HOST)', 'issue a certificate for this host');
  }
  if (!own.checkPrivateKey(parseKey(files.key, key))) {
    throw wrong(files.key, `does not belong to the certificate in ${files.certificate}`, 'take both files from the same issue');
  }
  checkDates(files.ca, authority, clock);
  for (const each of above) checkDates(files.certificate, each, clock, 'the issuing certificate in it');
  checkDates(files.certificate, own, clock, undefined, options.expired);
  return { ...identity, ca, certificate, key, serialNumber: own.serialNumber, expiresAt: Date.parse(own.validTo) };
}

/** What to do where one of the files is not there: a host that has the others was set up once. `find` rejects for a file that cannot be found. */
export async function adviceOnMissing(
  files: IdentityFiles,
  find: (path: string) => Promise<unknown>,
): Promise<Record<keyof IdentityFiles, string>> {
  const found = await Promise.allSettled([files.ca, files.certificate, files.key].map(find));
  if (found.every(({ status }) => status === 'rejected')) return { ca: MAKE_ALL, certificate: MAKE_ALL, key: MAKE_ALL };
  const own = 'put it back from a backup, or evict this host and let it join again (docs/operations.md, "Taking a host out")';
  const ca = 'copy it from another host of the cluster, it is the same on all of them, or from a backup';
  return { ca, certificate: own, key: own };
}

/** The issuing CA of `cluster`: certificate and key. Undefined where this host has neither file. Throws `config`. */
export async function loadIssuing(
  files: { ca: string; certificate: string; key: string },
  cluster: string,
  clock: Clock,
): Promise<IssuedIdentity | undefined> {
  const found = await Promise.allSettled([
    readPem(files.certificate, 'the issuing certificate'),
    readPem(files.key, 'the issuing private key', { secret: true }),
  ]);
  if (found.every((result) => result.status === 'rejected' && isMissing(result.reason))) return undefined;
  const [certificate, key] = found.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
  const authority = parseAuthority(files.ca, await readPem(files.ca, 'the CA certificate'));
  const issuing = parseCertificate(files.certificate, certificate);
  checkIssued(files.certificate, issuing, authority, files.ca);
  if (!issuing.ca || issuing.subjectAltName !== `URI:${clusterUri(cluster)}`) {
    throw wrong(files.certificate, `is not the issuing certificate of cluster ${cluster}`, 'take it from the same cluster');
  }
  if (!issuing.checkPrivateKey(parseKey(files.key, key))) {
    throw wrong(files.key, `does not belong to the certificate in ${files.certificate}`, 'take both files from the same issue');
  }
  checkDates(files.certificate, issuing, clock);
  return { certificate, key };
}

function parseAuthority(path: string, pem: string): X509Certificate {
  const authority = parseCertificate(path, pem);
  if (!authority.ca) throw wrong(path, "is not a CA's certificate", "give the cluster's ca.crt");
  return authority;
}

/** The CA signed the host's certificate, or it signed the issuing CA's that is behind it, which did. */
function checkChain(
  files: IdentityFiles,
  own: X509Certificate,
  above: readonly X509Certificate[],
  authority: X509Certificate,
): void {
  if (above.length > 1) {
    throw wrong(files.certificate, `has ${1 + above.length} certificates`, "give the host's, and the issuing CA's behind it");
  }
  const [issuing = authority] = above;
  if (above.length === 1 && !issuing.ca)
    throw wrong(files.certificate, 'has a second certificate that is not a CA', 'issue it again');
  if (issuing !== authority) checkIssued(files.certificate, issuing, authority, files.ca);
  checkIssued(files.certificate, own, issuing, files.ca);
}

function checkIssued(path: string, certificate: X509Certificate, authority: X509Certificate, ca: string): void {
  if (certificate.checkIssued(authority) && certificate.verify(authority.publicKey)) return;
  throw wrong(path, `was not issued by the CA in ${ca}`, 'take both files from the same cluster');
}

function isMissing(thrown: unknown): boolean {
  return thrown instanceof NetbusError && (thrown.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
}
