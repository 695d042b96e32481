/** The one port of a host, for control links and sessions alike: docs/protocol.md, 1. Until HELLO everyone is a stranger. */
import { getSystemErrorName } from 'node:util';
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';
import { type FrameHeader, FrameType } from '../protocols/netbus/frame.ts';
import { HANDSHAKE_MS_MAX, NETBUS_ALPN, UNFINISHED_CONNECTIONS_MAX } from '../protocols/netbus/limits.ts';
import type { Hello } from '../protocols/netbus/messages.ts';
import { Connection, type ConnectionOwner, unexpected } from './connection.ts';
import type { Endpoint } from './endpoint.ts';
import { makeWelcome, readHello, type WelcomeMore } from './handshake.ts';
import { type Peer, whyNotFor } from './peer.ts';
import { checkPeer } from './peer-identity.ts';
import { addressText, resolveHost } from './socket.ts';
import { StrangerLog } from './stranger-log.ts';
import { type Securing, TlsStream } from './tls-stream.ts';

const EAGAIN = 11;
const ACCEPTS_PER_TURN_MAX = 16;
/** How long no connection is taken after the system would not give one. */
const PAUSE_MS = 100;

/** A connection whose HELLO was read: its peer may have what it wants, as far as the bus knows, and waits for WELCOME. */
export interface Incoming {
  readonly connection: Connection;
  /** The peer's address and port, for people and for limits. */
  readonly address: string;
  readonly hello: Hello;
  /** Lets it in: frames go to `owner` from now on. False where the connection has ended meanwhile; `owner` then hears nothing. */
  welcome(owner: ConnectionOwner, more?: WelcomeMore): boolean;
}

/** Takes a connection, whatever its purpose; refuses it with `connection.close(reason)`. Called once for each. */
export type Accept = (incoming: Incoming) => void;

export class Listener {
  readonly #endpoint: Endpoint;
  readonly #accept: Accept;
  readonly #strangers: StrangerLog;
  #fd: number | undefined;
  #watch = 0;
  #cancelPause: (() => void) | undefined;
  readonly #unfinished = new Set<Unfinished>();

  constructor(endpoint: Endpoint, accept: Accept) {
    this.#endpoint = endpoint;
    this.#accept = accept;
    this.#strangers = new StrangerLog(endpoint.log, endpoint.clock);
  }

  /** Begins to listen and returns the port. Throws `in_use` or `config` where the address cannot be had. */
  async listen(address: string, port: number): Promise<number> {
    try {
      const [first] = await resolveHost(address);
      this.#fd = native.listenTcp(first, port);
    } catch (thrown) {
      throw listenError(thrown as NodeJS.ErrnoException, addressText({ address, port }));
    }
    this.#watch = native.watch(this.#fd, { readable: true, writable: false }, () => this.#connections());
    return native.localAddress(this.#fd).port;
  }

  /** Takes no more connections and ends those that have not finished HELLO; the others belong to whoever accepted them. */
  close(): void {
    for (const unfinished of this.#unfinished) unfinished.abandon();
    if (this.#fd === undefined) return;
    this.#cancelPause?.();
    native.unwatch(this.#watch);
    native.close(this.#fd);
    this.#fd = undefined;
  }

  #connections(): void {
    for (let i = 0; i < ACCEPTS_PER_TURN_MAX && this.#fd !== undefined; i++) {
      const fd = native.acceptConnection(this.#fd);
      if (fd === -EAGAIN) return;
      if (fd < 0) {
        this.#pause(fd);
        return;
      }
      this.#connected(fd);
    }
  }

  /** No descriptor is free, most likely: those who wait stay in the kernel's queue, which would call again at once. */
  #pause(error: number): void {
    this.#endpoint.log.warn({ error: getSystemErrorName(error) }, 'connections of other hosts cannot be taken now');
    native.rewatch(this.#watch, { readable: false, writable: false });
    this.#cancelPause = this.#endpoint.clock.after(PAUSE_MS, () => {
      native.rewatch(this.#watch, { readable: true, writable: false });
    });
  }

  #connected(fd: number): void {
    let address: string;
    try {
      address = addressText(native.peerAddress(fd));
    } catch {
      // It has gone again.
      native.close(fd);
      return;
    }
    if (this.#unfinished.size >= UNFINISHED_CONNECTIONS_MAX) {
      this.#strangers.warn(address, `${UNFINISHED_CONNECTIONS_MAX} others have not finished their handshake`);
      native.close(fd);
      return;
    }
    let unfinished: Unfinished;
    try {
      unfinished = new Unfinished({
        endpoint: this.#endpoint,
        fd,
        address,
        accept: this.#accept,
        refused: (problem) => this.#strangers.warn(address, problem),
        done: () => this.#unfinished.delete(unfinished),
      });
    } catch (thrown) {
      // It has gone meanwhile, or memory is short: no reason to stop for the others.
      this.#strangers.warn(address, `it could not be taken: ${(thrown as Error).message}`);
      return;
    }
    this.#unfinished.add(unfinished);
  }
}

interface UnfinishedOptions {
  readonly endpoint: Endpoint;
  /** Owned from here on. */
  readonly fd: number;
  readonly address: string;
  readonly accept: Accept;
  /** Told once at most, with what to log. */
  readonly refused: (problem: string) => void;
  /** Told once: it was accepted, or it is gone. */
  readonly done: () => void;
}

/** A connection from TCP's accept to the end of HELLO. */
class Unfinished implements Securing, ConnectionOwner {
  readonly #options: UnfinishedOptions;
  readonly #stream: TlsStream;
  readonly #cancelDeadline: () => void;
  #state: 'unfinished' | 'accepted' | 'over' = 'unfinished';
  #connection: Connection | undefined;
  #peer: Peer | undefined;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
    const { endpoint, fd } = options;
    const { tlsContext: context, receiveBuffer: buffer } = endpoint;
    this.#stream = new TlsStream({ context, fd, role: 'server', buffer, securing: this });
    this.#cancelDeadline = endpoint.clock.after(HANDSHAKE_MS_MAX, () => {
      this.refuse(`it did not finish the TLS handshake and HELLO within ${HANDSHAKE_MS_MAX / 1000} s`);
      this.#destroy();
    });
  }

