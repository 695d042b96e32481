/**
 * The data path of a device whose requests are chains: from the rings to the device in batches, and its replies back into the used rings. Nothing
 * is made per request: each is a row.
 *
 * One look takes all that is there, round all rings, then pushes once. A batch of replies is shown with one index and at most one call
 * per ring. Where the device takes no more, what it left stays in the batch, and the guest's rings are the buffer.
 */
import { Batch, type Replies } from '../../device/batch.ts';
import type { Device } from '../../device/device.ts';
import type { BusyPoll } from '../../lib/busy-poll.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { Chain, type SplitQueue, TAKEN_AGAIN } from '../../protocols/virtqueue/index.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';

/** Chains taken from one ring before the next one has its turn. */
const RING_SHARE = 16;

/** What `ChainReader.read` returns for a request that goes to the device. */
export const TO_DEVICE = -1;

/** What a class makes of a chain. */
export interface ChainReader {
  /** Why the chain cannot even be answered, or undefined. */
  fault(chain: Chain): string | undefined;
  /** Fills the row. Returns TO_DEVICE, or the status to answer at once, with `written` bytes. */
  read(chain: Chain, row: number): number;
  /** Of the last `read` that is answered at once. */
  readonly written: number;
  /** The row is answered: counts it, and returns the used length. */
  answered(row: number, status: number, written: number, nowMs: number): number;
}

export interface RingPumpOptions {
  readonly rows: RequestRows;
  readonly rings: readonly Ring[];
  readonly dirtyLog: DirtyLog;
  readonly reader: ChainReader;
  readonly clock: Clock;
  readonly log: Log;
  /** For the guest's next request. */
  readonly requestPoll: BusyPoll;
}

export class RingPump {
  /** After each step: something was pushed or answered. */
  onProgress: (() => void) | undefined;
  /** Once: when the device takes something, or no ring that may be taken from has anything for it. */
  onServed: ((nowMs: number) => void) | undefined;
  /** When the device's last answer came. */
  repliedMs = 0;
  readonly #options: RingPumpOptions;
  readonly #rows: RequestRows;
  readonly #rings: readonly Ring[];
  readonly #batch: Batch;
  readonly #chain = new Chain();
  #device: Device | undefined;
  /** The device did not take the whole batch and owes a `ready`. */
  #blocked = false;
  #nextRing = 0;
  /** One bit per ring with entries that the driver has not been shown. */
  #touched = 0;
  #scheduled = false;

  constructor(options: RingPumpOptions) {
    this.#options = options;
    this.#rows = options.rows;
    this.#rings = options.rings;
    this.#batch = new Batch(options.rows.table);
  }

  /** From here on requests go to `device`. */
  attach(device: Device): void {
    this.#device = device;
    this.#blocked = false;
  }

  /** Nothing more is taken or pushed; replies still come through `replied`. */
  detach(): void {
    this.#device = undefined;
  }

  /** Puts a row in line that was taken earlier. */
  add(row: number): void {
    this.#batch.add(row);
  }

