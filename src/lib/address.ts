/** Addresses of hosts as people write them: `10.0.0.1`, `m1.example:7443`, `[fd00::1]:7443`. */
import { isIPv4, isIPv6 } from 'node:net';

export const DEFAULT_PORT = 7443;

export interface Address {
  readonly host: string;
  readonly port: number;
}

const PORT_MAX = 65_535;
/** For people: what an address is. */
export const ADDRESS_RULE = `an address is HOST or HOST:PORT, with a name, an IPv4 address or an IPv6 address in brackets (port 1 to ${PORT_MAX}, ${DEFAULT_PORT} by default)`;

const hostName = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/i;
/** Looks like an IPv4 address and is none: a slip of the finger, not a name that a resolver should be asked for. */
const dottedNumbers = /^[0-9.]+$/;

/** The address, or undefined where the text is none. */
export function parseAddress(text: string, defaultPort: number = DEFAULT_PORT): Address | undefined {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  if (bracketed !== null) return isIPv6(bracketed[1]) ? withPort(bracketed[1], bracketed[2], defaultPort) : undefined;
  if (isIPv6(text)) return withPort(text, undefined, defaultPort);
  const plain = /^([^:]+)(?::(\d{1,5}))?$/.exec(text);
  if (plain === null) return undefined;
  const [, host, port] = plain;
  const valid = isIPv4(host) || (hostName.test(host) && !dottedNumbers.test(host));
  return valid ? withPort(host, port, defaultPort) : undefined;
}

export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

function withPort(host: string, digits: string | undefined, defaultPort: number): Address | undefined {
  const port = digits === undefined ? defaultPort : Number(digits);
  return port >= 1 && port <= PORT_MAX ? { host, port } : undefined;
}
