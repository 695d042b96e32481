/**
 * A VM with one disk: its guest reads, writes and flushes on several queues, all at the same time, and keeps what it asked for until it is
 * answered, across restarts of the daemon. `SimFrontend` is what stands at the device's socket in place of vhost-user: it gives the guest's requests to
 * the virtual device, those of before first and in order, as the in-flight region lets it.
 */

import type { StagingRegion } from '../../src/bus/staging.ts';
import type { Frontend, FrontendOptions, FrontendStatus } from '../../src/daemon/attachment.ts';
import { Turns } from '../../src/daemon/turns.ts';
import { Batch, type Replies } from '../../src/device/batch.ts';
import type { Device } from '../../src/device/device.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { FreeRows, MessageTable } from '../../src/device/message-table.ts';
import { DiskStatistics } from '../../src/frontends/vhost-user/disk-statistics.ts';
import { abortAfter } from '../../src/lib/clock.ts';
import type { Checker } from './checker.ts';
import { BLOCK_BYTES, blockContent } from './disk.ts';
import type { ProcessMemory } from './memory.ts';
import type { SimProcess, World } from './world.ts';

export const BLOCKS_PER_REQUEST_MAX = 4;
const REQUEST_BYTES_MAX = BLOCKS_PER_REQUEST_MAX * BLOCK_BYTES;
const QUIESCE_MS_MAX = 1_000;
const ANSWERED_KEPT = 8;

interface Request {
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

type State =
  | { readonly name: 'idle' }
  | {
      readonly name: 'open';
      readonly device: Device;
      readonly table: MessageTable;
      readonly batch: Batch;
      readonly memory: StagingRegion;
    }
  | { readonly name: 'quiescing' };

export class SimFrontend implements Frontend {
  readonly statistics = new DiskStatistics();
  readonly left = 'nothing';
  readonly #options: FrontendOptions;
  readonly #process: SimProcess;
  readonly #memory: ProcessMemory;
  #vm: SimVm | undefined;
  #state: State = { name: 'idle' };
  #isClosed = false;
  /** Rows of the present use. */
  #rows: FreeRows | undefined;
  readonly #requests = new Map<number, Request>();
  #waits = false;
  /** Connections come and go one after the other. */
  readonly #turns = new Turns();

  constructor(options: FrontendOptions, process: SimProcess, memory: ProcessMemory) {
    this.#options = options;
    this.#process = process;
    this.#memory = memory;
    process.onKill(() => {
      this.#isClosed = true;
      this.#vm?.lost(this);
    });
  }

  get isOpen(): boolean {
    return !this.#isClosed;
  }

  // --- Frontend --------------------------------------------------------------------------------------------------------

  status(): FrontendStatus {
    const vm = this.#vm;
    if (vm === undefined) return { connected: false, inFlight: 0 };
    return { connected: true, inFlight: vm.waiting, vmm: { pid: vm.pid } };
  }

  profileChanged(): void {}