  /** Takes all that is there and pushes it. Not from within the device's own call: see `schedule`. */
  run(): void {
    if (this.#device === undefined) return;
    const nowMs = this.#options.clock.now();
    // A driver that is fast, or hostile, has this many turns before others have theirs.
    let left = this.#rows.table.capacity;
    while (!this.#blocked) {
      left = this.#takeAll(nowMs, left);
      this.#push();
      if (this.#blocked || this.#rows.free.count === 0) break; // `ready`, or a reply, goes on from here.
      if (left === 0) {
        setImmediate(this.#turn);
        break;
      }
      if (this.#arm()) {
        // While it waits for replies, those come first.
        if (this.#rows.count === 0) this.#options.requestPoll.begin();
        if (this.onServed !== undefined && this.#rings.some(({ open }) => open !== undefined)) this.#served();
        break;
      }
    }
    this.#publish();
    this.onProgress?.();
  }

  /** Runs in a microtask: for calls of the device, from inside which nothing may be pushed. */
  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    this.run();
  };

  /** The device has room again. */
  ready(): void {
    this.#blocked = false;
    this.schedule();
  }

  /** The device's answers, while attached or being brought to rest. */
  replied(replies: Replies): void {
    const nowMs = this.#options.clock.now();
    this.repliedMs = nowMs;
    for (let i = 0; i < replies.count; i++) this.#finish(replies.rows[i], replies.statuses[i], replies.lengths[i], nowMs);
    this.#publish();
    this.onProgress?.();
    this.schedule();
  }

  /** Rows of the ring that were taken and not pushed. */
  hasUnpushed(ring: Ring): boolean {
    for (let i = 0; i < this.#batch.count; i++) if (this.#rows.ring[this.#batch.rows[i]] === ring.index) return true;
    return false;
  }

  /** Gives back what was taken and not pushed, as far as nothing later was answered: the guest's ring holds it as well as we do. */
  untake(ring: Ring): void {
    const { rows, count } = this.#batch;
    let end = count;
    for (let i = count - 1; i >= 0; i--) {
      if (this.#rows.ring[rows[i]] !== ring.index) continue;
      if (!this.#rows.untake(rows[i])) break;
      rows.copyWithin(i, i + 1, end);
      end--;
    }
    this.#batch.count = end;
  }

  /** Empties the batch: what was in it, in order. */
  takeUnpushed(): number[] {
    const rows = [...this.#batch.rows.subarray(0, this.#batch.count)];
    this.#batch.clear();
    return rows;
  }

  #push(): void {
    if (this.#batch.count === 0 || this.#device === undefined) return;
    const taken = this.#device.push(this.#batch);
    this.#batch.drop(taken);
    this.#blocked = this.#batch.count > 0;
    if (taken > 0) this.#served();
  }

  #served(): void {
    this.onServed?.(this.#options.clock.now());
    this.onServed = undefined;
  }

  /** Round the rings until they are empty, or rows or turns run out. Returns the turns that are left. */
  #takeAll(nowMs: number, left: number): number {
    const rings = this.#rings;
    for (let empty = 0; empty < rings.length && left > 0 && this.#rows.free.count > 0; ) {
      const ring = rings[this.#nextRing];
      this.#nextRing = (this.#nextRing + 1) % rings.length;
      const taken = this.#takeFrom(ring, nowMs, Math.min(left, RING_SHARE));
      left -= taken;
      empty = taken === 0 ? empty + 1 : 0;
    }
    return left;
  }

  #takeFrom(ring: Ring, nowMs: number, most: number): number {
    const queue = ring.open;
    if (queue === undefined) return 0;
    let taken = 0;
    if (queue.pending() > 0) {
      this.#options.requestPoll.end();
      queue.disarm();
      while (taken < most && this.#rows.free.count > 0 && queue.take(this.#chain)) {
        this.#accept(ring, queue, nowMs);
        taken++;
      }
    }
    if (queue.fault !== undefined) this.#break(ring, queue.fault);
    return taken;
  }

  /** One chain: into the batch, or answered at once. */
  #accept(ring: Ring, queue: SplitQueue, nowMs: number): void {
    const { reader } = this.#options;
    const chain = this.#chain;
    const fault = reader.fault(chain);
    if (fault !== undefined) {
      if (queue.takenAt === TAKEN_AGAIN) queue.untakeAgain();
      else queue.untake(chain.head);
      queue.fail(`head ${chain.head}: ${fault}`);
      return;
    }
    const row = this.#rows.assign(ring, queue, chain, nowMs);
    const status = reader.read(chain, row);
    if (status === TO_DEVICE) this.#batch.add(row);
    else this.#finish(row, status, reader.written, nowMs);
  }

  #finish(row: number, status: number, written: number, nowMs: number): void {
    const used = this.#options.reader.answered(row, status, written, nowMs);
    this.#touched |= 1 << this.#rows.ring[row];
    this.#rows.answer(row, status, used);
  }

  /** Shows the driver what was answered: one index and at most one call per ring. */
  #publish(): void {
    for (let touched = this.#touched; touched !== 0; touched &= touched - 1) {
      const ring = this.#rings[31 - Math.clz32(touched & -touched)];
      const call = ring.queue?.publish();
      // Before the call, after which nothing may be written for long.
      ring.noteUsed(this.#options.dirtyLog);
      if (call) ring.call();
    }
    this.#touched = 0;
  }

  /** Asks all rings for a kick; false where something came in between. */
  #arm(): boolean {
    let idle = true;
    for (const ring of this.#rings) {
      const queue = ring.open;
      if (queue === undefined) continue;
      if (!queue.arm()) idle = false;
      ring.noteUsed(this.#options.dirtyLog);
    }
    return idle;
  }

  #break(ring: Ring, reason: string): void {
    const { log } = this.#options;
    log.warn({ ring: ring.index, reason }, `the guest's driver broke ring ${ring.index}, which takes nothing more: ${reason}`);
    ring.break(reason);
  }
}
