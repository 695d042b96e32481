/**
 * A VM with one disk: its guest reads, writes and flushes, many requests at the same time, and keeps what it asked for until it is answered, across
 * restarts of daemons and on whatever host it is.
 */
import type { AttachmentRecord } from '../../src/daemon/records.ts';
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import type { Checker } from './checker.ts';
import type { SimDisk } from './disk.ts';
import type { SimHost } from './host.ts';
import { type Answer, GuestRing } from './ring.ts';
import { SimVmm } from './vmm.ts';
import type { World } from './world.ts';

export const BLOCKS_PER_REQUEST_MAX = 4;

export interface Request {
  readonly kind: number;
  readonly first: number;
  readonly blocks: number;
  readonly isDurable: boolean;
  /** Of the checker: a write's number. */
  readonly write: number | undefined;
  readonly begunAt: number;
}

/** Where a VM's data may be: an export, and the disk behind it. */
export interface DiskHome {
  readonly host: SimHost;
  readonly exported: string;
  readonly disk: SimDisk;
}

export interface VmOptions {
  readonly world: World;
  readonly name: string;
  /** "vm/name" */
  readonly key: string;
  readonly host: SimHost;
  /** The first one is where its data is; a swap may bring it to any other. */
  readonly homes: readonly DiskHome[];
  /** Of the disk, those that it reads and writes. */
  readonly firstBlock: number;
  readonly blocks: number;
  readonly holdMs: number | undefined;
  readonly checker: Checker;
  /** Requests under way at a time. */
  readonly queueDepth: number;
  /** Of its requests; 0 to 50. */
  readonly flushPercent: number;
  /** Broken: each start of the ring begins with a write that was answered before. */
  readonly repeatsAnswered: boolean;
}

export class SimVm {
  readonly name: string;
  readonly key: string;
  readonly checker: Checker;
  readonly homes: readonly DiskHome[];
  /** Whatever it is told is written is there. */
  home: DiskHome;
  /** Where it runs, or is started next. */
  host: SimHost;
  /** The process that it runs in; undefined: it is off. */
  vmm: SimVmm | undefined;
  /** Somebody moves it to another host, starts it there, or has stopped its rings. */
  isMoving = false;
  /** By a migration. */
  movesTo: SimHost | undefined;
  /** A destination died where the design leaves the guest waiting for people. */
  mayBeStuck = false;
  /**
   * Where it came from, and the daemon there that it left by: one that dies before it told the device's host leaves the guest waiting for people. `wasTold`: when the
   * guest was let go on.
   */
  lastMove: { readonly from: SimHost; readonly daemon: object | undefined; readonly wasTold: boolean } | undefined;
  answered = 0;
  readonly #options: VmOptions;
  readonly #world: World;
  #ring!: GuestRing;
  #isPaused = false;
  /** The last write that was answered. */
  #lastWrite: Request | undefined;
  /** Requests that the guest will still begin. */
  #left = 0;
  /** Between two requests, typically. */
  #thinkMs = 1;
  #isThinking = false;

  constructor(options: VmOptions) {
    this.#options = options;
    this.#world = options.world;
    this.name = options.name;
    this.key = options.key;
    this.checker = options.checker;
    this.host = options.host;
    this.homes = options.homes;
    this.home = options.homes[0];
    this.#newRing();
  }

  get isOn(): boolean {
    return this.vmm !== undefined;
  }

  get holdMs(): number | undefined {
    return this.#options.holdMs;
  }

  get deviceHost(): SimHost {
    return this.home.host;
  }

  /** Any `count` blocks of those that it uses: the first one. */
  anyBlocks(count: number): number {
    const { firstBlock, blocks } = this.#options;
    return firstBlock + this.#world.random.below(blocks - count + 1);
  }

  get isLocal(): boolean {
    return this.host === this.deviceHost;
  }

  get waiting(): number {
    return this.#ring.waiting;
  }

  get isIdle(): boolean {
    return this.#left === 0 && this.#ring.waiting === 0;
  }

  /** What the device's host has stored of it; undefined while that has no daemon. */
  get recordAtDevice(): AttachmentRecord | undefined {
    const { host, exported } = this.home;
    const found = [...(host.daemon?.exports?.all ?? [])].find(({ name }) => name === exported);
    return found?.attachments.find((record) => `${record.vm}/${record.name}` === this.key && !isStaleMark(record));
  }

  /** See SimFrontend. */
  get use(): object | undefined {
    return this.vmm?.frontend?.use;
  }

