/** The process of a VM at one host: it has the guest's ring and an in-flight region, and plugs into the socket that is there. */
import { InflightQueue, inflightBytes } from '../../src/protocols/virtqueue/inflight.ts';
import type { SimFrontend } from './frontend.ts';
import type { Request } from './guest.ts';
import type { SimHost } from './host.ts';
import { type GuestRing, RING_SIZE } from './ring.ts';
import type { World } from './world.ts';

/** `lost`: the daemon has gone meanwhile, and the VMM knows no better than the guest's used index. */
export type Stopped = 'answered' | 'lost';

export interface VmmOptions {
  readonly world: World;
  /** "vm/name" */
  readonly key: string;
  readonly host: SimHost;
  readonly ring: GuestRing;
  /** Broken: see VmOptions. */
  readonly repeats: () => Iterable<Request>;
  /** It has ended, by whatever. */
  readonly onOver: (vmm: SimVmm) => void;
}

export class SimVmm {
  /** The guest's, as this process has it. */
  ring: GuestRing;
  readonly region = new InflightQueue(new ArrayBuffer(inflightBytes(RING_SIZE)), RING_SIZE);
  readonly pid: number;
  readonly host: SimHost;
  /** Its rings are started, or will be with the next connection. */
  runsRings = false;
  /** Next entry, as the last stop said. */
  base = 0;
  isOver = false;
  #copiesMemory = false;
  readonly #options: VmmOptions;
  #socket: SimFrontend | undefined;
  /** It is connected to this one. */
  #frontend: SimFrontend | undefined;
  #stopping: ((stopped: Stopped) => void) | undefined;

  constructor(options: VmmOptions) {
    this.#options = options;
    this.host = options.host;
    this.ring = options.ring;
    this.pid = options.world.nextPid();
    options.host.vmms.get(options.key)?.quit();
    options.host.vmms.set(options.key, this);
    const socket = options.host.sockets.get(options.key);
    if (socket !== undefined) this.socket = socket;
  }

  get frontend(): SimFrontend | undefined {
    return this.#frontend;
  }

  /** See VmOptions. */
  get repeats(): Iterable<Request> {
    return this.#options.repeats();
  }

  isConnectedTo(frontend: SimFrontend): boolean {
    return this.#frontend === frontend;
  }

  /** The device's socket, by the daemon that is there now: the VMM connects to it a moment later. */
  set socket(frontend: SimFrontend) {
    const { world } = this.#options;
    this.#socket = frontend;
    world.at(world.latency(5), () => {
      if (this.isOver || this.#socket !== frontend || this.#frontend?.isOpen === true || !frontend.isOpen) return;
      this.#frontend = frontend;
      frontend.connected(this);
    });
  }

  /** The daemon has closed the connection, or is gone. */
  lost(frontend: SimFrontend): void {
    if (this.#frontend !== frontend) return;
    this.#frontend = undefined;
    this.#stopped('lost');
  }

  /** As before a migration's end. */
  get copiesMemory(): boolean {
    return this.#copiesMemory;
  }

  copyMemory(copies: boolean): void {
    this.#copiesMemory = copies;
    this.#frontend?.mayLeave(copies);
  }

  startRings(): void {
    this.runsRings = true;
    this.#frontend?.startRings();
  }

  /** All of them, as before a migration's end or at a pause. Waits for the daemon's answer. */
  stopRings(): Promise<Stopped> {
    this.runsRings = false;
    return new Promise((resolve) => {
      this.#stopping = resolve;
      const frontend = this.#frontend;
      if (frontend === undefined || !frontend.isOpen) this.#stopped('lost');
      else {
        frontend.stopRings((base) => {
          if (this.#frontend !== frontend) return;
          this.base = base;
          this.#stopped('answered');
        });
      }
    });
  }

  quit(): void {
    if (this.isOver) return;
    const { host, key, onOver } = this.#options;
    this.isOver = true;
    this.runsRings = false;
    if (host.vmms.get(key) === this) host.vmms.delete(key);
    const frontend = this.#frontend;
    this.#frontend = undefined;
    frontend?.disconnected();
    this.#stopped('lost');
    onOver(this);
  }

  #stopped(stopped: Stopped): void {
    const resolve = this.#stopping;
    if (resolve === undefined) return;
    this.#stopping = undefined;
    if (stopped === 'lost') this.base = this.ring.usedIndex;
    // The VMM's own code goes on in a turn of its own.
    this.#options.world.at(0, () => resolve(stopped));
  }
}
