/** Opens a connection to another host: TCP, TLS, the peer's identity, HELLO and WELCOME, all within one deadline. */
import type { X509Certificate } from 'node:crypto';
import { NetbusError } from '../device/errors.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { HANDSHAKE_MS_MAX } from '../protocols/netbus/limits.ts';
import type { Welcome } from '../protocols/netbus/messages.ts';
import { Connection, type ConnectionOwner, unexpected } from './connection.ts';
import type { Endpoint } from './endpoint.ts';
import { makeHello, type Purpose, readWelcome } from './handshake.ts';
import { checkPeer } from './peer-identity.ts';
import { addressText, resolveHost } from './socket.ts';
import type { SecureStream, Securing, TlsPeer } from './transport.ts';

/** How long one of several addresses of a host is tried, before the next one. */
const ADDRESS_MS_MAX = 2_000;
/** The next address may do better. */
const NOBODY_THERE = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'EADDRNOTAVAIL']);

/** Where a host is. */
export interface Target {
  /** The name that its certificate must have. */
  readonly host: string;
  /** Name or IP address. */
  readonly address: string;
  readonly port: number;
}

/**
 * Resolves once WELCOME was received; `makeOwner` is called right then, before the next frame is looked at, and what it returns owns the connection
 * (a throw of it is a violation by the peer). Rejects with a NetbusError that says what is wrong at that address; `signal` gives up.
 */
export async function dial<T extends ConnectionOwner>(
  endpoint: Endpoint,
  target: Target,
  purpose: Purpose,
  makeOwner: (connection: Connection, welcome: Welcome) => T,
  signal?: AbortSignal,
): Promise<T> {
  const where = `${target.host} (${addressText(target)})`;
  const ending = new AbortController();
  const cancelDeadline = endpoint.clock.after(HANDSHAKE_MS_MAX, () => {
    const text = `${where} did not answer within ${HANDSHAKE_MS_MAX / 1000} s: is netbusd running there?`;
    ending.abort(new NetbusError('timeout', text));
  });
  const onAbort = () => ending.abort(new NetbusError('ended', `the connection to ${where} was given up`));
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  try {
    const addresses = await unlessAborted(ending.signal, resolveHost(target.address));
    return await dialFirst(addresses, (address, last) => {
      return new Promise((resolve, reject) => {
        const opener = new Opener({ endpoint, target, purpose, makeOwner, resolve, reject });
        opener.open(address, ending.signal, last ? undefined : ADDRESS_MS_MAX);
      });
    });
  } catch (thrown) {
    throw thrown instanceof NetbusError ? thrown : dialError(thrown as NodeJS.ErrnoException, where);
  } finally {
    cancelDeadline();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** A name may stand for several addresses of a host: the first one where somebody answers is taken. */
async function dialFirst<T>(addresses: readonly string[], attempt: (address: string, last: boolean) => Promise<T>): Promise<T> {
  for (const address of addresses.slice(0, -1)) {
    try {
      return await attempt(address, false);
    } catch (thrown) {
      if (!NOBODY_THERE.has((thrown as NodeJS.ErrnoException).code ?? '')) throw thrown;
    }
  }
  return attempt(addresses.at(-1)!, true);
}

interface OpenerOptions<T extends ConnectionOwner> {
  readonly endpoint: Endpoint;
  readonly target: Target;
  readonly purpose: Purpose;
  readonly makeOwner: (connection: Connection, welcome: Welcome) => T;
  readonly resolve: (owner: T) => void;
  /** With a NetbusError, or with whatever has the code of a system call or of TLS. */
  readonly reject: (error: Error) => void;
}

/** The opener's side of the handshake, from TCP on. */
class Opener<T extends ConnectionOwner> implements Securing, ConnectionOwner {
  readonly #options: OpenerOptions<T>;
  #stream: SecureStream | undefined;
  #connection: Connection | undefined;
  #settle: (() => void) | undefined;

  constructor(options: OpenerOptions<T>) {
    this.#options = options;
  }

  /** Connects to an IP address; `signal` gives up with its reason, `boundMs` with ETIMEDOUT while nobody has answered. */
  open(address: string, signal: AbortSignal, boundMs: number | undefined): void {
    const { endpoint, target } = this.#options;
    try {
      signal.throwIfAborted();
      this.#stream = endpoint.transport.connect(address, target.port, this);
    } catch (thrown) {
      this.#reject(thrown as Error);
      return;
    }
    const onAbort = () => this.#giveUp(signal.reason);
    signal.addEventListener('abort', onAbort);
    const cancelBound =
      boundMs === undefined ? undefined : endpoint.clock.after(boundMs, () => this.#giveUp(codeError('ETIMEDOUT')));
    this.#settle = () => {
      signal.removeEventListener('abort', onAbort);
      cancelBound?.();
    };
  }

  secured(): void {
    const { endpoint, target, purpose } = this.#options;
    const stream = this.#stream!;
    const address = addressText(target);
    const { certificate, refusal } = this.#identify(stream.peer);
    const connection = new Connection({
      ...{ endpoint, stream, peer: target.host, address, owner: this },
      ...(certificate && { certificate }),
    });
    this.#connection = connection;
    if (refusal !== undefined) {
      connection.close(new NetbusError('denied', `${endpoint.host} refuses this host: ${refusal}`));
      this.#reject(new NetbusError('denied', `${connection.peerText} is not the host it should be: ${refusal}`));
      return;
    }
    connection.send(FrameType.hello, {}, makeHello(endpoint, purpose));
    connection.flush();
  }

  failed(code: string): void {
    this.#reject(codeError(code));
  }

  #identify(peer: TlsPeer): { certificate?: X509Certificate; refusal?: string } {
    const { endpoint, target, purpose } = this.#options;
    if (purpose.purpose !== 'join') return identify(peer, endpoint, target);
    // A host that joins has nothing to check the other side by before WELCOME: see join-client.ts.
    const { certificate } = peer;
    return certificate === undefined ? { refusal: 'no certificate was presented' } : { certificate };
  }

  begin(frame: Parameters<ConnectionOwner['begin']>[0]): void {
    if (frame.type !== FrameType.welcome) throw unexpected(frame, 'before WELCOME');
  }

  payload(): void {}

  end(_frame: unknown, text: Uint8Array | undefined): void {
    const { endpoint, purpose, makeOwner, resolve } = this.#options;
    const connection = this.#connection!;
    const welcome = readWelcome(endpoint, purpose.purpose, text!);
    const owner = makeOwner(connection, welcome);
    connection.begin(owner);
    this.#settle?.();
    resolve(owner);
  }

  arrived(): void {}

  ended(cause: NetbusError): void {
    this.#reject(cause);
  }

  #giveUp(error: Error): void {
    if (this.#connection === undefined) this.#stream!.destroy();
    else this.#connection.destroy();
    this.#reject(error);
  }

  #reject(error: Error): void {
    this.#settle?.();
    this.#options.reject(error);
  }
}

