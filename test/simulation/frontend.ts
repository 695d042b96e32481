/**
 * What stands at a device's socket in place of vhost-user: it gives the guest's requests to the virtual device, those that have no answer first and in
 * order, as the in-flight region lets a frontend.
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
import { BLOCK_BYTES, blockContent } from './disk.ts';
import { BLOCKS_PER_REQUEST_MAX, type Request, type SimVm } from './guest.ts';
import type { ProcessMemory } from './memory.ts';
import type { SimProcess } from './world.ts';

const REQUEST_BYTES_MAX = BLOCKS_PER_REQUEST_MAX * BLOCK_BYTES;
const QUIESCE_MS_MAX = 1_000;

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
  readonly #hidesErrors: boolean;
  #vm: SimVm | undefined;
  #state: State = { name: 'idle' };
  #isClosed = false;
  /** Rows of the present use. */
  #rows: FreeRows | undefined;
  readonly #requests = new Map<number, Request>();
  /** What was asked for in the present use: a process that was stopped hears late of what it has found already. */
  readonly #asked = new Set<Request>();
  #waits = false;
  /** The virtual device as it was opened last, until the rings are stopped. */
  #use: Device | undefined;
  /** Connections come and go one after the other. */
  readonly #turns = new Turns();

  /** `hidesErrors`: broken. */
  constructor(options: FrontendOptions, process: SimProcess, memory: ProcessMemory, hidesErrors: boolean) {
    this.#options = options;
    this.#process = process;
    this.#memory = memory;
    this.#hidesErrors = hidesErrors;
    process.onKill(() => {
      this.#isClosed = true;
      this.#vm?.lost(this);
    });
  }

  get isOpen(): boolean {
    return !this.#isClosed;
  }

  /** The guest's present use of the virtual device: another one after each stop of its rings. */
  get use(): Device | undefined {
    return this.#use;
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
    this.#asked.clear();
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
    this.#use = device;
    for (const request of vm.requests) this.#fill(request);
    this.#push();
  }

  #fill(request: Request): void {
    const state = this.#state;
    if (state.name !== 'open' || this.#asked.has(request)) return;
    this.#asked.add(request);
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
    if (state.name !== 'open' || !this.#process.alive) return;
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
      const status = this.#hidesErrors ? DiskStatus.ok : replies.statuses[i];
      if (request.kind === DiskKind.read && status === DiskStatus.ok) {
        const content = words(state.memory, row * REQUEST_BYTES_MAX, request.blocks * BLOCK_BYTES);
        for (let at = 0; at < content.length; at += BLOCK_BYTES / 4)
          values.push(blockContent(this.#process.world, content, at));
      }
      vm?.replied(request, status, values);
    }
    this.#push();
  }

  /** Answers what it can within its bound; the guest's side has what is left. */
  async #quiesce(): Promise<void> {
    const state = this.#state;
    if (state.name !== 'open') return;
    this.#use = undefined;
    const { signal, cancel } = abortAfter(this.#options.clock, QUIESCE_MS_MAX);
    await state.device.quiesce(signal);
    await this.#options.source.passage?.leave([], signal);
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
