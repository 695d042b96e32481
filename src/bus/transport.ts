/** How bytes reach other hosts: TLS on TCP (tls-transport.ts), or what a test makes of it. */
import type { X509Certificate } from 'node:crypto';
import type { ByteStream } from './byte-stream.ts';
import type { EndpointIdentity } from './endpoint.ts';

export interface Transport {
  /** Begins to connect to an IP address. Throws what the system says at once; what comes later is told to `securing`. */
  connect(address: string, port: number, securing: Securing): SecureStream;
  /** Begins to take connections at an IP address; port 0 finds a free one. Throws what the system says (EADDRINUSE …). */
  listen(address: string, port: number, arrived: (arrival: Arrival) => void): Listening;
  /** Connections from now on show this certificate; those that are up go on with theirs. */
  useIdentity(identity: EndpointIdentity): void;
  /** No new connection can be made any more; those that are open live on. Twice is once. */
  close(): void;
}

export interface Listening {
  readonly port: number;
  /** Takes no more connections. */
  close(): void;
}

/** A connection that somebody opened, and nothing was read of it yet. One of the two is called, at once. */
export interface Arrival {
  /** The peer's address and port, as people read them. */
  readonly address: string;
  /** Goes on with TLS. Throws where it has gone again, or memory is short; it is closed then. */
  secure(securing: Securing): SecureStream;
  /** Closes it without a word. */
  refuse(): void;
}

/** Who waits for TLS: one of the two is told, once, and not from within the call that made the stream. */
export interface Securing {
  /** TLS is up, and nothing was read yet: the stream's user must be there when this returns. */
  secured(): void;
  failed(code: string): void;
}

/** A stream whose other end has shown who it is. */
export interface SecureStream extends ByteStream {
  /** After `secured`. */
  readonly peer: TlsPeer;
}

/** What the handshake found out about the peer. */
export interface TlsPeer {
  /** Undefined where it presented none. */
  readonly certificate: X509Certificate | undefined;
  /** X509_V_OK (0), or the X509_V_ERR_… that the chain was refused for. */
  readonly verdict: number;
  /** The verdict in OpenSSL's words. */
  readonly reason: string;
  /** The ALPN that was agreed on; empty: none. */
  readonly protocol: string;
  readonly resumed: boolean;
}
