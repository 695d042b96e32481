/** Who is at the other end: the certificate's one Netbus URI, and nothing else, says so (docs/protocol.md, 1). */
import type { X509Certificate } from 'node:crypto';
import { NetbusError } from '../device/errors.ts';
import { NETBUS_ALPN } from '../protocols/netbus/limits.ts';
import { identityOfSubjectAltName } from '../protocols/netbus/names.ts';
import type { Endpoint } from './endpoint.ts';
import { ANONYMOUS_HOST, type Peer } from './peer.ts';
import type { TlsPeer } from './transport.ts';

/** X509_V_… of OpenSSL's x509_vfy.h, those that people can do something about. */
const Verdict = { ok: 0, notYetValid: 9, expired: 10, purpose: 26 } as const;

/**
 * Checks the peer straight after the TLS handshake, before a byte of it is read, and says who it is. Throws `denied`, or
 * `fenced` for a host that was evicted, with a reason that fits behind "…: ". The handshake itself refuses no certificate, so this is the one gate: docs/decisions/0007. Only
 * a peer of the standing `member` may be spoken to before its HELLO was looked at.
 */
export function checkPeer(peer: TlsPeer, endpoint: Endpoint): Peer {
  // A resumed session would bring an old verdict along.
  if (peer.resumed) throw denied('TLS sessions are not resumed here');
  if (peer.protocol !== NETBUS_ALPN) throw denied(`the ALPN is not ${NETBUS_ALPN}`);
  const { certificate } = peer;
  if (certificate === undefined) return { standing: 'anonymous', host: ANONYMOUS_HOST, certificate };
  if (peer.verdict !== Verdict.ok) throw denied(refusal(peer, certificate, endpoint));
  const identity = identityOfSubjectAltName(certificate.subjectAltName);
  if (identity === undefined) throw denied('the certificate names no host (no single URI netbus://CLUSTER/HOST)');
  if (identity.cluster !== endpoint.cluster) {
    throw denied(`the certificate is of a host of cluster ${identity.cluster}, not ${endpoint.cluster}`);
  }
  const { host } = identity;
  const reason = endpoint.admits(host, certificate);
  if (reason === undefined) return { standing: 'member', host, certificate };
  if (endpoint.isUnknown(host)) return { standing: 'unknown', host, certificate };
  throw new NetbusError(endpoint.wasMember(host) ? 'fenced' : 'denied', reason);
}

function refusal({ verdict, reason }: TlsPeer, certificate: X509Certificate, endpoint: Endpoint): string {
  switch (verdict) {
    case Verdict.expired:
      return `the certificate (or its CA) has expired, on ${certificate.validTo}: issue a new one`;
    case Verdict.notYetValid:
      return `the certificate is valid from ${certificate.validFrom} on: check the clocks of both hosts`;
    case Verdict.purpose:
      return 'the certificate is not for this use (client and server): issue it again';
    default:
      return `the certificate was not issued by the CA of cluster ${endpoint.cluster}: is it of another cluster? (${reason})`;
  }
}

function denied(reason: string): NetbusError {
  return new NetbusError('denied', reason);
}
