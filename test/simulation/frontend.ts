/**
 * What stands at a device's socket in place of vhost-user: it gives the guest's requests to the virtual device, those first, in order, that have no
 * answer yet, here or at the host that the guest comes from, and takes along what is unfinished when the guest leaves. As
 * src/frontends/vhost-user/device-use.ts does it.
 */
import type { Frontend, FrontendOptions } from '../../src/daemon/attachment.ts';
import type { FrontendStatus } from '../../src/daemon/attachment-entry.ts';
import { Turns } from '../../src/daemon/turns.ts';
import { Batch, type Replies } from '../../src/device/batch.ts';
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { QueueHandOver } from '../../src/device/hand-over.ts';
import { FreeRows, MessageTable } from '../../src/device/message-table.ts';
import type { Passage } from '../../src/device/source.ts';
import { DiskStatistics } from '../../src/frontends/vhost-user/disk-statistics.ts';
import { RingTimes } from '../../src/frontends/vhost-user/ring-times.ts';
import { abortAfter } from '../../src/lib/clock.ts';
import type { ProcessMemory } from './memory.ts';
import { SimQueue } from './queue.ts';
import { fill, type Held, REQUEST_BYTES_MAX, read, type Use, untake } from './use.ts';
import type { SimVmm } from './vmm.ts';
import type { SimProcess } from './world.ts';

const QUIESCE_MS_MAX = 1_000;
/** Of it: what is left for telling the device's host. */
const LEAVE_SHARE = 0.2;

/** Broken on purpose. */
export interface BrokenFrontend {
  /** Guests are told that what failed was done. */
  readonly hidesErrors?: boolean | undefined;
  /** What the last host left unfinished is changed on its way. */
  readonly handOver?: ((left: QueueHandOver) => QueueHandOver) | undefined;
}

export class SimFrontend implements Frontend {
  readonly statistics = new DiskStatistics();
  readonly left = 'nothing';
  readonly #options: FrontendOptions;
  readonly #process: SimProcess;
  readonly #memory: ProcessMemory;
  readonly #broken: BrokenFrontend;
  readonly #times: RingTimes;
  /** At the other end of the socket, and the same once that was noticed. */
  #plugged: SimVmm | undefined;
  #vmm: SimVmm | undefined;
  #use: Use | undefined;
  #isClosed = false;
  #whyHeld: string | undefined;
  /** Connections, starts and stops come one after the other. */
  readonly #turns = new Turns();

  constructor(options: FrontendOptions, process: SimProcess, memory: ProcessMemory, broken: BrokenFrontend) {
    this.#options = options;
    this.#process = process;
    this.#memory = memory;
    this.#broken = broken;
    this.#times = new RingTimes(options.clock);
    process.onKill(() => {
      this.#isClosed = true;
      this.#plugged?.lost(this);
    });
  }

  get isOpen(): boolean {
    return !this.#isClosed;
  }

  /** The guest's present use of the virtual device: another one after each stop of its rings. */
  get use(): object | undefined {
    return this.#use?.isStopping ? undefined : this.#use;
  }

  /** The ring is served, if only with errors. */
  get isServed(): boolean {
    return this.#use?.queue !== undefined;
  }

  /** Why the ring takes nothing. */
  get whyHeld(): string | undefined {
    return this.#whyHeld;
  }

  // --- Frontend --------------------------------------------------------------------------------------------------------

  status(): FrontendStatus {
    const vmm = this.#vmm;
    const { lastStop, lastStart } = this.#times;
    const times = { ...(lastStop && { lastStop }), ...(lastStart && { lastStart }) };
    if (vmm === undefined) return { connected: false, inFlight: 0, ...times };
    return { connected: true, inFlight: this.#use?.held.size ?? 0, vmm: { pid: vmm.pid }, ...times };
  }

  profileChanged(): void {}

  chooseWriteCache(): void {}

  close(): Promise<void> {
    this.#isClosed = true;
    return this.#turns.run(async () => {
      await this.#stop();
      if (this.#vmm !== undefined) this.#options.onConnection(false);
      this.#vmm = undefined;
      this.#plugged?.lost(this);
    });
  }

  // --- from the VMM ----------------------------------------------------------------------------------------------------

