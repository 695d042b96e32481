/** HELLO and WELCOME as values: docs/protocol.md, 3. No I/O. */
import { NetbusError } from '../device/errors.ts';
import {
  checkMessage,
  commonVersion,
  decodeMessage,
  type Hello,
  helloSchema,
  parseMessage,
  preambleSchema,
  type SessionState,
  versionText,
  type Welcome,
  welcomeSchema,
} from '../protocols/netbus/messages.ts';
import type { Endpoint } from './endpoint.ts';

/** What the opener wants of the connection. */
export type Purpose =
  | { readonly purpose: 'control' | 'join' }
  | { readonly purpose: 'session'; readonly attachment: string; readonly state: SessionState; readonly epoch: number };

/** What WELCOME says beyond the hosts themselves: of a session, or to a host that joins. */
export type WelcomeMore = Pick<Welcome, 'session' | 'join'>;

export function makeHello(endpoint: Endpoint, purpose: Purpose): object {
  return { magic: 'netbus', versions: endpoint.versions, features: endpoint.features, ...purpose };
}

/**
 * The other side's half: reads HELLO and settles on a version and features. The version comes first, by the members that all versions share: a
 * neighbour's HELLO may differ in everything else. Throws `protocol`.
 */
export function readHello(endpoint: Endpoint, bytes: Uint8Array): { hello: Hello; version: number; features: string[] } {
  const value = parseMessage(bytes, 'HELLO');
  const { versions } = checkMessage(preambleSchema, value, 'HELLO');
  const version = commonVersion(endpoint.versions, versions);
  if (version === undefined) {
    const ours = `${endpoint.host} speaks ${versionText(endpoint.versions)}`;
    throw new NetbusError(
      'protocol',
      `no version of the Netbus protocol in common: ${ours}, the opener speaks ${versionText(versions)}; upgrade the older one`,
    );
  }
  const hello = checkMessage<Hello>(helloSchema, value, 'HELLO');
  return { hello, version, features: endpoint.features.filter((feature) => hello.features.includes(feature)) };
}

export function makeWelcome(endpoint: Endpoint, version: number, features: readonly string[], more?: WelcomeMore): object {
  const { host, bootId, release } = endpoint;
  return { version, features, host, bootId, release, ...more };
}

/** The opener's half. Throws `protocol` where the answer does not fit what was said in HELLO. */
export function readWelcome(endpoint: Endpoint, purpose: Purpose['purpose'], bytes: Uint8Array): Welcome {
  const welcome = decodeMessage<Welcome>(welcomeSchema, bytes, 'WELCOME');
  const [lowest, highest] = endpoint.versions;
  if (welcome.version < lowest || welcome.version > highest) {
    throw new NetbusError(
      'protocol',
      `WELCOME: version ${welcome.version} was not offered (${versionText(endpoint.versions)})`,
    );
  }
  if (welcome.features.some((feature) => !endpoint.features.includes(feature))) {
    throw new NetbusError('protocol', 'WELCOME: a feature that was not offered');
  }
  if ((purpose === 'session') !== (welcome.session !== undefined) || (purpose === 'join') !== (welcome.join !== undefined)) {
    throw new NetbusError('protocol', `WELCOME: it does not belong to a HELLO for a ${purpose}`);
  }
  return welcome;
}
