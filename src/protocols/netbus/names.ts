/** Names of clusters and hosts, and how a certificate carries them: docs/protocol.md, 1. */

/** Most characters of a cluster's or host's name: one DNS label. */
export const NAME_CHARACTERS_MAX = 63;

/** A DNS label in lower case: names end up in URIs, file names and log lines. */
const name = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export interface HostIdentity {
  readonly cluster: string;
  readonly host: string;
}

export function isNetbusName(text: string): boolean {
  return name.test(text);
}

/** The URI that a host's certificate names it by. */
export function netbusUri(identity: HostIdentity): string {
  return `netbus://${identity.cluster}/${identity.host}`;
}

/** The reverse of `netbusUri`; undefined where `uri` is anything else. */
export function parseNetbusUri(uri: string): HostIdentity | undefined {
  const match = /^netbus:\/\/([^/]+)\/([^/]+)$/.exec(uri);
  if (match === null || !isNetbusName(match[1]) || !isNetbusName(match[2])) return undefined;
  return { cluster: match[1], host: match[2] };
}

/**
 * The identity in a certificate's subject alternative names, as Node's X509Certificate prints them: the one entry of type URI.
 * Undefined where there is none, more than one, or one of another form.
 */
export function identityOfSubjectAltName(subjectAltName: string | undefined): HostIdentity | undefined {
  // Node quotes entries that could be taken for several (CVE-2021-44532); ours never need it.
  if (subjectAltName === undefined || subjectAltName.includes('"')) return undefined;
  const uris = subjectAltName.split(', ').filter((entry) => entry.startsWith('URI:'));
  return uris.length === 1 ? parseNetbusUri(uris[0].slice('URI:'.length)) : undefined;
}
