/** What several checks go by, found out once: the config, the daemon, the identity, the members. */
import { dirname, join } from 'node:path';
import { controlSocket } from '../../api/client.ts';
import type { MemberProbe, Status } from '../../api/types.ts';
import { NetbusError } from '../../device/errors.ts';
import type { Identity } from '../../directory/identity.ts';
import type { MemberList } from '../../directory/member-list.ts';
import { verifyMemberList } from '../../directory/member-list-signature.ts';
import { COPY_FILE, LIST_FILE } from '../../directory/signed-directory.ts';
import { type Address, parseAddress } from '../../lib/address.ts';
import { type Config, parseConfig } from '../config.ts';
import { directoryFolder } from '../directory.ts';
import { errorCode, errorText, type HostFacts } from './facts.ts';

const STATE_DIR_DEFAULT = '/var/lib/netbus';
const PKI_FOLDER_DEFAULT = '/etc/netbus/pki';

export interface DoctorOptions {
  readonly configFile: string;
  /** As the user said them; they go before the config's. */
  readonly runDir?: string | undefined;
  readonly stateDir?: string | undefined;
  readonly socket?: string | undefined;
}

export type ConfigState =
  | { readonly name: 'loaded'; readonly config: Config }
  /** One line each, with the file and the line. */
  | { readonly name: 'wrong'; readonly problems: readonly string[] }
  | { readonly name: 'missing' }
  | { readonly name: 'unreadable'; readonly reason: string };

export type DaemonState =
  | { readonly name: 'running'; readonly status: Status; readonly uid: number | undefined }
  /** Nothing listens: it is sure that it does not run there. */
  | { readonly name: 'stopped' }
  /** Something may run, and cannot be asked. */
  | { readonly name: 'unknown'; readonly error: NetbusError };

export type IdentityState = { readonly identity: Identity } | { readonly problem: string };

export type ProbeState = { readonly probes: readonly MemberProbe[] } | { readonly problem: string };

export interface Situation {
  readonly facts: HostFacts;
  readonly configFile: string;
  readonly config: ConfigState;
  readonly runDir: string;
  readonly stateDir: string;
  readonly pki: Config['pki'];
  readonly socket: string;
  readonly daemon: DaemonState;
  /** The user whose files they should be: the daemon's, or, before there is one, root. */
  readonly owner: number;
  identity(): Promise<IdentityState>;
  /** What became of asking each other member; asked once. */
  probes(): Promise<ProbeState>;
}

export async function examine(facts: HostFacts, options: DoctorOptions): Promise<Situation> {
  const config = await readConfig(facts, options.configFile);
  const loaded = config.name === 'loaded' ? config.config : undefined;
  const runDir = options.runDir ?? loaded?.runDir ?? '/run/netbus';
  const stateDir = options.stateDir ?? loaded?.stateDir ?? STATE_DIR_DEFAULT;
  const socket = options.socket ?? controlSocket(runDir);
  const daemon = await askDaemon(facts, socket);
  const pki = loaded?.pki ?? defaultPki();
  const identity = once(async (): Promise<IdentityState> => {
    try {
      return { identity: await facts.loadIdentity(pki) };
    } catch (thrown) {
      return { problem: NetbusError.from(thrown).message };
    }
  });
  const probes = once(() => probeMembers(facts, { config, daemon, socket, stateDir, runDir }, identity));
  const owner = (daemon.name === 'running' ? daemon.uid : undefined) ?? 0;
  return { facts, configFile: options.configFile, config, runDir, stateDir, pki, socket, daemon, owner, identity, probes };
}

function defaultPki(): Config['pki'] {
  const path = (name: string) => join(PKI_FOLDER_DEFAULT, name);
  return {
    ca: path('ca.crt'),
    certificate: path('host.crt'),
    key: path('host.key'),
    issuing: { certificate: path('issuing.crt'), key: path('issuing.key') },
  };
}

async function readConfig(facts: HostFacts, file: string): Promise<ConfigState> {
  let text: string;
  try {
    text = await facts.readText(file);
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return { name: 'missing' };
    return { name: 'unreadable', reason: errorText(thrown) };
  }
  try {
    return { name: 'loaded', config: parseConfig(file, text) };
  } catch (thrown) {
    return { name: 'wrong', problems: NetbusError.from(thrown).message.split('\n') };
  }
}

