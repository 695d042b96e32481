/** One connection of the simulated network, and its ends: what the bus has in place of TLS on a socket. */
import type { X509Certificate } from 'node:crypto';
import type { StreamUser } from '../../src/bus/byte-stream.ts';
import type { SecureStream, Securing, TlsPeer } from '../../src/bus/transport.ts';
import { NETBUS_ALPN } from '../../src/protocols/netbus/limits.ts';
import type { Network, NetworkHost } from './network.ts';
import type { SimProcess, World } from './world.ts';

/** What a connection takes before it says that it is full: the socket buffers of both ends. */
const WINDOW_BYTES = [2_000, 16_384, 131_072, 1_048_576];

/** Two ends: 0 is the one that opened it. */
export class SimConnection {
  readonly network: Network;
  readonly hosts: readonly [NetworkHost, NetworkHost];
  readonly ends: (SimEnd | undefined)[] = [undefined, undefined];
  /** No end will ever be here. */
  readonly gone = [false, false];
  readonly windowBytes: number;
  readonly #certificates: (X509Certificate | undefined)[] = [undefined, undefined];

  constructor(network: Network, client: NetworkHost, server: NetworkHost) {
    this.network = network;
    this.hosts = [client, server];
    this.windowBytes = network.world.pick(WINDOW_BYTES);
    network.connections.add(this);
  }

  get world(): World {
    return this.network.world;
  }

  get text(): string {
    return `${this.hosts[0].name}>${this.hosts[1].name}`;
  }

  open(process: SimProcess, securing: Securing, certificate: X509Certificate): SimEnd {
    return this.#make(0, process, securing, certificate);
  }

  accept(process: SimProcess, securing: Securing, certificate: X509Certificate): SimEnd {
    return this.#make(1, process, securing, certificate);
  }

  /** TLS comes up: the client knows first, and may speak before the server does. */
  handshake(): void {
    const [client, server] = this.hosts;
    const toClient = () => {
      this.ends[0]!.secure(this.#peer(1));
      this.network.send(client.name, server.name, () => this.ends[1]!.secure(this.#peer(0)));
    };
    this.network.send(server.name, client.name, toClient);
  }

  /** End `index` is gone, and the other one hears of it in time. */
  reset(index: number, code: string): void {
    this.gone[index] = true;
    const other = this.ends[1 - index];
    this.network.send(this.hosts[index].name, this.hosts[1 - index].name, () => other?.fail(code));
  }

  /** End `index` is gone, and says nothing. */
  vanish(index: number): void {
    this.gone[index] = true;
    this.closed();
  }

  closed(): void {
    if (this.ends.every((end, index) => this.gone[index] || end === undefined || end.isClosed))
      this.network.connections.delete(this);
  }

  /** Bytes that are written and not read, both ways. */
  get heldBytes(): number {
    return this.ends.reduce((sum, end) => sum + (end?.unsentBytes ?? 0), 0);
  }

  #make(index: number, process: SimProcess, securing: Securing, certificate: X509Certificate): SimEnd {
    const end = new SimEnd(this, index, process, securing);
    this.ends[index] = end;
    this.#certificates[index] = certificate;
    return end;
  }

  #peer(index: number): TlsPeer {
    return { certificate: this.#certificates[index], verdict: 0, reason: 'ok', protocol: NETBUS_ALPN, resumed: false };
  }
}

type EndState = 'connecting' | 'open' | 'ended' | 'closed';

export class SimEnd implements SecureStream {
  readonly #connection: SimConnection;
  readonly #index: number;
  readonly #process: SimProcess;
  readonly #securing: Securing;
  #user: StreamUser | undefined;
  #peer: TlsPeer | undefined;
  #state: EndState = 'connecting';
  /** Written here, not read there. */
  readonly #chunks: Buffer[] = [];
  unsentBytes = 0;
  #full = false;
  #underWay = false;
  /** After the last chunk. */
  #last: 'nothing' | 'end' | 'sent' = 'nothing';

  constructor(connection: SimConnection, index: number, process: SimProcess, securing: Securing) {
    this.#connection = connection;
    this.#index = index;
    this.#process = process;
    this.#securing = securing;
    process.onKill(() => this.#processEnded());
  }

  // --- SecureStream ----------------------------------------------------------------------------------------------------

  get peer(): TlsPeer {
    return this.#peer!;
  }

  get writable(): boolean {
    return this.#state === 'open' && !this.#full && this.#last === 'nothing';
  }

  use(user: StreamUser): void {
    this.#user = user;
  }

  write(bytes: Uint8Array, length: number): void {
    if (!this.writable || !this.#process.alive) return;
    this.#chunks.push(Buffer.from(bytes.subarray(0, length)));
    this.unsentBytes += length;
    this.#full = this.unsentBytes >= this.#connection.windowBytes;
    this.#pump();
  }

  end(): void {
    if ((this.#state !== 'open' && this.#state !== 'ended') || !this.#process.alive) return;
    this.#last = 'end';
    this.#pump();
  }

  destroy(): void {
    if (this.#state === 'closed' || !this.#process.alive) return;
    this.#close();
  }

  // --- from the network ------------------------------------------------------------------------------------------------

  get isClosed(): boolean {
    return this.#state === 'closed';
  }

  secure(peer: TlsPeer): void {
    this.#process.tell(() => {
      if (this.#state !== 'connecting') return;
      this.#peer = peer;
      this.#state = 'open';
      this.#securing.secured();
      this.#other?.ready();
    });
  }

  /** The other end may send now. */
  ready(): void {
    this.#pump();
  }

  get canReceive(): boolean {
    return this.#state !== 'connecting';
  }

  fail(code: string): void {
    this.#process.tell(() => {
      if (this.#state === 'closed') return;
      const wasConnecting = this.#state === 'connecting';
      this.#state = 'closed';
      this.#discard();
      if (wasConnecting) this.#securing.failed(code);
      else this.#user?.failed(code);
    });
  }

  /** As after a reset that comes from neither end. */
  cut(): void {
    if (this.#state !== 'closed') this.fail('ECONNRESET');
  }

  receive(chunk: Buffer): void {
    this.#process.tell(() => {
      if (this.#state === 'open') this.#user?.received(chunk);
    });
  }

  peerEnded(): void {
    this.#process.tell(() => {
      if (this.#state !== 'open') return;
      this.#state = 'ended';
      this.#user?.ended();
    });
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  get #other(): SimEnd | undefined {
    return this.#connection.ends[1 - this.#index];
  }

  get #hosts(): readonly [NetworkHost, NetworkHost] {
    const { hosts } = this.#connection;
    return [hosts[this.#index], hosts[1 - this.#index]];
  }

  /** What was written goes on its way, and then the end of it; sometimes the kernel drops all of it and says so. */
  #close(): void {
    this.#state = 'closed';
    if (this.#connection.world.chance(4)) {
      this.#discard();
      this.#connection.reset(this.#index, 'ECONNRESET');
    } else {
      this.#last = 'end';
      this.#pump();
    }
    this.#connection.closed();
  }

  #processEnded(): void {
    if (this.#state === 'closed') return;
    const [host] = this.#hosts;
    if (host.isOn) {
      this.#close();
      return;
    }
    // Power loss: what is on the wire may arrive, and nothing after it, not even an end.
    this.#state = 'closed';
    const { world } = this.#connection;
    const keep = world.chance(2) ? 0 : world.random.below(this.unsentBytes + 1);
    this.#truncate(keep);
    this.#last = 'sent';
    this.#connection.vanish(this.#index);
  }

  #truncate(bytes: number): void {
    let left = bytes;
    const kept = this.#chunks.flatMap((chunk) => {
      const part = chunk.subarray(0, left);
      left -= part.length;
      return part.length === 0 ? [] : [part];
    });
    this.#chunks.splice(0, this.#chunks.length, ...kept);
    this.unsentBytes = bytes;
  }

  #discard(): void {
    this.#chunks.length = 0;
    this.unsentBytes = 0;
    this.#last = 'sent';
    this.#connection.closed();
  }

