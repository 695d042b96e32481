/** The one port of a host, for control links and sessions alike: docs/protocol.md, 1. Until HELLO everyone is a stranger. */
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
import type { Arrival, Listening, SecureStream, Securing } from './transport.ts';

/** A connection whose HELLO was read: its peer may have what it wants, as far as the bus knows, and waits for WELCOME. */
export interface Incoming {
  readonly connection: Connection;
  /** The peer's address and port, for people and for limits. */
  readonly address: string;
  readonly hello: Hello;
  /** Those in common. */
  readonly features: readonly string[];
  /** Lets it in: frames go to `owner` from now on. False where the connection has ended meanwhile; `owner` then hears nothing. */
  welcome(owner: ConnectionOwner, more?: WelcomeMore): boolean;
}

/** Takes a connection, whatever its purpose; refuses it with `connection.close(reason)`. Called once for each. */
export type Accept = (incoming: Incoming) => void;

export class Listener {
  readonly #endpoint: Endpoint;
  readonly #accept: Accept;
  readonly #strangers: StrangerLog;
  #listening: Listening | undefined;
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
      this.#listening = this.#endpoint.transport.listen(first, port, (arrival) => this.#arrived(arrival));
      return this.#listening.port;
    } catch (thrown) {
      throw listenError(thrown as NodeJS.ErrnoException, addressText({ address, port }));
    }
  }

  /** Takes no more connections and ends those that have not finished HELLO; the others belong to whoever accepted them. */
  close(): void {
    for (const unfinished of this.#unfinished) unfinished.abandon();
    this.#listening?.close();
  }

  #arrived(arrival: Arrival): void {
    const { address } = arrival;
    if (this.#unfinished.size >= UNFINISHED_CONNECTIONS_MAX) {
      this.#strangers.warn(address, `${UNFINISHED_CONNECTIONS_MAX} others have not finished their handshake`);
      arrival.refuse();
      return;
    }
    let unfinished: Unfinished;
    try {
      unfinished = new Unfinished({
        endpoint: this.#endpoint,
        arrival,
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
  readonly arrival: Arrival;
  readonly accept: Accept;
  /** Told once at most, with what to log. */
  readonly refused: (problem: string) => void;
  /** Told once: it was accepted, or it is gone. */
  readonly done: () => void;
}

/** A connection from TCP's accept to the end of HELLO. */
class Unfinished implements Securing, ConnectionOwner {
  readonly #options: UnfinishedOptions;
  readonly #stream: SecureStream;
  readonly #cancelDeadline: () => void;
  #state: 'unfinished' | 'accepted' | 'over' = 'unfinished';
  #connection: Connection | undefined;
  #peer: Peer | undefined;

  constructor(options: UnfinishedOptions) {
    this.#options = options;
    const { endpoint } = options;
    this.#stream = options.arrival.secure(this);
    this.#cancelDeadline = endpoint.clock.after(HANDSHAKE_MS_MAX, () => {
      this.refuse(`it did not finish the TLS handshake and HELLO within ${HANDSHAKE_MS_MAX / 1000} s`);
      this.#destroy();
    });
  }

  /** TLS is up: find out who it is, and wait for HELLO. */
  secured(): void {
    const { endpoint, arrival } = this.#options;
    const { address } = arrival;
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
    const { endpoint, arrival, accept } = this.#options;
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
      address: arrival.address,
      hello,
      features,
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
