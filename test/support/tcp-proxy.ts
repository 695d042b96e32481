/**
 * A TCP proxy that is the network between two hosts, with what networks do to connections: cut, delay, throttle, stall,
 * and go silent half-way. Conditions may be changed at any time and hold for all connections, those to come too.
 */
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import type { Clock } from '../../src/lib/clock.ts';

/** What the network does at a moment. */
export interface WireConditions {
  /** Connections are reset, new ones too. */
  readonly cut: boolean;
  /** Everything is swallowed, and nobody is told. When it ends, connections that lost something are reset: the far end knows them no more. */
  readonly halfOpen: boolean;
  /** Nothing passes and nothing is lost: it goes on where it stood. */
  readonly stalled: boolean;
  /** Of each byte, in milliseconds, one way. */
  readonly delayMs: number;
  /** Of each connection and direction; undefined: as fast as it goes. */
  readonly bytesPerSecond: number | undefined;
}

export const CLEAR_WIRE: WireConditions = {
  cut: false,
  halfOpen: false,
  stalled: false,
  delayMs: 0,
  bytesPerSecond: undefined,
};

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** Bytes on their way in one direction of a connection; then its sender has to wait. */
const IN_FLIGHT_BYTES_MAX = 256 * 1024;
/** A throttled direction passes on what this much time allows, or more rarely a whole chunk, in milliseconds. */
const THROTTLE_STEP_MS = 10;

export class TcpProxy {
  readonly #server: Server;
  readonly #target: Endpoint;
  readonly #clock: Clock;
  readonly #connections = new Set<Connection>();
  #conditions = CLEAR_WIRE;

  /** Listens at once; rejects where that is not possible. */
  static async listen(listen: Endpoint, target: Endpoint, clock: Clock): Promise<TcpProxy> {
    const proxy = new TcpProxy(target, clock);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(listen.port, listen.host, resolve);
    });
    return proxy;
  }

  private constructor(target: Endpoint, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Connections that are up or on their way. */
  get connections(): number {
    return this.#connections.size;
  }

  /** From now on the network is like this. */
  set(conditions: WireConditions): void {
    this.#conditions = conditions;
    for (const connection of [...this.#connections]) connection.apply(conditions);
  }

  /** Resets every connection and listens no more. */
  async close(): Promise<void> {
    for (const connection of [...this.#connections]) connection.reset();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(client: Socket): void {
    if (this.#conditions.cut) {
      client.on('error', () => {});
      client.resetAndDestroy();
      return;
    }
    const server = dial({ ...this.#target, allowHalfOpen: true, noDelay: true });
    const connection = new Connection(client, server, this.#clock, this.#conditions, () => {
      this.#connections.delete(connection);
    });
    this.#connections.add(connection);
  }
}

/** Two sockets, and what is on its way between them. */
class Connection {
  readonly #sockets: readonly [Socket, Socket];
  readonly #directions: readonly [Direction, Direction];
  readonly #forget: () => void;
  #conditions: WireConditions;
  /** Something was swallowed: the two ends do not agree any more. */
  #damaged = false;

  constructor(client: Socket, server: Socket, clock: Clock, conditions: WireConditions, forget: () => void) {
    this.#sockets = [client, server];
    this.#conditions = conditions;
    this.#forget = forget;
    this.#directions = [new Direction(client, server, clock), new Direction(server, client, clock)];
    for (const [i, from] of this.#sockets.entries()) {
      from.on('data', (bytes) => this.#lose() || this.#directions[i].take(bytes));
      from.on('end', () => this.#lose() || this.#directions[i].take(undefined));
      from.on('error', () => this.#lose() || this.reset());
      from.on('close', () => this.#closed());
    }
    this.apply(conditions);
  }

  apply(conditions: WireConditions): void {
    this.#conditions = conditions;
    if (conditions.cut || (this.#damaged && !conditions.halfOpen)) this.reset();
    else for (const direction of this.#directions) direction.apply(conditions);
  }

  reset(): void {
    for (const direction of this.#directions) direction.stop();
    for (const socket of this.#sockets) {
      // libuv refuses to reset what is being shut down, and then it would stay open for ever.
      if (socket.writableEnded) socket.destroy();
      else if (!socket.destroyed) socket.resetAndDestroy();
    }
    this.#forget();
  }

  /** Whether what has just come is swallowed. */
  #lose(): boolean {
    this.#damaged ||= this.#conditions.halfOpen;
    return this.#conditions.halfOpen;
  }

  #closed(): void {
    if (this.#sockets.every(({ destroyed }) => destroyed)) this.reset();
  }
}

/** What one end sends to the other, in order; undefined is the end of it. */
class Direction {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #clock: Clock;
  readonly #queue: { readonly dueAt: number; bytes: Buffer | undefined }[] = [];
  #queuedBytes = 0;
  #conditions = CLEAR_WIRE;
  /** When the next bytes may go, where it is throttled. */
  #freeAt = 0;
  #draining = false;
  #stopped = false;
  #cancel: (() => void) | undefined;

  constructor(from: Socket, to: Socket, clock: Clock) {
    this.#from = from;
    this.#to = to;
    this.#clock = clock;
    to.on('drain', () => {
      this.#draining = false;
      this.#pump();
    });
  }

  apply(conditions: WireConditions): void {
    this.#conditions = conditions;
    this.#pump();
  }

  take(bytes: Buffer | undefined): void {
    // What was sent first arrives first, also where the delay has become shorter.
    const before = this.#queue.at(-1)?.dueAt ?? 0;
    this.#queue.push({ dueAt: Math.max(before, this.#clock.now() + this.#conditions.delayMs), bytes });
    this.#queuedBytes += bytes?.length ?? 0;
    this.#pump();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }

  #pump(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    while (!this.#blocked()) {
      const { dueAt } = this.#queue[0];
      const waitMs = Math.max(dueAt, this.#throttledUntil()) - this.#clock.now();
      if (waitMs > 0) {
        this.#cancel = this.#clock.after(waitMs, () => this.#pump());
        break;
      }
      this.#send();
    }
    if (this.#queuedBytes > IN_FLIGHT_BYTES_MAX) this.#from.pause();
    else if (this.#from.isPaused()) this.#from.resume();
  }

  #blocked(): boolean {
    const { stalled, halfOpen } = this.#conditions;
    return this.#stopped || this.#draining || stalled || halfOpen || this.#queue.length === 0;
  }

  #throttledUntil(): number {
    return this.#conditions.bytesPerSecond === undefined ? 0 : this.#freeAt;
  }

  #send(): void {
    const first = this.#queue[0];
    if (first.bytes === undefined) {
      this.#queue.shift();
      this.#to.end();
      return;
    }
    const bytes = first.bytes.subarray(0, this.#bytesAtOnce());
    if (bytes.length === first.bytes.length) this.#queue.shift();
    else first.bytes = first.bytes.subarray(bytes.length);
    this.#queuedBytes -= bytes.length;
    const { bytesPerSecond } = this.#conditions;
    if (bytesPerSecond !== undefined) this.#freeAt = this.#clock.now() + (bytes.length / bytesPerSecond) * 1000;
    this.#draining = !this.#to.write(bytes);
  }

  #bytesAtOnce(): number {
    const { bytesPerSecond } = this.#conditions;
    return bytesPerSecond === undefined ? Number.POSITIVE_INFINITY : Math.max(1, (bytesPerSecond * THROTTLE_STEP_MS) / 1000);
  }
}
