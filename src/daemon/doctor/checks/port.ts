/** The port that other hosts come to. */
import { isIP, isIPv4 } from 'node:net';
import { formatAddress } from '../../../lib/address.ts';
import { type Check, type Finding, failure, hint, ok, skipped, withoutConfig } from '../check.ts';
import type { HostFacts } from '../facts.ts';

/** The state LISTEN in /proc/net/tcp. */
const LISTEN = '0A';
const ANY = ['0.0.0.0', '::'];

export const port: Check = {
  name: 'port',
  async run({ facts, config, daemon }) {
    if (config.name !== 'loaded') return [withoutConfig];
    const { listen } = config.config;
    const address = formatAddress(listen);
    if (daemon.name === 'running') return [ok(`the daemon listens at ${address}`)];
    if (isIP(listen.host) !== 0 && !isOwn(listen.host, facts.addresses)) {
      const advice = `correct \`listen\` in ${config.config.file}; this host has ${facts.addresses.join(', ') || 'none'}`;
      return [failure(`listen: ${listen.host} is no address of this host`, advice)];
    }
    const taken = (await listeners(facts)).find((other) => other.port === listen.port && meet(other.host, listen.host));
    if (taken === undefined) return [ok(`${address} is free`)];
    const owner = await ownerOf(facts, taken.inode);
    if (owner === undefined && daemon.name === 'unknown')
      return [skipped(`${address} is in use, and whether it is by the daemon cannot be seen by this user`, 'run this as root')];
    const by = owner === undefined ? 'another program' : owner;
    return [
      failure(
        `${address} is in use by ${by}`,
        'stop that one, or choose another port for `listen`, also where other hosts name this one',
      ),
    ];
  },
};

interface TcpListener {
  readonly host: string;
  readonly port: number;
  readonly inode: string;
}

/** Columns of /proc/net/tcp: sl local_address rem_address st … inode is the tenth. */
async function listeners(facts: HostFacts): Promise<TcpListener[]> {
  const tables = await Promise.all(['/proc/net/tcp', '/proc/net/tcp6'].map((path) => facts.readText(path).catch(() => '')));
  return tables.flatMap((table) =>
    table.split('\n').flatMap((line) => {
      const columns = line.trim().split(/\s+/);
      if (columns[3] !== LISTEN) return [];
      const [host, portText] = columns[1].split(':');
      return [{ host: hostOf(host), port: Number.parseInt(portText, 16), inode: columns[9] }];
    }),
  );
}

/** An IPv4 address is a number in the host's byte order, which is little-endian; of IPv6 only "any" matters here. */
function hostOf(hex: string): string {
  if (hex.length !== 8) return /^0+$/.test(hex) ? '::' : 'IPv6';
  return [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)).join('.');
}

/** Whether two listeners at one port are in each other's way. */
function meet(one: string, other: string): boolean {
  if (one === other || one === '::') return true;
  if (other === '::') return true;
  return isIPv4(one) && (one === '0.0.0.0' || other === '0.0.0.0');
}

/** `NAME (pid N)`, as far as this user may see other processes. */
async function ownerOf(facts: HostFacts, inode: string): Promise<string | undefined> {
  for (const pid of (await facts.list('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name))) {
    for (const descriptor of await facts.list(`/proc/${pid}/fd`).catch(() => [])) {
      const target = await facts.readLink(`/proc/${pid}/fd/${descriptor}`).catch(() => '');
      if (target !== `socket:[${inode}]`) continue;
      const name = (await facts.readText(`/proc/${pid}/comm`).catch(() => '')).trim();
      return `${name} (pid ${pid})`;
    }
  }
  return undefined;
}

/** A look at the packet filter, for the usual mistake: everything that comes in is dropped, and no rule names the port. */
export const firewall: Check = {
  name: 'firewall',
  async run({ facts, config }): Promise<Finding[]> {
    if (config.name !== 'loaded') return [withoutConfig];
    const rules = await facts.run(['nft', '--stateless', 'list', 'ruleset']);
    if (rules === undefined) return [skipped('the rules cannot be read: the program nft is not here')];
    if (rules.status !== 0) return [skipped('the rules may not be read by this user', 'run this as root')];
    const { listen } = config.config;
    const drops = /hook input [^}]*policy drop/.test(rules.output);
    if (!drops || new RegExp(`\\b${listen.port}\\b`).test(rules.output))
      return [ok('no rule of nftables looks as if it were in the way')];
    return [
      hint(
        `nftables drops what comes in, and no rule names port ${listen.port}`,
        `let the other hosts through: tcp dport ${listen.port} accept`,
      ),
    ];
  },
};

/** All of 127.0.0.0/8 is this host's, although its interface names one of them. */
function isOwn(host: string, addresses: readonly string[]): boolean {
  return ANY.includes(host) || addresses.includes(host) || (isIPv4(host) && host.startsWith('127.'));
}
