/**
 * TLS on a TCP socket, straight on the system calls: one recv and one send a turn, and no stream of Node's in between
 * (docs/decisions/0009). Two users, one after the other: whoever makes the connection, until TLS is up, and then whose bytes it carries.
 */
import { X509Certificate } from 'node:crypto';
import { getSystemErrorName } from 'node:util';
import { native } from '../../native/index.ts';
import type { StreamUser } from './byte-stream.ts';
import type { SecureStream, Securing, TlsPeer } from './transport.ts';

/** What one turn takes from a socket, and the unfinished record that may have waited for it. */
const RECEIVE_BUFFER_BYTES = 84 * 1024;
/** TCP's own probes begin after this silence. The heartbeat finds a dead peer first; these cover the time before it runs. */
const KEEPALIVE_AFTER_S = 10;
const EAGAIN = 11;
const EPROTO = 71;
const ETIMEDOUT = 110;

type State = 'connecting' | 'handshake' | 'open' | 'ended' | 'closed';

/** Memory for one turn's plaintext; no turn leaves anything in it, so all streams of a host share one. */
export function makeReceiveBuffer(): Uint8Array {
  return new Uint8Array(RECEIVE_BUFFER_BYTES);
}

export class TlsStream implements SecureStream {
  readonly #fd: number;
  readonly #tls: number;
  readonly #watch: number;
  readonly #buffer: Uint8Array;
  readonly #securing: Securing;
  #user: StreamUser | undefined;
  #state: State;
  #writable = true;
  /** `end` was called, and the last bytes have not gone yet. */
  #ending = false;

  /** Owns the socket from here on; a client's may still be connecting. Throws what the system says, and then the socket is closed. */
  constructor(options: { context: number; fd: number; role: 'server' | 'client'; buffer: Uint8Array; securing: Securing }) {
    const { context, fd, role } = options;
    this.#fd = fd;
    this.#buffer = options.buffer;
    this.#securing = options.securing;
    this.#state = role === 'client' ? 'connecting' : 'handshake';
    let tls: number | undefined;
    try {
      // Whatever is ready leaves in one write: Nagle's algorithm could only add delay.
      native.setTcpOptions(fd, KEEPALIVE_AFTER_S);
      tls = native.openTls(context, fd, role === 'server' ? 1 : 0);
      const interest = { readable: role === 'server', writable: role === 'client' };
      this.#watch = native.watch(fd, interest, (...event) => this.#event(...event));
      this.#tls = tls;
    } catch (thrown) {
      if (tls !== undefined) native.closeTls(tls);
      native.close(fd);
      throw thrown;
    }
  }

  get writable(): boolean {
    return this.#writable && this.#state === 'open';
  }

  get peer(): TlsPeer {
    const { certificate, ...rest } = native.tlsPeer(this.#tls);
    return { ...rest, certificate: certificate && new X509Certificate(certificate) };
  }

  use(user: StreamUser): void {
    this.#user = user;
  }

  write(bytes: Uint8Array, length: number): void {
    if (this.writable) this.#sent(native.tlsWrite(this.#tls, bytes, 0, length));
  }

  /** Fails with ETIMEDOUT where nobody has answered at all; does nothing otherwise. */
  giveUpConnecting(): void {
    if (this.#state === 'connecting') this.#failed(-ETIMEDOUT);
  }

  end(): void {
    if (this.#state !== 'open' || this.#ending) return;
    this.#ending = true;
    this.#sent(native.tlsEnd(this.#tls));
  }

  destroy(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    native.unwatch(this.#watch);
    native.closeTls(this.#tls);
    native.close(this.#fd);
  }

  #event(error: number, readable: boolean, writable: boolean): void {
    if (error < 0) {
      this.#failed(error);
      return;
    }
    switch (this.#state) {
      case 'connecting':
        this.#state = 'handshake';
        native.rewatch(this.#watch, { readable: true, writable: false });
        this.#handshake();
        break;
      case 'handshake':
        if (writable) this.#sent(native.tlsFlush(this.#tls));
        this.#handshake();
        break;
      case 'open':
        if (writable) this.#sent(native.tlsFlush(this.#tls));
        if (readable) this.#read();
        break;
      case 'ended':
        if (writable) this.#sent(native.tlsFlush(this.#tls));
        break;
      case 'closed':
        break;
    }
  }

  #handshake(): void {
    const outcome = native.tlsHandshake(this.#tls);
    if (outcome < 0 && outcome !== -EAGAIN) {
      this.#failed(outcome);
      return;
    }
    // Only what the socket did not take at once remains.
    this.#sent(native.tlsFlush(this.#tls));
    if (outcome < 0) return;
    this.#state = 'open';
    this.#securing.secured();
    // The peer's first frame may have come along with the end of its handshake, and poll does not know of it.
    this.#read();
  }

  /** One turn's worth; what is left in the socket calls again. */
  #read(): void {
    if (this.#state !== 'open') return;
    const count = native.tlsRead(this.#tls, this.#buffer, 0, this.#buffer.length);
    if (count > 0) {
      this.#user?.received(this.#buffer.subarray(0, count));
    } else if (count === 0) {
      this.#state = 'ended';
      native.rewatch(this.#watch, { readable: false, writable: !this.#writable });
      this.#user?.ended();
    } else if (count !== -EAGAIN) {
      this.#failed(count);
    }
  }

  /** `unsent`: bytes that the socket has not taken, or a negative errno. */
  #sent(unsent: number): void {
    if (unsent < 0) {
      // Not from within the user's own call.
      this.#writable = false;
      queueMicrotask(() => this.#failed(unsent));
      return;
    }
    const readable = this.#state !== 'ended';
    if (unsent > 0) {
      if (this.#writable) native.rewatch(this.#watch, { readable, writable: true });
      this.#writable = false;
      return;
    }
    if (!this.#writable) {
      this.#writable = true;
      native.rewatch(this.#watch, { readable, writable: false });
      if (!this.#ending) this.#user?.writable();
    }
    if (this.#ending) native.endSocket(this.#fd);
  }

  #failed(error: number): void {
    if (this.#state === 'closed') return;
    const securing = this.#state === 'connecting' || this.#state === 'handshake';
    const code = error === -EPROTO ? sslCode(native.tlsFailure(this.#tls)) : getSystemErrorName(error);
    this.destroy();
    if (securing) this.#securing.failed(code);
    else this.#user?.failed(code);
  }
}

/** "wrong version number" as Node would name it. */
function sslCode(reason: string): string {
  return `ERR_SSL_${reason.toUpperCase().replace(/\W+/g, '_')}`;
}
