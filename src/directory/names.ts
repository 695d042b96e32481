/** Names and addresses as they enter: from the command line, a token, another host. */
import { NetbusError } from '../device/errors.ts';
import { ADDRESS_RULE, formatAddress, parseAddress } from '../lib/address.ts';
import { isNetbusName, NAME_CHARACTERS_MAX } from '../protocols/netbus/names.ts';

/** Throws `usage` for what is no name. */
export function checkName(what: 'cluster' | 'host', name: string): void {
  if (isNetbusName(name)) return;
  const rule = `a ${what}'s name has 1 to ${NAME_CHARACTERS_MAX} of a-z, 0-9 and -, with no - at either end`;
  throw new NetbusError('usage', `${JSON.stringify(name.slice(0, 2 * NAME_CHARACTERS_MAX))} cannot name a ${what}: ${rule}`);
}

/** HOST:PORT of HOST or HOST:PORT: the one way to write an address. Throws `usage`. */
export function checkedAddress(text: string): string {
  const address = parseAddress(text);
  if (address !== undefined) return formatAddress(address);
  throw new NetbusError('usage', `${JSON.stringify(text.slice(0, 300))} is not an address: ${ADDRESS_RULE}`);
}

export function isCanonicalAddress(text: string): boolean {
  const address = parseAddress(text);
  return address !== undefined && formatAddress(address) === text;
}

/** The URI in an issuing certificate. It names no host, so such a certificate can never pass for one. */
export function clusterUri(cluster: string): string {
  return `netbus://${cluster}`;
}