  #pump(): void {
    if (this.#underWay || (this.#chunks.length === 0 && this.#last !== 'end')) return;
    if (this.#connection.gone[1 - this.#index]) {
      this.#unheard();
      return;
    }
    if (this.#other?.canReceive !== true) return;
    this.#underWay = true;
    const [from, to] = this.#hosts;
    this.#connection.network.send(from.name, to.name, () => {
      this.#underWay = false;
      this.#deliver();
    });
  }

  /** Nobody is there: a host that is up says so. */
  #unheard(): void {
    const [, to] = this.#hosts;
    if (to.isOn) this.#connection.reset(1 - this.#index, 'ECONNRESET');
  }

  #deliver(): void {
    const other = this.#other;
    const { world, gone } = this.#connection;
    if (other === undefined || gone[1 - this.#index]) {
      this.#unheard();
      return;
    }
    if (this.#chunks.length === 0) {
      if (this.#last !== 'end') return;
      this.#last = 'sent';
      world.trace(`net ${this.#connection.text} end of ${this.#index}`);
      other.peerEnded();
      return;
    }
    if (other.isClosed) {
      // Data for a socket that was closed is answered with a reset.
      this.#discard();
      this.#connection.reset(1 - this.#index, 'ECONNRESET');
      return;
    }
    const piece = this.#take();
    world.trace(`net ${this.#connection.text} ${piece.length} bytes of ${this.#index}`);
    other.receive(piece);
    if (this.#full && this.unsentBytes <= this.#connection.windowBytes / 2) this.#makeRoom();
    this.#pump();
  }

  /** All that is there, mostly; else a piece of any length. */
  #take(): Buffer {
    const { world } = this.#connection;
    const all = Buffer.concat(this.#chunks);
    const length = world.chance(4) ? 1 + world.random.below(all.length) : all.length;
    this.#chunks.length = 0;
    if (length < all.length) this.#chunks.push(all.subarray(length));
    this.unsentBytes = all.length - length;
    return all.subarray(0, length);
  }

  #makeRoom(): void {
    this.#process.at(0, () => {
      if (!this.#full) return;
      this.#full = false;
      if (this.#state === 'open' || this.#state === 'ended') this.#user?.writable();
    });
  }
}
