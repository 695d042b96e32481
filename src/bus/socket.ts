/** Addresses: names to numbers, and numbers as people read them. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

/** "192.0.2.1:7443", "[2001:db8::1]:7443". An IPv4 address that came by an IPv6 socket is shown as what it is. */
export function addressText(target: SocketAddress): string {
  const address = target.address.replace(/^::ffff:(?=\d+\.)/, '');
  return isIP(address) === 6 ? `[${address}]:${target.port}` : `${address}:${target.port}`;
}

/** The IP addresses of a name, in the resolver's order; an IP address is its own. Rejects with the resolver's error (ENOTFOUND, EAI_AGAIN …). */
export async function resolveHost(host: string): Promise<[string, ...string[]]> {
  if (isIP(host) !== 0) return [host];
  const found = (await lookup(host, { all: true, order: 'verbatim' })).map(({ address }) => address);
  return found as [string, ...string[]];
}
