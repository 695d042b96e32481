/** Which of this host's addresses others reach it by, where nobody says so. */
import { isIPv4 } from 'node:net';
import type { networkInterfaces } from 'node:os';
import { NetbusError } from '../device/errors.ts';

/**
 * The one global IPv4 address that `interfaces` has, or, where there is none, the one global IPv6 address. Throws `usage` with the candidates where that is not
 * exactly one: a wrong guess would be found out by other hosts, and late.
 */
export function chooseOwnAddress(interfaces: ReturnType<typeof networkInterfaces>): string {
  const candidates = Object.entries(interfaces).flatMap(([name, addresses = []]) =>
    addresses.filter(({ internal, address }) => !internal && !isLinkLocal(address)).map(({ address }) => ({ name, address })),
  );
  const first = candidates.filter(({ address }) => isIPv4(address));
  const usable = first.length > 0 ? first : candidates;
  if (usable.length === 1) return bracketed(usable[0].address);
  const advice = 'say where other hosts reach this one: --address ADDRESS[:PORT]';
  if (usable.length === 0) throw new NetbusError('usage', `this host has no address of its own: ${advice}`);
  const list = candidates.map(({ name, address }) => `${bracketed(address)} (${name})`).join(', ');
  throw new NetbusError('usage', `this host has several addresses, ${list}: ${advice}`);
}

/** RFC 3927 and RFC 4291, 2.5.6: known on one link only. */
function isLinkLocal(address: string): boolean {
  return address.startsWith('169.254.') || /^fe[89ab]/i.test(address);
}

function bracketed(address: string): string {
  return isIPv4(address) ? address : `[${address}]`;
}