function codeError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

async function unlessAborted<Value>(signal: AbortSignal, promise: Promise<Value>): Promise<Value> {
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([aborted, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort!);
  }
}

/** The peer's certificate, or why it is not the one that was meant. */
function identify(peer: TlsPeer, endpoint: Endpoint, target: Target): { certificate?: X509Certificate; refusal?: string } {
  try {
    const { standing, host, certificate } = checkPeer(peer, endpoint);
    if (standing !== 'member') return { refusal: `${host} is not a member, as far as ${endpoint.host} knows` };
    if (host === target.host) return { ...(certificate && { certificate }) };
    const advice = `correct the address of ${target.host} in the config of ${endpoint.host}`;
    return { refusal: `it is host ${host}, not ${target.host}: ${advice}` };
  } catch (thrown) {
    return { refusal: NetbusError.from(thrown).message };
  }
}

function dialError(error: NodeJS.ErrnoException, where: string): NetbusError {
  const { code = '' } = error;
  const options = { cause: error };
  if (code === 'ECONNREFUSED') {
    return new NetbusError('unreachable', `${where} refused the connection: is netbusd running there?`, options);
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
    return new NetbusError(
      'unreachable',
      `${where}: the address is not known to DNS (${code}): correct it in the config`,
      options,
    );
  }
  if (code.includes('ALERT_NO_APPLICATION_PROTOCOL')) {
    return new NetbusError('protocol', `${where} speaks TLS but not Netbus: is it another service's port?`, options);
  }
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') {
    return new NetbusError('protocol', `${where} does not speak TLS 1.3: is it another service's port? (${code})`, options);
  }
  if (code === 'ECONNRESET') {
    return new NetbusError('unreachable', `${where} closed the connection before TLS was up: is it netbusd?`, options);
  }
  if (NOBODY_THERE.has(code)) {
    return new NetbusError(
      'unreachable',
      `${where} does not answer (${code}): is that host up, and the address right?`,
      options,
    );
  }
  return new NetbusError('unreachable', `${where} cannot be reached: ${code === '' ? error.message : code}`, options);
}
