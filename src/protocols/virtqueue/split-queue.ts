/**
 * A split virtqueue (virtio 1.2, 2.7), seen from the device. The driver on the other side is not to be trusted, and changes what it
 * has written whenever it likes: each field is read once, checked, and only then used.
 *
 * Indexes count modulo 2^16. Those that both sides look at are accessed with Atomics: sequentially consistent, so that storing an index
 * and then loading the other side's event has the full fence between them that notification needs (2.7.7, 2.7.10).
 */
import { NetbusError } from '../../device/errors.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { Chain } from './chain.ts';
import { DESCRIPTOR_BYTES, DescriptorTable } from './descriptor-table.ts';
import { examineHandOver } from './hand-over.ts';
import type { InflightFinding, InflightQueue } from './inflight.ts';
import type { AddressMap, GuestRegion } from './memory.ts';

/** Largest queue: QEMU's own limit, and a bound on the descriptors that one look at the queue can meet. */
export const QUEUE_SIZE_MAX = 1024;

/** Flag of the available ring: no call, please. Without EVENT_IDX only (2.7.6). */
const NO_INTERRUPT = 1;
/** Flag of the used ring: no kick, please. Without EVENT_IDX only (2.7.8). */
const NO_NOTIFY = 1;

/** Where the parts of a queue are. */
export interface QueueMemory {
  /** Translates the addresses in descriptors. */
  readonly map: AddressMap;
  /** The descriptor table: `offset` in `region`. */
  readonly descriptors: { readonly region: GuestRegion; readonly offset: number };
  /** Windows straight over the rings, `availableBytes` and `usedBytes` long. */
  readonly available: ArrayBuffer;
  readonly used: ArrayBuffer;
}

export const descriptorBytes = (size: number): number => size * DESCRIPTOR_BYTES;
/** Flags, index, ring, used_event. */
export const availableBytes = (size: number): number => 6 + 2 * size;
/** Flags, index, ring, avail_event. */
export const usedBytes = (size: number): number => 6 + 8 * size;
/** Alignment of the three parts (2.7). */
export const DESCRIPTORS_ALIGN = 16;
export const AVAILABLE_ALIGN = 2;
export const USED_ALIGN = 4;

export function isQueueSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= QUEUE_SIZE_MAX && (size & (size - 1)) === 0;
}

export interface SplitQueueOptions {
  /** For messages. */
  readonly index: number;
  /** A power of two up to QUEUE_SIZE_MAX. */
  readonly size: number;
  /** The available index to go on from. */
  readonly base: number;
  readonly indirect: boolean;
  readonly eventIndex: boolean;
  readonly memory: QueueMemory;
  /** Where the front-end keeps a region for it: notes what is in flight, and what was before. */
  readonly inflight?: InflightQueue | undefined;
  /** The guest comes from another host: what was left of the queue there; null where nobody knows. A region that was in use knows better. */
  readonly handOver?: QueueHandOver | null | undefined;
}

/** `takenAt` of a chain that is taken again: it has no place in the available ring any more. */
export const TAKEN_AGAIN = -1;

export class SplitQueue {
  readonly index: number;
  readonly size: number;
  readonly #eventIndex: boolean;
  readonly #mask: number;
  readonly #inflight: InflightQueue | undefined;
  readonly #finding: InflightFinding | undefined;
  /** Per head: taken, and not shown to the driver as used. A driver that makes it available again meanwhile is broken. */
  readonly #inFlight: Uint8Array;
  /** Heads of the used entries that were put and not yet published, each at its place in the ring. */
  readonly #unpublished: Uint16Array;
  /** Heads that an earlier queue took and left unanswered, in order, and how many of them were taken again. */
  readonly #again: readonly number[];
  #againTaken = 0;
  #inFlightCount = 0;
  readonly #descriptors: DescriptorTable;
  #available!: Uint16Array;
  #used16!: Uint16Array;
  #used32!: Uint32Array;
  /** Next available entry to take. */
  #nextAvailable: number;
  #takenAt = TAKEN_AGAIN;
  /** Next used entry to write, and the index that the driver has seen. */
  #nextUsed = 0;
  #published = 0;
  /** The driver was called, or did not want to be, up to here; unknown until the first time. */
  #called = -1;
  #fault: string | undefined;

