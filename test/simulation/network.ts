/**
 * A network in memory. Bytes of one direction of a connection arrive in order, in pieces and after times that the seed decides; between connections
 * there is no order. Links can be cut (nothing arrives until they are mended, as with TCP that sends again), slow, and hosts can be gone.
 */
import type { X509Certificate } from 'node:crypto';
import type { Arrival, Listening, Transport } from '../../src/bus/transport.ts';
import { SimConnection } from './connection.ts';
import type { SimProcess, World } from './world.ts';

const ONE_WAY_MS = 0.2;

/** A host as the network sees it. */
export interface NetworkHost {
  readonly name: string;
  readonly address: string;
  readonly isOn: boolean;
}

export class Network {
  readonly world: World;
  /** Every connection that has an end which is open. */
  readonly connections = new Set<SimConnection>();
  readonly #listeners = new Map<string, { process: SimProcess; host: NetworkHost; arrived: (arrival: Arrival) => void }>();
  readonly #hosts = new Map<string, NetworkHost>();
  /** "m1>m2": nothing arrives; what would have waits here. */
  readonly #cut = new Map<string, (() => void)[]>();
  /** Factor on all times. */
  slowness = 1;

  constructor(world: World) {
    this.world = world;
  }

  add(host: NetworkHost): void {
    this.#hosts.set(host.address, host);
  }

  /** One direction. Twice is once. */
  cut(from: string, to: string): void {
    const key = `${from}>${to}`;
    if (!this.#cut.has(key)) this.#cut.set(key, []);
  }

  mend(from: string, to: string): void {
    const key = `${from}>${to}`;
    const waiting = this.#cut.get(key);
    this.#cut.delete(key);
    for (const arrive of waiting ?? []) this.world.at(this.world.latency(ONE_WAY_MS), arrive);
  }

  mendAll(): void {
    for (const key of [...this.#cut.keys()]) {
      const [from, to] = key.split('>');
      this.mend(from, to);
    }
    this.slowness = 1;
  }

  /** Calls back when it has got there, however long that takes. */
  send(from: string, to: string, arrive: () => void): void {
    this.world.at(this.world.latency(ONE_WAY_MS) * this.slowness, () => this.#arrives(from, to, arrive));
  }

  #arrives(from: string, to: string, arrive: () => void): void {
    const waiting = this.#cut.get(`${from}>${to}`);
    if (waiting === undefined) arrive();
    else waiting.push(() => this.#arrives(from, to, arrive));
  }

  /** What a process of `host` reaches others by. */
  transport(host: NetworkHost, process: SimProcess, certificate: X509Certificate): Transport {
    return {
      connect: (address, port, securing) => {
        const connection = new SimConnection(this, host, this.#hosts.get(address)!);
        const end = connection.open(process, securing, certificate);
        this.send(host.name, connection.hosts[1].name, () => this.#connect(connection, `${address}:${port}`));
        return end;
      },
      listen: (address, port, arrived): Listening => {
        const key = `${address}:${port}`;
        this.#listeners.set(key, { process, host, arrived: (arrival) => process.tell(() => arrived(arrival)) });
        this.#certificates.set(key, certificate);
        const close = () => {
          if (this.#listeners.get(key)?.process === process) this.#listeners.delete(key);
        };
        process.onKill(close);
        return { port, close };
      },
      useIdentity: () => {},
      close: () => {},
    };
  }

  readonly #certificates = new Map<string, X509Certificate>();

  #connect(connection: SimConnection, key: string): void {
    const [, server] = connection.hosts;
    // A host that is off answers nothing, not even no.
    if (!server.isOn) {
      connection.vanish(1);
      return;
    }
    const listener = this.#listeners.get(key);
    if (listener === undefined) {
      connection.reset(1, 'ECONNREFUSED');
      return;
    }
    let isAnswered = false;
    listener.process.onKill(() => {
      if (!isAnswered) connection.reset(1, 'ECONNRESET');
    });
    listener.arrived({
      address: `${connection.hosts[0].address}:${50_000}`,
      secure: (securing) => {
        isAnswered = true;
        const end = connection.accept(listener.process, securing, this.#certificates.get(key)!);
        connection.handshake();
        return end;
      },
      refuse: () => {
        isAnswered = true;
        connection.reset(1, 'ECONNRESET');
      },
    });
  }
}