  close(): Promise<void> {
    this.#isClosed = true;
    return this.#turns.run(async () => {
      await this.#quiesce();
      const vm = this.#vm;
      this.#vm = undefined;
      if (vm === undefined) return;
      this.#options.onConnection(false);
      vm.lost(this);
    });
  }

  // --- from the VM -----------------------------------------------------------------------------------------------------

  connected(vm: SimVm): void {
    this.#inTurn(async () => {
      if (this.#isClosed || !vm.isConnectedTo(this)) return;
      this.#vm = vm;
      this.#options.onConnection(true);
      this.#open();
    });
  }

  disconnected(): void {
    this.#vm = undefined;
    this.#inTurn(async () => {
      await this.#quiesce();
      if (!this.#isClosed) this.#options.onConnection(false);
    });
  }

  pauseRings(): void {
    this.#inTurn(async () => {
      if (this.#state.name !== 'open') return;
      await this.#quiesce();
      this.#process.at(this.#process.world.latency(20), () => this.#open());
    });
  }

  add(request: Request): void {
    this.#process.tell(() => {
      if (this.#state.name === 'open') this.#fill(request);
    });
  }

  push(): void {
    this.#process.tell(() => this.#push());
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  #inTurn(work: () => Promise<void>): void {
    this.#process.tell(() => void this.#turns.run(work));
  }

  /** What the guest waits for goes first, oldest first. */
  #open(): void {
    const vm = this.#vm;
    if (vm === undefined || this.#isClosed || this.#state.name !== 'idle') return;
    const { source, depth } = this.#options;
    const device = source.open();
    const table = new MessageTable(depth);
    const memory = this.#memory.allocate(depth * REQUEST_BYTES_MAX);
    this.#rows = new FreeRows(depth);
    this.#requests.clear();
    this.#waits = false;
    const isCurrent = () => this.#state.name === 'open' && this.#state.device === device;
    device.start({
      requests: table,
      reply: (replies) => {
        if (isCurrent()) this.#replied(replies);
        else this.#process.world.violated('quiet', 'a device answered after it was quiet');
      },
      push: (events) => events.count,
      ready: () => {
        if (!isCurrent()) return;
        this.#waits = false;
        this.#push();
      },
      lost: () => this.#process.world.violated('no surprise', 'a virtual device was lost'),
    });
    this.#state = { name: 'open', device, table, batch: new Batch(table), memory };
    for (const request of vm.requests) this.#fill(request);
    this.#push();
  }

  #fill(request: Request): void {
    const state = this.#state;
    if (state.name !== 'open') return;
    const { table, memory, batch } = state;
    const row = this.#rows!.take();
    if (row < 0) throw new Error('a guest has more requests than its device takes');
    const bytes = request.blocks * BLOCK_BYTES;
    const segments = table.segments(row);
    segments.clear();
    table.kind[row] = request.kind;
    table.flags[row] = request.isDurable ? DiskFlag.durable : 0;
    table.argument[row] = request.first * BLOCK_BYTES;
    table.extent[row] = bytes;
    table.outLength[row] = request.kind === DiskKind.write ? bytes : 0;
    table.inLength[row] = request.kind === DiskKind.read ? bytes : 0;
    const at = row * REQUEST_BYTES_MAX;
    if (request.kind === DiskKind.write || request.kind === DiskKind.read) segments.add(memory, at, bytes);
    if (bytes > 0) words(memory, at, bytes).fill(request.kind === DiskKind.write ? request.write! : 0xffff_ffff);
    this.#requests.set(row, request);
    batch.add(row);
  }

  #push(): void {
    const state = this.#state;
    if (state.name !== 'open' || this.#waits || state.batch.count === 0) return;
    const taken = state.device.push(state.batch);
    this.#waits = taken < state.batch.count;
    state.batch.drop(taken);
  }

  #replied(replies: Replies): void {
    const state = this.#state;
    const vm = this.#vm;
    if (state.name !== 'open') return;
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      const request = this.#requests.get(row);
      if (request === undefined) {
        this.#process.world.violated('data', `row ${row} was answered, and nobody waits for it`);
        return;
      }
      this.#requests.delete(row);
      this.#rows!.give(row);
      const values: number[] = [];
      if (request.kind === DiskKind.read && replies.statuses[i] === DiskStatus.ok) {
        const content = words(state.memory, row * REQUEST_BYTES_MAX, request.blocks * BLOCK_BYTES);
        for (let at = 0; at < content.length; at += BLOCK_BYTES / 4)
          values.push(blockContent(this.#process.world, content, at));
      }
      vm?.replied(request, replies.statuses[i], values);
    }
    this.#push();
  }

  /** Answers what it can within its bound; the guest's side has what is left. */
  async #quiesce(): Promise<void> {
    const state = this.#state;
    if (state.name !== 'open') return;
    const { signal, cancel } = abortAfter(this.#options.clock, QUIESCE_MS_MAX);
    await state.device.quiesce(signal);
    cancel();
    this.#state = { name: 'quiescing' };
    await state.device.close();
    state.memory.release();
    this.#state = { name: 'idle' };
  }
}

function words(memory: StagingRegion, offset: number, length: number): Uint32Array {
  const bytes = memory.bytes(offset, length);
  return new Uint32Array(bytes.buffer, bytes.byteOffset, length / 4);
}