  /** A new start, where it is at home. */
  start(): void {
    if (this.isOn || !this.host.isOn) return;
    this.#world.trace(`vm ${this.name} starts at ${this.host.name}`);
    this.#newRing();
    this.#isPaused = false;
    this.vmm = this.makeVmm(this.host, this.#ring);
    this.vmm.startRings();
    // Where the device is, power takes the guest along: there is nothing that a log would be for.
    this.checker.guestStarted({ hasLog: this.isLocal || this.host.hasLogMemory });
    this.#think();
  }

  /** Power off, with the host or without it; what was under way is nobody's. */
  stop(): void {
    this.vmm?.quit();
  }

  /** A process for it at a host: the one that it runs in, or one that waits for it. */
  makeVmm(host: SimHost, ring: GuestRing): SimVmm {
    const repeats = () => (this.#lastWrite !== undefined && this.#options.repeatsAnswered ? [this.#lastWrite] : []);
    return new SimVmm({ world: this.#world, key: this.key, host, ring, repeats, onOver: (vmm) => this.#over(vmm) });
  }

  // --- as its VMM moves it ---------------------------------------------------------------------------------------------

  /** Its processors stand still. */
  pause(): void {
    this.#isPaused = true;
  }

  /** They run again, here. */
  resume(): void {
    this.#isPaused = false;
    this.#think();
  }

  /** What the destination gets of its memory: answers that it finds there are told when it runs there. */
  copyMemory(): { ring: GuestRing; unseen: Answer[] } {
    const unseen: Answer[] = [];
    return { ring: this.#ring.copy((answer) => unseen.push(answer)), unseen };
  }

  /** It runs in `vmm` from now on, with the memory that is there. */
  runIn(vmm: SimVmm, unseen: readonly Answer[]): void {
    this.vmm = vmm;
    this.host = vmm.host;
    this.#ring = vmm.ring;
    this.#ring.onAnswer = (answer) => this.#answered(answer);
    for (const answer of unseen) this.#answered(answer);
    this.resume();
  }

  /** The driver stops its rings and starts them again: a pause. */
  pauseRings(): void {
    const { vmm } = this;
    if (vmm === undefined || this.isMoving || !vmm.runsRings) return;
    this.isMoving = true;
    void vmm.stopRings().then(() => {
      this.#world.at(this.#world.latency(20), () => {
        this.isMoving = false;
        if (!vmm.isOver && this.vmm === vmm) vmm.startRings();
      });
    });
  }

  /** It goes on as a guest that nobody wants any more: another one is started in its place. Its ring stays with its process. */
  abandon(): SimVmm {
    const vmm = this.vmm!;
    this.vmm = undefined;
    this.#newRing();
    return vmm;
  }

  // --- its guest -------------------------------------------------------------------------------------------------------

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
    const { firstBlock } = this.#options;
    const end = firstBlock + this.#options.blocks;
    for (let first = firstBlock; first < end; first += BLOCKS_PER_REQUEST_MAX) {
      const blocks = Math.min(BLOCKS_PER_REQUEST_MAX, end - first);
      // One that is full of requests without answers tells as much.
      if (!this.#ring.isFull) this.#begin({ kind: DiskKind.read, first, blocks, isDurable: false });
    }
    this.#kick();
  }

  #newRing(): void {
    this.#ring = new GuestRing((answer) => this.#answered(answer));
    this.#lastWrite = undefined;
  }

  #over(vmm: SimVmm): void {
    if (this.vmm !== vmm) return;
    this.#world.trace(`vm ${this.name} stops`);
    this.vmm = undefined;
    this.#newRing();
  }

  #answered({ request, status, values }: Answer): void {
    if (request.write !== undefined) this.#lastWrite = request;
    const { checker } = this;
    this.answered++;
    this.#world.trace(`vm ${this.name} ${request.kind} of ${request.first}+${request.blocks}: ${status} ${values.join(' ')}`);
    if (status !== DiskStatus.ok) checker.failed(request.write);
    else if (request.write !== undefined) checker.writeDone(request.write, request.isDurable);
    else if (request.kind === DiskKind.flush) checker.flushDone(request.begunAt);
    else for (const [i, value] of values.entries()) checker.readDone(request.first + i, value, request.begunAt);
    this.#think();
  }

  get #canBegin(): boolean {
    return this.#left > 0 && this.isOn && !this.#isPaused && this.#ring.waiting < this.#options.queueDepth;
  }

  #think(): void {
    if (this.#isThinking || !this.#canBegin) return;
    this.#isThinking = true;
    this.#world.at(this.#world.between(0, 2 * this.#thinkMs), () => {
      this.#isThinking = false;
      if (!this.#canBegin) return;
      const burst = this.#world.chance(3) ? 1 + this.#world.random.below(6) : 1;
      for (let i = 0; i < burst && this.#canBegin; i++) this.#beginAny();
      this.#kick();
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
    const first = this.anyBlocks(blocks);
    const isWrite = kind !== DiskKind.read;
    this.#begin({ kind, first, blocks, isDurable: isWrite && random.below(10) === 0 });
  }

  #begin(what: Pick<Request, 'kind' | 'first' | 'blocks' | 'isDurable'>): void {
    this.#ring.add(newRequest(this.checker, what));
  }

  #kick(): void {
    this.vmm?.frontend?.kicked();
  }
}

/** It says that what is there is of no use to anybody. */
function isStaleMark({ copy }: AttachmentRecord): boolean {
  return copy?.state === 'superseded' || copy?.state === 'aborted';
}

/** Tells the checker. */
export function newRequest(
  checker: Checker,
  what: Pick<Request, 'kind' | 'first' | 'blocks' | 'isDurable'>,
  guest = checker.guest,
): Request {
  const blocks = Array.from({ length: what.blocks }, (_, i) => what.first + i);
  const isWrite = what.kind === DiskKind.write || what.kind === DiskKind.writeZeroes;
  const write = isWrite ? checker.writeBegun(blocks, what.kind === DiskKind.writeZeroes, guest) : undefined;
  return { ...what, write, begunAt: checker.begun() };
}
