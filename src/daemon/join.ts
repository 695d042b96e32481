/** `netbus join`: gets this host its certificate and the member list, and sets it up. All of its files are made, or none. No daemon is needed. */
import { X509Certificate } from 'node:crypto';
import { access, constants, lstat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Endpoint } from '../bus/endpoint.ts';
import { requestToJoin } from '../bus/join-client.ts';
import { NetbusError } from '../device/errors.ts';
import { admissionOf } from '../directory/admission.ts';
import { CERTIFICATE_MODE, KEY_MODE } from '../directory/identity-files.ts';
import { createRequest } from '../directory/identity-request.ts';
import { INVITATION_VALID_MS } from '../directory/invitations.ts';
import type { SignedList } from '../directory/member-list-signature.ts';
import { verifyMemberList } from '../directory/member-list-signature.ts';
import { parseChain } from '../directory/pem-files.ts';
import { type NewFile, placeFiles } from '../directory/placement.ts';
import { checkShownChain } from '../directory/shown-chain.ts';
import { COPY_FILE, LIST_FILE, LIST_MODE } from '../directory/signed-directory.ts';
import { decodeToken, type Token } from '../directory/token.ts';
import { parseAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { listBytes } from '../protocols/netbus/member-messages.ts';
import { CONFIG_FILE_DEFAULT, configText, pkiFolder, RUN_DIR_DEFAULT, STATE_DIR_DEFAULT } from './config-text.ts';
import { directoryFolder } from './directory.ts';
import { CONFIG_MODE, lockState, newFolders } from './init.ts';

/** Hosts' clocks differ a little; one that is further behind would take the new certificate for one of the future. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;

export interface JoinClusterOptions {
  readonly token: string;
  /** Where other hosts reach this one, HOST or HOST:PORT; the address that the inviting host sees where it is missing. */
  readonly address?: string;
  readonly config?: string;
  readonly runDir?: string;
  readonly stateDir?: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  /** Told what is being done, in a line for people. */
  readonly progress: (line: string) => void;
}

export interface JoinClusterAnswer {
  readonly cluster: string;
  readonly host: string;
  /** HOST:PORT. */
  readonly address: string;
  readonly config: string;
  /** The names of all members, this host among them. */
  readonly members: readonly string[];
  readonly files: readonly string[];
  readonly warnings: readonly string[];
}

interface Places {
  readonly config: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly pki: string;
  /** Of the member list. */
  readonly directory: string;
}

/**
 * Throws `usage` for a token or address that is none, `in_use` where this host is in a cluster already, `denied` where the other side is not the cluster
 * of the token or does not let this host in, `unreachable` or `timeout` where it does not answer. Nothing is left then.
 */
export async function joinCluster(options: JoinClusterOptions): Promise<JoinClusterAnswer> {
  const { clock, progress } = options;
  const token = decodeToken(options.token);
  checkClock(token, clock);
  if (options.address !== undefined && parseAddress(options.address) === undefined) {
    throw new NetbusError('usage', `"${options.address}" is not an address: give HOST or HOST:PORT`);
  }
  const config = resolve(options.config ?? CONFIG_FILE_DEFAULT);
  const stateDir = resolve(options.stateDir ?? STATE_DIR_DEFAULT);
  const runDir = resolve(options.runDir ?? RUN_DIR_DEFAULT);
  const places: Places = { config, runDir, stateDir, pki: pkiFolder(config), directory: directoryFolder(stateDir) };
  // All that can be refused here is refused before the invitation is used up.
  await checkFree(places);
  const release = await lockState(stateDir);
  try {
    progress(`asking ${token.address} to let this host into cluster ${token.cluster} as ${token.host}`);
    const admitted = await ask(token, options);
    progress('certificate and member list are in order');
    const files = await place(admitted, token, places, options.signal);
    const late = clock.wallTime() > token.expiresAt + CLOCK_SKEW_MS;
    return {
      ...{ cluster: token.cluster, host: token.host, address: admitted.address, config, files },
      members: admitted.list.list.members.filter(({ state }) => state === 'member').map(({ host }) => host),
      warnings: late
        ? ["this host's clock is ahead of the inviting host's: set it, or certificates will be renewed at the wrong time"]
        : [],
    };
  } finally {
    await release?.();
  }
}

/** What the issuing host gave, checked. */
interface Admitted {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  readonly list: SignedList;
  readonly address: string;
}