  /** TLS is up: find out who it is, and wait for HELLO. */
  secured(): void {
    const { endpoint, address } = this.#options;
    const stream = this.#stream;
    let refusal: NetbusError | undefined;
    try {
      this.#peer = checkPeer(stream.peer, endpoint);
    } catch (thrown) {
      refusal = NetbusError.from(thrown);
    }
    const { host: peer = 'stranger', certificate } = this.#peer ?? {};
    this.#connection = new Connection({ endpoint, stream, peer, ...(certificate && { certificate }), address, owner: this });
    if (refusal !== undefined) this.#deny(refusal);
  }

  failed(code: string): void {
    this.refuse(tlsProblem(code));
  }

  /** It does not get in; `problem` is for the log. */
  refuse(problem: string): void {
    if (this.#state !== 'unfinished') return;
    this.#finish('over');
    this.#options.refused(problem);
  }

  /** The listener closes. */
  abandon(): void {
    this.#finish('over');
    this.#destroy();
  }

  begin(frame: FrameHeader): void {
    if (this.#state !== 'unfinished') throw unexpected(frame, 'before WELCOME');
    if (frame.type !== FrameType.hello) throw unexpected(frame, 'before HELLO');
  }

  payload(): void {}

  end(_frame: FrameHeader, text: Uint8Array | undefined): void {
    const { endpoint, address, accept } = this.#options;
    const connection = this.#connection!;
    const { hello, version, features } = readHello(endpoint, text!);
    const reason = whyNotFor(this.#peer!, hello.purpose, endpoint.host);
    if (reason !== undefined) {
      this.#deny(new NetbusError('denied', reason));
      return;
    }
    this.#finish('accepted');
    accept({
      connection,
      address,
      hello,
      welcome(owner, more) {
        if (!connection.open) return false;
        connection.send(FrameType.welcome, {}, makeWelcome(endpoint, version, features, more));
        connection.begin(owner);
        return true;
      },
    });
  }

  arrived(): void {}

  ended(cause: NetbusError): void {
    this.refuse(cause.message);
  }

  /** Both ends learn why. */
  #deny({ code, message }: NetbusError): void {
    this.refuse(message);
    this.#connection!.close(new NetbusError(code, `${this.#options.endpoint.host} refuses this host: ${message}`));
  }

  #destroy(): void {
    if (this.#connection === undefined) this.#stream.destroy();
    else this.#connection.destroy();
  }

  #finish(state: 'accepted' | 'over'): void {
    this.#state = state;
    this.#cancelDeadline();
    this.#options.done();
  }
}

function tlsProblem(code: string): string {
  switch (code) {
    case 'ERR_SSL_HTTP_REQUEST':
      return 'it spoke HTTP, and this is a Netbus port';
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_UNKNOWN_PROTOCOL':
      return 'it did not speak TLS';
    case 'ERR_SSL_UNSUPPORTED_PROTOCOL':
    case 'ERR_SSL_VERSION_TOO_LOW':
      return 'it spoke a TLS version below 1.3';
    case 'ERR_SSL_NO_APPLICATION_PROTOCOL_FOUND':
    case 'ERR_SSL_NO_APPLICATION_PROTOCOL':
      return `it spoke TLS but not ${NETBUS_ALPN} (ALPN)`;
    case 'ECONNRESET':
      return 'it was closed before TLS was up (a port scanner?)';
    default:
      return `the TLS handshake failed (${code})`;
  }
}

function listenError(error: NodeJS.ErrnoException, address: string): NetbusError {
  const options = { cause: error };
  switch (error.code) {
    case 'EADDRINUSE':
      return new NetbusError('in_use', `${address} is in use by another program: stop it, or listen elsewhere`, options);
    case 'EADDRNOTAVAIL':
      return new NetbusError('config', `${address} is no address of this host: correct the address to listen on`, options);
    case 'EACCES':
      return new NetbusError('config', `${address} may not be used by this user: take a port from 1024 on`, options);
    default:
      return new NetbusError('config', `cannot listen on ${address}: ${error.message}`, options);
  }
}
