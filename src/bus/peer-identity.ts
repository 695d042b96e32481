/** Who is at the other end: the certificate's one Netbus URI, and nothing else, says so (docs/protocol.md, 1). */
import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { NetbusError } from '../device/errors.ts';
import { NETBUS_ALPN } from '../protocols/netbus/limits.ts';
import { identityOfSubjectAltName } from '../protocols/netbus/names.ts';
import type { Endpoint } from './endpoint.ts';
import { ANONYMOUS_HOST, type Peer } from './peer.ts';

/**
 * Checks the peer straight after the TLS handshake, before a byte of it is read, and says who it is. Throws `denied` with a
 * reason that fits behind "…: ". Sockets are made with `rejectUnauthorized: false`, so this is the one gate: docs/decisions/0007. Only
 * a peer of the standing `member` may be spoken to before its HELLO was looked at.
 */
export function checkPeer(socket: TLSSocket, endpoint: Endpoint): Peer {
  // A resumed session would bring an old verdict along.
  if (socket.isSessionReused()) throw denied('TLS sessions are not resumed here');
  if (socket.alpnProtocol !== NETBUS_ALPN) throw denied(`the ALPN is not ${NETBUS_ALPN}`);
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return { standing: 'anonymous', host: ANONYMOUS_HOST, certificate };
  if (!socket.authorized) throw denied(refusal(socket, certificate, endpoint));
  const identity = identityOfSubjectAltName(certificate.subjectAltName);
  if (identity === undefined) throw denied('the certificate names no host (no single URI netbus://CLUSTER/HOST)');
  if (identity.cluster !== endpoint.cluster) {
    throw denied(`the certificate is of a host of cluster ${identity.cluster}, not ${endpoint.cluster}`);
  }
  const { host } = identity;
  const reason = endpoint.admits(host, certificate);
  if (reason === undefined) return { standing: 'member', host, certificate };
  if (endpoint.isUnknown(host)) return { standing: 'unknown', host, certificate };
  throw denied(reason);
}

function refusal(socket: TLSSocket, certificate: X509Certificate, endpoint: Endpoint): string {
  // The type says Error, but Node gives OpenSSL's name of the reason.
  const reason = String(socket.authorizationError);
  switch (reason) {
    case 'CERT_HAS_EXPIRED':
      return `the certificate (or its CA) has expired, on ${certificate.validTo}: issue a new one`;
    case 'CERT_NOT_YET_VALID':
      return `the certificate is valid from ${certificate.validFrom} on: check the clocks of both hosts`;
    case 'INVALID_PURPOSE':
      return 'the certificate is not for this use (client and server): issue it again';
    default:
      return `the certificate was not issued by the CA of cluster ${endpoint.cluster}: is it of another cluster? (${reason})`;
  }
}

function denied(reason: string): NetbusError {
  return new NetbusError('denied', reason);
}