async function ask(token: Token, { address, clock, signal, progress }: JoinClusterOptions): Promise<Admitted> {
  const { cluster, host } = token;
  const { request, key } = await createRequest();
  const endpoint = new Endpoint({
    ...{ identity: { cluster, host }, bootId: '', release: '', clock, log: silentLog },
    admits: () => 'nobody is known yet',
  });
  const where = parseAddress(token.address)!;
  let ca = '';
  const answer = await requestToJoin({
    ...{ endpoint, host, request, target: { host: token.issuer, address: where.host, port: where.port } },
    secret: Buffer.from(token.secret).toString('base64url'),
    check: (shown) => {
      checkShownChain(shown, token, token.issuer, clock);
      ca = shown.above.at(-1)!.toString();
    },
    onLost: ({ message }) => progress(`the answer was lost (${message}): asking again`),
    ...(address !== undefined && { address }),
    ...(signal && { signal }),
  }).finally(() => endpoint.close());
  try {
    const list = verifyMemberList(listBytes(answer.list), ca, cluster, clock.wallTime());
    const [own, ...above] = parseChain('the answer', answer.certificate);
    checkShownChain({ own, above: [...above, new X509Certificate(ca)] }, token, host, clock);
    const entry = list.list.members.find((member) => member.host === host && member.state === 'member');
    if (entry === undefined || admissionOf(own.serialNumber) !== entry.admission || !own.subjectAltName?.endsWith(`/${host}`)) {
      throw new NetbusError('protocol', `certificate and member list are not of host ${host}`);
    }
    return { ca, certificate: answer.certificate, key, list, address: entry.address };
  } catch (thrown) {
    throw usedUp(thrown, 'what the inviting host answered cannot be used');
  }
}

async function place(admitted: Admitted, token: Token, places: Places, signal: AbortSignal | undefined): Promise<string[]> {
  const { config, runDir, stateDir, pki, directory } = places;
  const { cluster, host } = token;
  const text = configText({ file: config, cluster, host, address: parseAddress(admitted.address)!, runDir, stateDir });
  const { bytes } = admitted.list;
  const files: NewFile[] = [
    { path: join(pki, 'ca.crt'), content: admitted.ca, mode: CERTIFICATE_MODE },
    { path: join(pki, 'host.crt'), content: admitted.certificate, mode: CERTIFICATE_MODE },
    { path: join(pki, 'host.key'), content: admitted.key, mode: KEY_MODE },
    { path: config, content: text, mode: CONFIG_MODE },
    { path: join(directory, LIST_FILE), content: bytes, mode: LIST_MODE },
    { path: join(directory, COPY_FILE), content: bytes, mode: LIST_MODE },
  ];
  const folders = newFolders(config, stateDir);
  try {
    await placeFiles({ journal: join(dirname(config), '.netbus-join'), folders, files, ...(signal && { signal }) });
  } catch (thrown) {
    throw usedUp(thrown, 'this host was let in, but its files could not be made');
  }
  return files.map(({ path }) => path);
}

/** A clock that is behind would refuse the certificate that it gets; one that is ahead is found out by the certificates that are shown. */
function checkClock({ expiresAt }: Token, clock: Clock): void {
  const now = clock.wallTime();
  const made = expiresAt - INVITATION_VALID_MS;
  if (now >= made - CLOCK_SKEW_MS) return;
  const times = `it is ${new Date(now).toISOString()} here, and the token was made at ${new Date(made).toISOString()}`;
  throw new NetbusError('config', `this host's clock is behind the inviting host's: ${times}: set the clock`);
}

/** Throws where this host was set up before, or where this user may not do it. */
async function checkFree({ config, stateDir, pki, directory }: Places): Promise<void> {
  const wanted = [config, ...['ca.crt', 'host.crt', 'host.key'].map((file) => join(pki, file)), join(directory, LIST_FILE)];
  for (const path of wanted) {
    const there = await lstat(path).catch(() => undefined);
    if (there === undefined) continue;
    const advice = `stop its daemon and move ${config}, ${pki} and ${directory} away`;
    throw new NetbusError('in_use', `this host is in a cluster already, ${path} is there: to join another one, ${advice}`);
  }
  for (const folder of [dirname(config), stateDir]) {
    const parent = await nearest(folder);
    await access(parent, constants.W_OK | constants.X_OK).catch((thrown) => {
      throw new NetbusError('denied', `${folder} cannot be written by this user: run this as root`, { cause: thrown });
    });
  }
}

/** The folder, or the one above it that is there. */
async function nearest(folder: string): Promise<string> {
  const there = await lstat(folder).catch(() => undefined);
  return there !== undefined || dirname(folder) === folder ? folder : nearest(dirname(folder));
}

function usedUp(thrown: unknown, what: string): NetbusError {
  const { code, message } = NetbusError.from(thrown);
  return new NetbusError(code, `${what}: ${message}; the invitation is used up: evict this host there and invite it again`, {
    cause: thrown,
  });
}