async function askDaemon(facts: HostFacts, socket: string): Promise<DaemonState> {
  try {
    const status = await facts.status(socket);
    const process = await facts.stat(`/proc/${status.pid}`).catch(() => undefined);
    return { name: 'running', status, uid: process?.uid };
  } catch (thrown) {
    const error = NetbusError.from(thrown);
    const nobody = error.code === 'unreachable' && ['ENOENT', 'ECONNREFUSED'].includes(errorCode(error.cause));
    return nobody ? { name: 'stopped' } : { name: 'unknown', error };
  }
}

async function probeMembers(
  facts: HostFacts,
  { config, daemon, socket, stateDir, runDir }: Pick<Situation, 'config' | 'daemon' | 'socket' | 'stateDir' | 'runDir'>,
  identity: () => Promise<IdentityState>,
): Promise<ProbeState> {
  if (daemon.name === 'running') {
    try {
      return { probes: await facts.probe(socket) };
    } catch (thrown) {
      return { problem: `the daemon cannot ask them: ${NetbusError.from(thrown).message}` };
    }
  }
  if (config.name !== 'loaded') return { problem: 'without a config nobody knows who they are' };
  if (daemon.name === 'unknown') return { problem: 'a daemon may run that cannot be asked' };
  for (const folder of [stateDir, runDir]) {
    // A second control link of this host would end the daemon's.
    if (await isLocked(facts, join(folder, 'lock')))
      return { problem: `a daemon has locked ${folder}, and it does not answer at ${socket}` };
  }
  const known = await identity();
  if ('problem' in known) return { problem: "without this host's certificate none of them would answer" };
  try {
    const members = await readMembers(facts, config.config, stateDir, known.identity);
    members.delete(config.config.host);
    return { probes: await facts.probeDirectly(known.identity, members) };
  } catch (thrown) {
    return { problem: NetbusError.from(thrown).message };
  }
}

/** The members as the daemon would know them; nothing is stored or set aside. */
async function readMembers(
  facts: HostFacts,
  config: Config,
  stateDir: string,
  identity: Identity,
): Promise<Map<string, Address>> {
  if (config.hosts !== undefined) return new Map(config.hosts);
  const folder = directoryFolder(stateDir);
  const read = await storedList(facts, folder, identity);
  if ('thrown' in read) {
    const reason = errorText(read.thrown);
    throw new NetbusError('config', `${folder} has no member list that can be used by this user: ${reason}`);
  }
  const members = read.list.members.filter(({ state }) => state === 'member');
  return new Map(members.map(({ host, address }) => [host, parseAddress(address)!]));
}

/** The newer one of the two that are stored, or what is in the way of the last. */
export async function storedList(
  facts: HostFacts,
  folder: string,
  { ca, cluster }: Identity,
): Promise<{ readonly list: MemberList } | { readonly thrown: unknown }> {
  const found: MemberList[] = [];
  let trouble: unknown;
  for (const name of [LIST_FILE, COPY_FILE]) {
    try {
      const text = await facts.readText(join(folder, name));
      found.push(verifyMemberList(Buffer.from(text), ca, cluster, undefined).list);
    } catch (thrown) {
      if (trouble === undefined || errorCode(thrown) !== 'ENOENT') trouble = thrown;
    }
  }
  const [list] = found.sort((a, b) => b.serial - a.serial);
  return list === undefined ? { thrown: trouble } : { list };
}

/** Whether another process has the lock of a folder, by the kernel's own table: trying it would be in a starting daemon's way. */
async function isLocked(facts: HostFacts, path: string): Promise<boolean> {
  const file = await facts.stat(path).catch(() => undefined);
  if (file === undefined) return false;
  const locks = (await facts.readText('/proc/locks').catch(() => '')).split('\n');
  const same = locks.filter((line) => line.includes('OFDLCK') && line.includes(`:${file.ino} `));
  if (same.some((line) => line.includes(` ${deviceText(file.dev)}:`))) return true;
  if (same.length === 0) return false;
  // Some filesystems (btrfs) give files another device number than the table has; the daemon writes its process into the file.
  const pid = (await facts.readText(path).catch(() => '')).trim();
  return /^\d+$/.test(pid) && (await facts.stat(`/proc/${pid}`).catch(() => undefined)) !== undefined;
}

/** A device number as /proc/locks has it: major and minor in hexadecimal, of two digits at least. */
function deviceText(dev: number): string {
  const major = (dev >>> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  return [major, minor].map((part) => part.toString(16).padStart(2, '0')).join(':');
}

/** The folder of the keys and certificates. */
export function pkiFolder({ pki }: Situation): string {
  return dirname(pki.key);
}

function once<T>(work: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= work());
}