  /** Throws a RangeError for a size that is none: the caller has checked it; `device` where region or hand-over contradict the rings. */
  constructor(options: SplitQueueOptions) {
    if (!isQueueSize(options.size)) throw new RangeError(`a queue cannot have ${options.size} entries`);
    this.index = options.index;
    this.size = options.size;
    this.#mask = options.size - 1;
    this.#descriptors = new DescriptorTable(options.size, options.indirect);
    this.#eventIndex = options.eventIndex;
    this.#inFlight = new Uint8Array(options.size);
    this.#unpublished = new Uint16Array(options.size);
    this.#nextAvailable = options.base;
    this.remap(options.memory);
    this.#nextUsed = Atomics.load(this.#used16, 1);
    this.#published = this.#nextUsed;
    this.#inflight = options.inflight;
    this.#finding = this.#examine(options);
    this.#again = this.#finding !== undefined && 'heads' in this.#finding ? this.#finding.heads : [];
    if (!this.recovered) return;
    // Front-ends disagree about the base after a lost connection: here it is known.
    this.#nextAvailable = (this.#nextUsed + this.#again.length) & 0xffff;
    for (const head of this.#again) this.resume(head);
  }

  /** It is known what an earlier queue left unanswered, perhaps nothing. */
  get recovered(): boolean {
    return this.#finding?.name === 'in-use' || this.#finding?.name === 'handed-over';
  }

  /** What is in flight is noted in a region. */
  get tracked(): boolean {
    return this.#inflight !== undefined;
  }

  /** Chains of an earlier queue that are still to be taken again. */
  get waitingAgain(): number {
    return this.#again.length - this.#againTaken;
  }

  /** Where it stands, with these `heads` taken and unanswered, in the order in which they were taken, beside those that are still to be taken again. */
  leave(heads: readonly number[]): QueueHandOver {
    const unfinished = [...heads, ...this.#again.slice(this.#againTaken)];
    return { fetched: this.#nextAvailable, usedIndex: this.#nextUsed, heads: unfinished, lastBatch: [] };
  }

  /** Whether exactly these are the entries after the used index, which a front-end takes again that goes on from there. */
  followUsed(heads: readonly number[]): boolean {
    return heads.every((_, i) => heads.includes(this.#available[2 + ((this.#nextUsed + i) & this.#mask)]));
  }

  /** The queue is going to be served. Once, before the first `take`. */
  begin(): void {
    if (this.#finding !== undefined) this.#inflight?.begin(this.#finding, this.#nextUsed);
  }

  /** The same queue at another place: the memory table changed. */
  remap(memory: QueueMemory): void {
    this.#descriptors.remap(memory.map, memory.descriptors.region, memory.descriptors.offset);
    this.#available = new Uint16Array(memory.available, 0, availableBytes(this.size) / 2);
    this.#used16 = new Uint16Array(memory.used, 0, usedBytes(this.size) / 2);
    this.#used32 = new Uint32Array(memory.used, 0, 1 + 2 * this.size);
  }

  /** What the driver did wrong, in words for people; the queue gives no chain any more. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** The index of the next entry to take: what GET_VRING_BASE answers. */
  get nextAvailable(): number {
    return this.#nextAvailable;
  }

  get usedIndex(): number {
    return this.#nextUsed;
  }

  /** Chains that were taken and not put back. */
  get inFlight(): number {
    return this.#inFlightCount;
  }

  /** Puts the queue out of use; for what a layer above finds wrong with a chain, too. The first reason stays. */
  fail(reason: string): void {
    this.#fault ??= `queue ${this.index}, ${reason}`;
  }

  /** Where in the available ring the chain that was taken last has its entry, or TAKEN_AGAIN. */
  get takenAt(): number {
    return this.#takenAt;
  }

  /** Entries that wait to be taken, again or for the first time. */
  pending(): number {
    if (this.#fault !== undefined) return 0;
    return this.waitingAgain + this.#pendingNew();
  }

  #pendingNew(): number {
    const index = Atomics.load(this.#available, 1);
    const count = (index - this.#nextAvailable) & 0xffff;
    if (count > this.size) {
      this.fail(`available index ${index} is ${count} entries ahead of ${this.#nextAvailable}, the queue has ${this.size}`);
      return 0;
    }
    return count;
  }

  /** Takes the next chain. False where there is none, or where the driver did something wrong: see `fault`. */
  take(chain: Chain): boolean {
    if (this.pending() === 0) return false;
    if (this.#againTaken < this.#again.length) return this.#takeAgain(chain);
    const head = this.#available[2 + (this.#nextAvailable & this.#mask)];
    if (head >= this.size) {
      this.fail(`available entry ${this.#nextAvailable & this.#mask}: head ${head} is not in the queue of ${this.size}`);
      return false;
    }
    if (this.#inFlight[head] !== 0) {
      this.fail(`head ${head}: made available again before it was used`);
      return false;
    }
    if (!this.#walk(head, chain)) return false;
    this.#inFlight[head] = 1;
    this.#inFlightCount++;
    this.#inflight?.mark(head);
    this.#takenAt = this.#nextAvailable;
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    return true;
  }

  /** The chain is read anew from guest memory, where it is until it is answered. */
  #takeAgain(chain: Chain): boolean {
    if (!this.#walk(this.#again[this.#againTaken], chain)) return false;
    this.#againTaken++;
    this.#takenAt = TAKEN_AGAIN;
    return true;
  }

  /** Gives back the chain that was taken last, which was TAKEN_AGAIN. */
  untakeAgain(): void {
    this.#againTaken--;
  }

  /** Gives the chain that was taken last back to the available ring, as if it had not been looked at. In reverse order of taking; not TAKEN_AGAIN. */
  untake(head: number): void {
    this.#inflight?.clear(head);
    this.#inFlight[head] = 0;
    this.#inFlightCount--;
    this.#nextAvailable = (this.#nextAvailable - 1) & 0xffff;
  }

  /** Notes that a chain below `base` is still in flight: it was taken before the queue was stopped and goes on now. */
  resume(head: number): void {
    this.#inFlight[head] = 1;
    this.#inFlightCount++;
  }

  /** Puts a chain into the used ring; the driver sees it after `publish`. `length` is the count of bytes written into it. */
  put(head: number, length: number): void {
    const place = this.#nextUsed & this.#mask;
    const entry = 1 + 2 * place;
    this.#used32[entry] = head;
    this.#used32[entry + 1] = length;
    this.#unpublished[place] = head;
    this.#inflight?.link(head);
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#inFlightCount--;
  }

  /** Shows the driver everything that was put. True where it wants a call. */
  publish(): boolean {
    const index = this.#nextUsed;
    if (index === this.#published) return false;
    Atomics.store(this.#used16, 1, index);
    this.#settle(index);
    if (!this.#eventIndex) return (Atomics.load(this.#available, 0) & NO_INTERRUPT) === 0;
    const event = Atomics.load(this.#available, 2 + this.size);
    const called = this.#called;
    this.#called = index;
    return called === -1 || passed(event, index, called);
  }

  /** The driver has them: their heads are its own again. */
  #settle(index: number): void {
    for (let used = this.#published; used !== index; used = (used + 1) & 0xffff) {
      const head = this.#unpublished[used & this.#mask];
      this.#inFlight[head] = 0;
      this.#inflight?.clear(head);
    }
    this.#inflight?.settle(index);
    this.#published = index;
  }

  /** No kicks, please, while the queue is being emptied anyway. With EVENT_IDX there is nothing to say: the event is in the past. */
  disarm(): void {
    if (!this.#eventIndex) Atomics.store(this.#used16, 0, NO_NOTIFY);
  }

  /** Asks for a kick with the next entry, then looks once more: false where one came in between and there will be no kick for it. */
  arm(): boolean {
    if (this.#eventIndex) Atomics.store(this.#used16, 2 + 4 * this.size, this.#nextAvailable);
    else Atomics.store(this.#used16, 0, 0);
    return this.pending() === 0;
  }

  #examine({ base, handOver }: SplitQueueOptions): InflightFinding | undefined {
    const start = { size: this.size, base, usedIndex: this.#nextUsed, availableIndex: Atomics.load(this.#available, 1) };
    const noted = this.#inflight?.examine(start);
    if (handOver === undefined || this.#inflight?.inUse) return checked(noted, 'the in-flight region');
    return checked(examineHandOver(handOver, start), 'what the last host handed over');
  }

  /** Reads the descriptors from `head` on into `chain`; false after a fault. */
  #walk(head: number, chain: Chain): boolean {
    const reason = this.#descriptors.walk(head, chain);
    if (reason !== undefined) this.fail(reason);
    return reason === undefined;
  }
}

function checked(finding: InflightFinding | undefined, what: string): InflightFinding | undefined {
  if (finding?.name !== 'mismatch') return finding;
  throw new NetbusError(
    'device',
    `${what} and the ring do not fit together (${finding.reason}): the guest waits, so that nothing is done twice, until the VM is reset`,
  );
}

/** Whether `event` lies in what was put since the last call (2.7.10.1: vring_need_event). */
function passed(event: number, index: number, before: number): boolean {
  return ((index - event - 1) & 0xffff) < ((index - before) & 0xffff);
}