  connected(vmm: SimVmm): void {
    this.#plugged = vmm;
    this.#inTurn(async () => {
      if (this.#isClosed || !vmm.isConnectedTo(this)) return;
      this.#vmm = vmm;
      this.#options.onConnection(true);
      this.#options.source.passage?.mayLeave(vmm.copiesMemory);
      this.#start();
    });
  }

  disconnected(): void {
    this.#inTurn(async () => {
      await this.#stop();
      if (this.#vmm === undefined) return;
      this.#options.source.passage?.mayLeave(false);
      this.#vmm = undefined;
      if (!this.#isClosed) this.#options.onConnection(false);
    });
  }

  startRings(): void {
    this.#inTurn(async () => this.#start());
  }

  /** The VMM notes what is written to guest memory. */
  mayLeave(expected: boolean): void {
    this.#process.tell(() => this.#options.source.passage?.mayLeave(expected));
  }

  /** `stopped` hears the next entry to take: what GET_VRING_BASE answers. */
  stopRings(stopped: (base: number) => void): void {
    this.#inTurn(async () => {
      const base = this.#vmm?.base ?? 0;
      if (this.#use?.queue !== undefined) this.#times.stopAsked();
      const { next, outcome } = await this.#stop();
      this.#times.stopAnswered(this.#options.clock.now(), outcome);
      if (this.#process.alive) stopped(next ?? base);
    });
  }

  /** The guest has made something available. */
  kicked(): void {
    this.#process.tell(() => this.#pump());
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  #inTurn(work: () => Promise<void>): void {
    this.#process.tell(() => void this.#turns.run(work));
  }

  #start(): void {
    const vmm = this.#vmm;
    if (vmm === undefined || !vmm.runsRings || this.#isClosed || this.#use !== undefined) return;
    const { source, depth } = this.#options;
    this.#times.started(true);
    this.#whyHeld = undefined;
    const arrival = source.passage?.arrival();
    const device = source.open();
    const table = new MessageTable(depth);
    const memory = this.#memory.allocate(depth * REQUEST_BYTES_MAX);
    const shared = { device, table, batch: new Batch(table), memory, rows: new FreeRows(depth), held: new Map<number, Held>() };
    const isExpected = arrival !== undefined;
    const state = { queue: undefined, handOver: undefined, isExpected, isFull: false, isStopping: false };
    const use: Use = { vmm, ...shared, ...state };
    this.#use = use;
    device.start({
      requests: table,
      reply: (replies) => {
        if (this.#use === use) this.#replied(use, replies);
        else this.#violated('quiet', 'a device answered after it was quiet');
      },
      push: (events) => events.count,
      ready: () => {
        if (this.#use !== use) return;
        use.isFull = false;
        this.#pump();
      },
      lost: () => this.#violated('no surprise', 'a virtual device was lost'),
    });
    if (arrival === undefined) this.#begin(use);
    else this.#receive(use, arrival);
  }

  #receive(use: Use, arrival: ReturnType<Passage['arrival']>): void {
    void arrival?.then((queues) => {
      if (this.#use !== use || use.isStopping || !this.#process.alive) return;
      const left = queues?.[0] ?? null;
      use.handOver = left === null ? null : (this.#broken.handOver?.(left) ?? left);
      use.isExpected = false;
      this.#begin(use);
    });
  }

  /** It is known what is left, and the ring fits it, or is held. */
  #begin(use: Use): void {
    const { world } = this.#process;
    try {
      this.#whyHeld = undefined;
      use.queue = new SimQueue(use.vmm, use.handOver);
    } catch (thrown) {
      this.#whyHeld = NetbusError.from(thrown).message;
      world.trace(`${this.#process.name} holds a ring: ${this.#whyHeld}`);
      this.#receive(use, this.#options.source.passage?.arrivalAgain());
      return;
    }
    if (use.handOver !== undefined) {
      world.count('guests that arrived');
      if (use.queue.handedOver > 0) world.count('arrivals with unfinished requests');
      this.#options.source.passage!.arrived();
    }
    for (const request of use.vmm.repeats) fill(use, { request, head: undefined, isAgain: true });
    this.#pump();
  }

  #pump(): void {
    const use = this.#use;
    if (use?.queue === undefined || use.isStopping) return;
    for (let taken = use.queue.take(); taken !== undefined; taken = use.queue.take()) {
      const { head, isAgain } = taken;
      const request = use.queue.ring.request(head);
      if (request === undefined) {
        this.#violated('replay', `head ${head} was taken, and the guest does not wait for it`);
        return;
      }
      fill(use, { request, head, isAgain });
    }
    this.#push(use);
  }

  #push(use: Use): void {
    if (use.isFull || use.batch.count === 0) return;
    const taken = use.device.push(use.batch);
    use.isFull = taken < use.batch.count;
    use.batch.drop(taken);
  }

  #replied(use: Use, replies: Replies): void {
    if (!this.#process.alive) return;
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      const held = use.held.get(row);
      if (held === undefined) {
        this.#violated('data', `row ${row} was answered, and nobody waits for it`);
        return;
      }
      use.held.delete(row);
      use.rows.give(row);
      // A guest that is gone reads nothing.
      if (held.head === undefined || use.vmm.isOver) continue;
      const status = this.#broken.hidesErrors ? DiskStatus.ok : replies.statuses[i];
      const isRead = held.request.kind === DiskKind.read && status === DiskStatus.ok;
      use.queue!.put(held.head, status, isRead ? read(this.#process.world, use, row, held.request) : []);
    }
    if (!use.isStopping) this.#push(use);
  }

  /** Answers what it can within its bound; what is left goes with the guest, and the region has it. */
  async #stop(): Promise<{ next?: number | undefined; outcome: 'clean' | 'cut' }> {
    const use = this.#use;
    if (use === undefined) return { outcome: 'clean' };
    const { clock, source } = this.#options;
    use.isStopping = true;
    const bound = abortAfter(clock, QUIESCE_MS_MAX);
    const drain = abortAfter(clock, QUIESCE_MS_MAX * (1 - LEAVE_SHARE));
    const unpushed = untake(use);
    const quiesced = await use.device.quiesce(drain.signal);
    this.#use = undefined;
    const rows = [...(quiesced.outcome === 'cut' ? quiesced.unfinished : []), ...unpushed];
    const heads = rows.flatMap((row) => use.held.get(row)!.head ?? []);
    const left = use.queue?.leave(heads) ?? use.handOver;
    if (left !== undefined && left !== null && !use.isExpected) {
      if (heads.length > 0) this.#process.world.count('stops that were cut');
      await source.passage?.leave([left], bound.signal);
    }
    bound.cancel();
    drain.cancel();
    await use.device.close();
    use.memory.release();
    return { next: use.queue?.nextAvailable, outcome: heads.length > 0 ? 'cut' : 'clean' };
  }

  #violated(invariant: string, message: string): void {
    this.#process.world.violated(invariant, message);
  }
}
