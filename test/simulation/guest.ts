/**
 * A VM with one disk: its guest reads, writes and flushes, many requests at the same time, and keeps what it asked for until it is answered, across
 * restarts of the daemon.
 */
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import type { Checker } from './checker.ts';
import type { SimFrontend } from './frontend.ts';
import type { World } from './world.ts';

export const BLOCKS_PER_REQUEST_MAX = 4;
const ANSWERED_KEPT = 8;

export interface Request {
  readonly kind: number;
  readonly first: number;
  readonly blocks: number;
  readonly isDurable: boolean;
  /** Of the checker: a write's number. */
  readonly write: number | undefined;
  readonly begunAt: number;
}

export interface VmOptions {
  readonly world: World;
  readonly name: string;
  readonly blocks: number;
  readonly checker: Checker;
  /** Requests under way at a time. */
  readonly queueDepth: number;
  /** Of its requests; 0 to 50. */
  readonly flushPercent: number;
  /** Broken: each connection begins with a write that was answered before. */
  readonly repeatsAnswered: boolean;
}

export class SimVm {
  readonly name: string;
  readonly #options: VmOptions;
  readonly #world: World;
  /** Without an answer, oldest first. */
  readonly #requests = new Set<Request>();
  /** The last writes that were answered. */
  #answered: Request[] = [];
  #pid = 0;
  #socket: SimFrontend | undefined;
  /** It is connected to this one. */
  #frontend: SimFrontend | undefined;
  #isOn = false;
  /** Requests that the guest will still begin. */
  #left = 0;
  /** Between two requests, typically. */
  #thinkMs = 1;
  #isThinking = false;
  answered = 0;

  constructor(options: VmOptions) {
    this.name = options.name;
    this.#options = options;
    this.#world = options.world;
  }

  get pid(): number {
    return this.#pid;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  get waiting(): number {
    return this.#requests.size;
  }

  /** See SimFrontend. */
  get use(): object | undefined {
    return this.#frontend?.use;
  }

  get isIdle(): boolean {
    return this.#left === 0 && this.#requests.size === 0;
  }

  /** Oldest first. */
  get requests(): Iterable<Request> {
    const repeated = this.#options.repeatsAnswered ? this.#answered.slice(0, 1) : [];
    return [...repeated, ...this.#requests];
  }

  start(): void {
    if (this.#isOn) return;
    this.#world.trace(`vm ${this.name} starts`);
    this.#isOn = true;
    this.#pid++;
    this.#options.checker.guestStarted();
    this.#connect();
    this.#think();
  }

  /** Power off, with the host or without it; what was under way is nobody's. */
  stop(): void {
    if (!this.#isOn) return;
    this.#world.trace(`vm ${this.name} stops`);
    this.#isOn = false;
    this.#requests.clear();
    this.#answered = [];
    const frontend = this.#frontend;
    this.#frontend = undefined;
    frontend?.disconnected();
  }

  /** The device's socket, by the daemon that is there now: the VMM connects to it a moment later. */
  set socket(frontend: SimFrontend) {
    this.#socket = frontend;
    this.#connect();
  }

  #connect(): void {
    const frontend = this.#socket;
    if (frontend === undefined) return;
    this.#world.at(this.#world.latency(5), () => {
      if (!this.#isOn || this.#frontend?.isOpen === true || !frontend.isOpen) return;
      this.#frontend = frontend;
      frontend.connected(this);
    });
  }

  isConnectedTo(frontend: SimFrontend): boolean {
    return this.#frontend === frontend;
  }

  /** The daemon has closed the connection, or is gone. */
  lost(frontend: SimFrontend): void {
    if (this.#frontend === frontend) this.#frontend = undefined;
  }

  /** The driver stops its rings and starts them again: a pause, or a migration that was cancelled. */
  pauseRings(): void {
    this.#frontend?.pauseRings();
  }

  /** From now on `count` more requests, about every `thinkMs`. */
  work(count: number, thinkMs: number): void {
    this.#left += count;
    this.#thinkMs = thinkMs;
    this.#think();
  }

  /** No more than is under way. */
  rest(): void {
    this.#left = 0;
  }

  /** Reads all blocks. */
  readAll(): void {
    for (let first = 0; first < this.#options.blocks; first += BLOCKS_PER_REQUEST_MAX) {
      const blocks = Math.min(BLOCKS_PER_REQUEST_MAX, this.#options.blocks - first);
      this.#begin({ kind: DiskKind.read, first, blocks, isDurable: false });
    }
    this.#frontend?.push();
  }

  replied(request: Request, status: number, values: readonly number[]): void {
    if (!this.#requests.delete(request)) return;
    if (request.write !== undefined) this.#answered = [...this.#answered, request].slice(-ANSWERED_KEPT);
    const { checker } = this.#options;
    this.answered++;
    this.#world.trace(`vm ${this.name} ${request.kind} of ${request.first}+${request.blocks}: ${status} ${values.join(' ')}`);
    if (status !== DiskStatus.ok) checker.failed(request.write);
    else if (request.write !== undefined) checker.writeDone(request.write, request.isDurable);
    else if (request.kind === DiskKind.flush) checker.flushDone(request.begunAt);
    else for (const [i, value] of values.entries()) checker.readDone(request.first + i, value, request.begunAt);
    this.#think();
  }

  #think(): void {
    if (this.#isThinking || this.#left === 0 || !this.#isOn || this.#requests.size >= this.#options.queueDepth) return;
    this.#isThinking = true;
    this.#world.at(this.#world.between(0, 2 * this.#thinkMs), () => {
      this.#isThinking = false;
      if (this.#left === 0 || !this.#isOn || this.#requests.size >= this.#options.queueDepth) return;
      const burst = this.#world.chance(3) ? 1 + this.#world.random.below(6) : 1;
      for (let i = 0; i < burst && this.#left > 0 && this.#requests.size < this.#options.queueDepth; i++) this.#beginAny();
      this.#frontend?.push();
      this.#think();
    });
  }

  #beginAny(): void {
    this.#left--;
    const { random } = this.#world;
    const die = random.below(100);
    const flushesTo = 5 + this.#options.flushPercent;
    const kind = die < 5 ? DiskKind.writeZeroes : die < flushesTo ? DiskKind.flush : die < 60 ? DiskKind.write : DiskKind.read;
    if (kind === DiskKind.flush) {
      this.#begin({ kind, first: 0, blocks: 0, isDurable: false });
      return;
    }
    const blocks = 1 + random.below(BLOCKS_PER_REQUEST_MAX);
    const first = random.below(this.#options.blocks - blocks + 1);
    const isWrite = kind !== DiskKind.read;
    this.#begin({ kind, first, blocks, isDurable: isWrite && random.below(10) === 0 });
  }

  #begin(what: Pick<Request, 'kind' | 'first' | 'blocks' | 'isDurable'>): void {
    const { checker } = this.#options;
    const blocks = Array.from({ length: what.blocks }, (_, i) => what.first + i);
    const isWrite = what.kind === DiskKind.write || what.kind === DiskKind.writeZeroes;
    const write = isWrite ? checker.writeBegun(blocks, what.kind === DiskKind.writeZeroes) : undefined;
    const request = { ...what, write, begunAt: checker.begun() };
    this.#requests.add(request);
    this.#frontend?.add(request);
  }
}
