/** Whether a host that nobody knows yet belongs to the cluster that a token is of: by the certificates that it has shown, and nothing else. */
import type { X509Certificate } from 'node:crypto';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { identityOfSubjectAltName } from '../protocols/netbus/names.ts';
import { clusterUri } from './names.ts';
import { caFingerprint, type Token } from './token.ts';

/**
 * `own` is the certificate of host `host`, as it made the TLS connection, `above` those above it, the root last. Throws `denied` with what is wrong. The root is trusted for the
 * token's fingerprint of it, and everything below for the root.
 */
export function checkShownChain(
  { own, above }: { own: X509Certificate; above: readonly X509Certificate[] },
  token: Pick<Token, 'cluster' | 'caFingerprint'>,
  host: string,
  clock: Clock,
): void {
  const root = above.at(-1);
  if (root === undefined || above.length > 2) throw refused('it shows no root certificate, or too many certificates');
  if (!Buffer.from(caFingerprint(root.toString())).equals(token.caFingerprint)) {
    throw refused(
      'its CA is not the one of the token: the address is of a host of another cluster, or somebody stands in between',
    );
  }
  checkChain([own, ...above], { cluster: token.cluster, host, whose: 'the inviting host' }, clock, refused);
}

/**
 * `chain` begins with the certificate of host `host` and ends with the root, which the caller trusts already. Throws `denied` where it is none, naming `whose`
 * it is, or what `refuse` makes of the reason.
 */
export function checkChain(
  chain: readonly X509Certificate[],
  { cluster, host, whose }: { cluster: string; host: string; whose: string },
  clock: Clock,
  refuse: (reason: string) => NetbusError,
): void {
  const [own, ...above] = chain;
  const root = above.at(-1);
  if (root === undefined || above.length > 2) throw refuse('it shows no root certificate, or too many certificates');
  for (const [i, certificate] of chain.entries()) {
    const issuer = chain[i + 1] ?? root;
    if (!issuer.ca || !certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) {
      throw refuse(`its certificates are no chain up to the CA of cluster ${cluster}`);
    }
    checkDates(certificate, whose, clock);
  }
  if (above.length === 2 && above[0].subjectAltName !== `URI:${clusterUri(cluster)}`) {
    throw refuse(`its issuing certificate is not of cluster ${cluster}`);
  }
  const identity = identityOfSubjectAltName(own.subjectAltName);
  if (identity?.cluster !== cluster) throw refuse(`its certificate is not of a host of cluster ${cluster}`);
  if (identity.host !== host) throw refuse(`its certificate is of host ${identity.host}, not ${host}`);
}

function checkDates({ validFrom, validTo }: X509Certificate, whose: string, clock: Clock): void {
  const now = clock.wallTime();
  const [begin, end] = [Date.parse(validFrom), Date.parse(validTo)];
  if (now >= begin && now <= end) return;
  const dates = now > end ? `expired at ${isoTime(end)}` : `is valid from ${isoTime(begin)} on`;
  const advice = `it is ${isoTime(now)} by this host's clock: check the clocks of both hosts`;
  throw new NetbusError('denied', `a certificate of ${whose} ${dates}, and ${advice}`);
}

function isoTime(time: number): string {
  return new Date(time).toISOString();
}

function refused(reason: string): NetbusError {
  return new NetbusError('denied', `the inviting host is not the one that the token is of: ${reason}`);
}
