/** The transport between real hosts: TLS 1.3 on TCP sockets, with one context and one receive buffer for all connections of a host. */
import { getSystemErrorName } from 'node:util';
import { native } from '../../native/index.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { NETBUS_ALPN } from '../protocols/netbus/limits.ts';
import type { EndpointOptions } from './endpoint.ts';
import { addressText } from './socket.ts';
import { makeReceiveBuffer, TlsStream } from './tls-stream.ts';
import type { Arrival, Listening, SecureStream, Securing, Transport } from './transport.ts';

/** TLS 1.3 only; AES-128-GCM first, because it is the fastest where the processor has AES instructions, and every one of ours has. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384';
const EAGAIN = 11;
const ACCEPTS_PER_TURN_MAX = 16;
/**
 * How long a host may take to answer the first packet, in milliseconds. The kernel repeats that packet after 1, 3 and 7 s: where a network loses all
 * without a word, whoever tries anew this often is back much sooner.
 */
export const CONNECT_MS_MAX = 2_000;
/** How long no connection is taken after the system would not give one. */
const PAUSE_MS = 100;

type Identity = EndpointOptions['identity'];

export class TlsTransport implements Transport {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #receiveBuffer = makeReceiveBuffer();
  #context: number;
  #closed = false;

  constructor({ identity, clock, log }: { identity: Identity; clock: Clock; log: Log }) {
    this.#clock = clock;
    this.#log = log;
    this.#context = createTlsContext(identity);
  }

  connect(address: string, port: number, securing: Securing): SecureStream {
    const stream = this.#stream(native.connectTcp(address, port), 'client', securing);
    this.#clock.after(CONNECT_MS_MAX, () => {
      // This process may have been stopped itself: the answer that came meanwhile is looked at first.
      setImmediate(() => setImmediate(() => stream.giveUpConnecting()));
    });
    return stream;
  }

  listen(address: string, port: number, arrived: (arrival: Arrival) => void): Listening {
    const taken = (fd: number, from: string) =>
      arrived({
        address: from,
        secure: (securing) => this.#stream(fd, 'server', securing),
        refuse: () => native.close(fd),
      });
    return new TcpListening(native.listenTcp(address, port), { clock: this.#clock, log: this.#log, taken });
  }

  useIdentity(identity: Identity): void {
    const context = createTlsContext(identity);
    native.destroyTlsContext(this.#context);
    this.#context = context;
  }

  close(): void {
    if (!this.#closed) native.destroyTlsContext(this.#context);
    this.#closed = true;
  }

  #stream(fd: number, role: 'client' | 'server', securing: Securing): TlsStream {
    return new TlsStream({ context: this.#context, fd, role, buffer: this.#receiveBuffer, securing });
  }
}

/** A listening socket; each connection's descriptor goes to `taken`, which owns it. */
class TcpListening implements Listening {
  readonly port: number;
  readonly #fd: number;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #taken: (fd: number, address: string) => void;
  readonly #watch: number;
  #cancelPause: (() => void) | undefined;
  #closed = false;

  constructor(fd: number, options: { clock: Clock; log: Log; taken: (fd: number, address: string) => void }) {
    this.#fd = fd;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#taken = options.taken;
    this.#watch = native.watch(fd, { readable: true, writable: false }, () => this.#connections());
    this.port = native.localAddress(fd).port;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelPause?.();
    native.unwatch(this.#watch);
    native.close(this.#fd);
  }

  #connections(): void {
    for (let i = 0; i < ACCEPTS_PER_TURN_MAX && !this.#closed; i++) {
      const fd = native.acceptConnection(this.#fd);
      if (fd === -EAGAIN) return;
      if (fd < 0) {
        this.#pause(fd);
        return;
      }
      let address: string;
      try {
        address = addressText(native.peerAddress(fd));
      } catch {
        // It has gone again.
        native.close(fd);
        continue;
      }
      this.#taken(fd, address);
    }
  }

  /** No descriptor is free, most likely: those who wait stay in the kernel's queue, which would call again at once. */
  #pause(error: number): void {
    this.#log.warn({ error: getSystemErrorName(error) }, 'connections of other hosts cannot be taken now');
    native.rewatch(this.#watch, { readable: false, writable: false });
    this.#cancelPause = this.#clock.after(PAUSE_MS, () => {
      native.rewatch(this.#watch, { readable: true, writable: false });
    });
  }
}

/** Without a certificate for a host that joins, which has none yet. */
function createTlsContext(identity: Identity): number {
  const { ca: authority, certificate, key } = 'certificate' in identity ? identity : { ca: '', certificate: '', key: '' };
  return native.createTlsContext({ authority, certificate, key, ciphers: CIPHERS, protocol: NETBUS_ALPN });
}
