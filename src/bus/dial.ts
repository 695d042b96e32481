/** Opens a connection to another host: TCP, TLS, the peer's identity, HELLO and WELCOME, all within one deadline. */
import type { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { NetbusError } from '../device/errors.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { HANDSHAKE_MS_MAX, NETBUS_ALPN } from '../protocols/netbus/limits.ts';
import type { Welcome } from '../protocols/netbus/messages.ts';
import { Connection, type ConnectionOwner, unexpected } from './connection.ts';
import type { Endpoint } from './endpoint.ts';
import { makeHello, type Purpose, readWelcome } from './handshake.ts';
import { checkPeer } from './peer-identity.ts';
import { addressText, setSocketOptions } from './socket.ts';

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
  const address = addressText(target);
  const where = `${target.host} (${address})`;
  let resolve!: (owner: T) => void;
  let reject!: (error: NetbusError) => void;
  const promise = new Promise<T>((...settle) => ([resolve, reject] = settle));
  const socket = connect({
    host: target.address,
    port: target.port,
    secureContext: endpoint.secureContext,
    ALPNProtocols: [NETBUS_ALPN],
    // A name is sent as SNI by default; hosts have no DNS names, and the certificate is checked by its URI.
    ...(isIP(target.address) === 0 && { servername: '' }),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  setSocketOptions(socket);
  const giveUp = (error: NetbusError) => {
    socket.destroy();
    reject(error);
  };
  const cancelDeadline = endpoint.clock.after(HANDSHAKE_MS_MAX, () => {
    giveUp(
      new NetbusError('timeout', `${where} did not answer within ${HANDSHAKE_MS_MAX / 1000} s: is netbusd running there?`),
    );
  });
  const onAbort = () => giveUp(new NetbusError('ended', `the connection to ${where} was given up`));
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  const onError = (error: NodeJS.ErrnoException) => giveUp(dialError(error, where));
  socket.once('error', onError);
  socket.once('secureConnect', () => {
    const opener = new Opener(purpose, makeOwner, resolve, reject);
    try {
      opener.open(socket, endpoint, target, address);
      socket.off('error', onError);
    } catch (thrown) {
      giveUp(NetbusError.from(thrown));
    }
  });
  try {
    return await promise;
  } finally {
    cancelDeadline();
    signal?.removeEventListener('abort', onAbort);
  }
}

/** The opener's side of the handshake. */
class Opener<T extends ConnectionOwner> implements ConnectionOwner {
  readonly #purpose: Purpose;
  readonly #makeOwner: (connection: Connection, welcome: Welcome) => T;
  readonly #resolve: (owner: T) => void;
  readonly #reject: (error: NetbusError) => void;
  #connection!: Connection;

  constructor(
    purpose: Purpose,
    makeOwner: (connection: Connection, welcome: Welcome) => T,
    resolve: (owner: T) => void,
    reject: (error: NetbusError) => void,
  ) {
    this.#purpose = purpose;
    this.#makeOwner = makeOwner;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  open(socket: TLSSocket, endpoint: Endpoint, target: Target, address: string): void {
    const { certificate, refusal } = this.#identify(socket, endpoint, target);
    const connection = new Connection({
      ...{ endpoint, socket, peer: target.host, address, owner: this },
      ...(certificate && { certificate }),
    });
    this.#connection = connection;
    if (refusal !== undefined) {
      connection.close(new NetbusError('denied', `${endpoint.host} refuses this host: ${refusal}`));
      this.#reject(new NetbusError('denied', `${connection.peerText} is not the host it should be: ${refusal}`));
      return;
    }
    connection.send(FrameType.hello, {}, makeHello(endpoint, this.#purpose));
    connection.flush();
  }

  #identify(socket: TLSSocket, endpoint: Endpoint, target: Target): { certificate?: X509Certificate; refusal?: string } {
    if (this.#purpose.purpose !== 'join') return identify(socket, endpoint, target);
    // A host that joins has nothing to check the other side by before WELCOME: see join-client.ts.
    const certificate = socket.getPeerX509Certificate();
    return certificate === undefined ? { refusal: 'no certificate was presented' } : { certificate };
  }

  begin(frame: Parameters<ConnectionOwner['begin']>[0]): void {
    if (frame.type !== FrameType.welcome) throw unexpected(frame, 'before WELCOME');
  }

  payload(): void {}

  end(_frame: unknown, text: Uint8Array | undefined): void {
    const connection = this.#connection;
    const welcome = readWelcome(connection.endpoint, this.#purpose.purpose, text!);
    const owner = this.#makeOwner(connection, welcome);
    connection.begin(owner);
    this.#resolve(owner);
  }

  arrived(): void {}

  ended(cause: NetbusError): void {
    this.#reject(cause);
  }
}

/** The peer's certificate, or why it is not the one that was meant. Node gives the certificate of a server once. */
function identify(socket: TLSSocket, endpoint: Endpoint, target: Target): { certificate?: X509Certificate; refusal?: string } {
  try {
    const { standing, host, certificate } = checkPeer(socket, endpoint);
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
  return new NetbusError('unreachable', `${where} cannot be reached: ${code === '' ? error.message : code}`, options);
}
