/**
 * A guest's ring as the frontend of one host serves it, by what the VMM's in-flight region and the last host say: the real ones decide which requests
 * are to be done, as in src/protocols/virtqueue/split-queue.ts, without a guest's memory.
 */
import { NetbusError } from '../../src/device/errors.ts';
import type { QueueHandOver } from '../../src/device/hand-over.ts';
import { examineHandOver } from '../../src/protocols/virtqueue/hand-over.ts';
import type { InflightFinding, InflightQueue } from '../../src/protocols/virtqueue/inflight.ts';
import { type GuestRing, RING_SIZE } from './ring.ts';

/** What a VMM brings along when it starts a ring. */
export interface RingStart {
  readonly ring: GuestRing;
  readonly region: InflightQueue;
  /** Next entry to take, as the VMM knows it. */
  readonly base: number;
}

export class SimQueue {
  readonly ring: GuestRing;
  readonly #region: InflightQueue;
  readonly #finding: InflightFinding;
  readonly #again: readonly number[];
  #againTaken = 0;
  #nextAvailable: number;

  /** `handOver` as in SplitQueueOptions. Throws `device` where region or hand-over contradict the ring. */
  constructor({ ring, region, base }: RingStart, handOver: QueueHandOver | null | undefined) {
    this.ring = ring;
    this.#region = region;
    const { usedIndex, availableIndex } = ring;
    const start = { size: RING_SIZE, base, usedIndex, availableIndex };
    const knowsRegion = handOver === undefined || region.inUse;
    this.#finding = knowsRegion ? region.examine(start) : examineHandOver(handOver, start);
    if (this.#finding.name === 'mismatch') throw new NetbusError('device', this.#finding.reason);
    this.#again = 'heads' in this.#finding ? this.#finding.heads : [];
    this.#nextAvailable = this.#finding.name === 'new' ? base : (usedIndex + this.#again.length) & 0xffff;
    region.begin(this.#finding, usedIndex);
  }

  get nextAvailable(): number {
    return this.#nextAvailable;
  }

  /** What another host left unfinished here. */
  get handedOver(): number {
    return this.#finding.name === 'handed-over' ? this.#again.length : 0;
  }

  /** What was taken before goes first. Undefined where there is nothing. */
  take(): { head: number; isAgain: boolean } | undefined {
    if (this.#againTaken < this.#again.length) return { head: this.#again[this.#againTaken++], isAgain: true };
    if (this.#nextAvailable === this.ring.availableIndex) return undefined;
    const head = this.ring.headAt(this.#nextAvailable);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#region.mark(head);
    return { head, isAgain: false };
  }

  /** Gives the one that was taken last back to the ring; in reverse order. */
  untake(head: number): void {
    this.#region.clear(head);
    this.#nextAvailable = (this.#nextAvailable - 1) & 0xffff;
  }

  put(head: number, status: number, values: readonly number[]): void {
    this.#region.link(head);
    this.#region.clear(head);
    this.#region.settle((this.ring.usedIndex + 1) & 0xffff);
    this.ring.use(head, status, values);
  }

  /** Where it stands: `heads` were taken and have no answer. */
  leave(heads: readonly number[]): QueueHandOver {
    const unfinished = [...heads, ...this.#again.slice(this.#againTaken)];
    return { fetched: this.#nextAvailable, usedIndex: this.ring.usedIndex, heads: unfinished, lastBatch: [] };
  }
}
