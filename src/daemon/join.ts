/** `netbus join`: gets this host its certificate and the member list, and sets it up. All of its files are made, or none. No daemon is needed. */
import { X509Certificate } from 'node:crypto';
import { Endpoint } from '../bus/endpoint.ts';
import { requestToJoin } from '../bus/join-client.ts';
import { NetbusError } from '../device/errors.ts';
import { admissionOf } from '../directory/admission.ts';
import { createRequest } from '../directory/identity-request.ts';
import { INVITATION_VALID_MS } from '../directory/invitations.ts';
import type { SignedList } from '../directory/member-list-signature.ts';
import { MEMBER_LIST_BYTES_MAX, verifyMemberList } from '../directory/member-list-signature.ts';
import { checkedAddress } from '../directory/names.ts';
import { parseChain } from '../directory/pem-files.ts';
import { checkShownChain } from '../directory/shown-chain.ts';
import { decodeToken, type Token } from '../directory/token.ts';
import { parseAddress } from '../lib/address.ts';
import type { Clock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { listBytes } from '../protocols/netbus/member-messages.ts';
import { configText } from './config-text.ts';
import { type HostPlaces, hostPlaces, type PlaceOptions, placeHostFiles, withState } from './host-files.ts';

/** More than certificates, key and config need, in whole blocks. */
const SMALL_FILE_BYTES_MAX = 16 * 1024;
/** Hosts' clocks differ a little; one that is further behind would take the new certificate for one of the future. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;

export interface JoinClusterOptions extends PlaceOptions {
  readonly token: string;
  /** Where other hosts reach this one, HOST or HOST:PORT; the address that the inviting host sees where it is missing. */
  readonly address?: string;
  readonly clock: Clock;
  /** Aborted before the other side was asked, nothing happens; after that its answer is waited for, and used. */
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

/**
 * Throws `usage` for a token or address that is none, `in_use` where this host is in a cluster already, `denied` where the other side is not the cluster
 * of the token or does not let this host in, `unreachable` or `timeout` where it does not answer. Nothing is left then.
 */
export async function joinCluster(options: JoinClusterOptions): Promise<JoinClusterAnswer> {
  const { clock, progress } = options;
  const token = decodeToken(options.token);
  checkClock(token, clock);
  if (options.address !== undefined) checkedAddress(options.address);
  const places = hostPlaces(options);
  // All that can be refused here is refused before the invitation is used up.
  await rehearse(places, options.signal);
  return await withState(places, async () => {
    progress(`asking ${token.address} to let this host into cluster ${token.cluster} as ${token.host}`);
    const admitted = await ask(token, options);
    progress('certificate and member list are in order');
    const files = await place(admitted, token, places);
    const late = clock.wallTime() > token.expiresAt + CLOCK_SKEW_MS;
    return {
      ...{ cluster: token.cluster, host: token.host, address: admitted.address, config: places.config, files },
      members: admitted.list.list.members.filter(({ state }) => state === 'member').map(({ host }) => host),
      warnings: late
        ? ["this host's clock is ahead of the inviting host's: set it, or certificates will be renewed at the wrong time"]
        : [],
    };
  });
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
    onWait: () => progress('interrupted: waiting for the answer, so that nothing is left half done'),
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
    throw usedUp(thrown, 'what the inviting host answered cannot be used', token.issuer, host);
  }
}

/** Not to be interrupted: this host is a member by now, and without its files it would be one that cannot be used. */
async function place(admitted: Admitted, { cluster, host, issuer }: Token, places: HostPlaces): Promise<string[]> {
  const { config, runDir, stateDir } = places;
  const { ca, certificate, key, list } = admitted;
  const text = configText({ file: config, cluster, host, address: parseAddress(admitted.address)!, runDir, stateDir });
  const contents = { pki: { 'ca.crt': ca, 'host.crt': certificate, 'host.key': key }, config: text, list: list.bytes };
  try {
    return await placeHostFiles(places, contents);
  } catch (thrown) {
    throw usedUp(thrown, 'this host was let in, but its files could not be made', issuer, host);
  }
}

/**
 * Makes files of the size that will be needed, and takes them back. Throws where this host was set up before, where this user may not do it, and where
 * there is no room.
 */
async function rehearse(places: HostPlaces, signal: AbortSignal | undefined): Promise<void> {
  const { config, pki, directory } = places;
  const small = Buffer.alloc(SMALL_FILE_BYTES_MAX);
  const contents = {
    pki: { 'ca.crt': small, 'host.crt': small, 'host.key': small },
    config: small,
    list: Buffer.alloc(MEMBER_LIST_BYTES_MAX),
  };
  const ifTaken = `this host is in a cluster already; to join another one, stop its daemon and move ${config}, ${pki} and ${directory} away`;
  try {
    await placeHostFiles(places, contents, { rehearsal: true, ifTaken, ...(signal && { signal }) });
  } catch (thrown) {
    if (!(thrown instanceof NetbusError) || thrown.code === 'in_use') throw thrown;
    const message = `nobody was asked yet, and the token is as good as before: ${thrown.message}`;
    throw new NetbusError(thrown.code, message, { cause: thrown });
  }
}

/** A clock that is behind would refuse the certificate that it gets; one that is ahead is found out by the certificates that are shown. */
function checkClock({ expiresAt }: Token, clock: Clock): void {
  const now = clock.wallTime();
  const made = expiresAt - INVITATION_VALID_MS;
  if (now >= made - CLOCK_SKEW_MS) return;
  const times = `it is ${new Date(now).toISOString()} here, and the token was made at ${new Date(made).toISOString()}`;
  throw new NetbusError('config', `this host's clock is behind the inviting host's: ${times}: set the one that is wrong`);
}

function usedUp(thrown: unknown, what: string, issuer: string, host: string): NetbusError {
  const { code, message } = NetbusError.from(thrown);
  const advice = `type "netbus evict ${host} --yes" and "netbus invite ${host}" on ${issuer}, and join with the new token`;
  return new NetbusError(code, `${what}: ${message}; the invitation is used up: ${advice}`, { cause: thrown });
}
