/**
 * A disk behind vhost-user rings. Chains become rows of one message table, batches of rows go to the device, and its replies into the used
 * rings. Nothing is made per request: each is a row.
 *
 * One look takes all that is there, round all rings, then pushes once. A batch of replies is shown with one index and at most one call
 * per ring. Where the device takes no more, what it left stays in the batch, and the guest's rings are the buffer.
 */
import { Batch, type Replies } from '../../device/batch.ts';
import type { Device } from '../../device/device.ts';
import { checkDiskRequest, DiskKind, DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { FailedDevice } from '../../device/failed-device.ts';
import { DISK_SERIAL_BYTES_MAX, type DiskProfile } from '../../device/profile.ts';
import { scatter } from '../../device/segments.ts';
import type { Source } from '../../device/source.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { hasFeature } from '../../protocols/vhost-user/index.ts';
import {
  BLOCK_CONFIG_WRITEBACK_OFFSET,
  BlockFeature,
  BlockRequest,
  BlockRequestReader,
  blockConfigOf,
  blockFeatureBits,
  encodeBlockConfig,
  isBlockRequest,
} from '../../protocols/virtio-blk/index.ts';
import { Chain, type SplitQueue } from '../../protocols/virtqueue/index.ts';
import { DeviceGuest } from './device-guest.ts';
import type { DeviceModel } from './device-model.ts';
import { type DiskStatistics, diskOperations } from './disk-statistics.ts';
import { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';

/** Chains taken from one ring before the next one has its turn. */
const RING_SHARE = 16;
/** How long a VMM that has gone is waited for: its guest is dead, or will go on from its used index. */
const DISCONNECT_QUIESCE_MS_MAX = 1_000;

const GET_ID_OPERATION = diskOperations.indexOf('get-id');
const OTHER_OPERATION = diskOperations.indexOf('other');

/** The choice between write-back and write-through; it outlives connections. */
export interface WriteCache {
  enabled: boolean;
  /** The driver chose. */
  onChange(enabled: boolean): void;
}

export interface DiskModelOptions {
  readonly source: Source;
  /** Most requests of the guest that are held at a time. */
  readonly depth: number;
  readonly rings: readonly Ring[];
  readonly clock: Clock;
  readonly log: Log;
  readonly statistics: DiskStatistics;
  readonly writeCache: WriteCache;
  /** The bound of a stop. */
  readonly quiesceMsMax: number;
  /** The last use of the source is over. */
  readonly previous: Promise<void>;
}

type State =
  /** No ring has started. */
  | { readonly name: 'idle' }
  | { readonly name: 'open'; readonly device: Device; readonly guest: DeviceGuest }
  /** Being brought to rest; `done` resolves when nothing more comes from it. */
  | { readonly name: 'quiescing'; readonly done: Promise<void> }
  /** At rest; the next one is opened when it is closed. */
  | { readonly name: 'closing' };

export class DiskModel implements DeviceModel {
  readonly features: bigint;
  readonly #options: DiskModelOptions;
  readonly #rows: RequestRows;
  readonly #batch: Batch;
  readonly #chain = new Chain();
  readonly #reader = new BlockRequestReader();
  #profile: DiskProfile;
  #state: State = { name: 'idle' };
  /** Resolves when the last device is closed; the next is opened after it. */
  #closed: Promise<void>;
  /** The device did not take the whole batch and owes a `ready`. */
  #blocked = false;
  /** Rows that no device holds: cut off, oldest first, waiting for their ring to go on. */
  #kept: number[] = [];
  /** The device was lost during this use: errors are all that is left. */
  #lost = false;
  #ended = false;
  /** No write cache: the driver knows no flush, or chose so. */
  #durable = true;
  #offersDiscard = false;
  #offersWriteZeroes = false;
  #nextRing = 0;
  /** One bit per ring with entries that the driver has not been shown. */
  #touched = 0;
  #scheduled = false;
  /** What is left of the time that stops may take, until a ring starts again. */
  #waitLeftMs: number;
  /** Someone waits for rows to be answered. */
  #onProgress: (() => void) | undefined;

  constructor(options: DiskModelOptions) {
    this.#options = options;
    this.#rows = new RequestRows(options.depth, options.rings.length);
    this.#batch = new Batch(this.#rows.table);
    this.#closed = options.previous;
    this.#waitLeftMs = options.quiesceMsMax;
    this.#profile = options.source.profile;
    this.features = blockFeatureBits(this.#profile);
    this.#offersDiscard = hasFeature(this.features, BlockFeature.discard);
    this.#offersWriteZeroes = hasFeature(this.features, BlockFeature.writeZeroes);
  }

  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Requests without an answer. */
  get inFlight(): number {
    return this.#rows.count;
  }

  /** The capacity has changed. */
  profileChanged(profile: DiskProfile): void {
    this.#profile = profile;
  }

  readConfig(): Uint8Array {
    return encodeBlockConfig(blockConfigOf(this.#profile, this.#options.writeCache.enabled));
  }

  writeConfig(offset: number, data: Uint8Array): string | undefined {
    if (!hasFeature(this.features, BlockFeature.configWce)) return 'this disk has nothing that a driver may write';
    if (offset !== BLOCK_CONFIG_WRITEBACK_OFFSET || data.length !== 1) return 'a driver may write the write cache byte only';
    const enabled = data[0] !== 0;
    const { writeCache } = this.#options;
    if (enabled !== writeCache.enabled) {
      writeCache.enabled = enabled;
      writeCache.onChange(enabled);
    }
    this.#chooseDurability();
    return undefined;
  }

  #accepted = 0n;

  featuresAccepted(features: bigint): void {
    this.#accepted = features;
    this.#chooseDurability();
  }

  /** virtio 1.2, 5.2.6.2: without FLUSH the driver cannot ask for stable storage, so each write must be there when it is answered. */
  #chooseDurability(): void {
    this.#durable = !hasFeature(this.#accepted, BlockFeature.flush) || !this.#options.writeCache.enabled;
  }

  ringStarted(ring: Ring): void {
    this.#waitLeftMs = this.#options.quiesceMsMax;
    switch (this.#state.name) {
      case 'idle':
        this.#openAfterClosed();
        break;
      case 'open':
        this.#adopt(ring);
        this.#pump();
        break;
      case 'quiescing':
      case 'closing':
        break; // It is opened again after that, for all rings that have started.
    }
  }

  wake(): void {
    this.#pump();
  }

  // --- the data path ------------------------------------------------------------------------------------------------

  /** Takes all that is there and pushes it. Not from within the device's own call: see #schedule. */
  #pump(): void {
    if (this.#state.name !== 'open') return;
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
      if (this.#arm()) break;
    }
    this.#publish();
    this.#onProgress?.();
  }

  #push(): void {
    if (this.#batch.count === 0 || this.#state.name !== 'open') return;
    this.#batch.drop(this.#state.device.push(this.#batch));
    this.#blocked = this.#batch.count > 0;
  }

  /** Round the rings until they are empty, or rows or turns run out. Returns the turns that are left. */
  #takeAll(nowMs: number, left: number): number {
    const { rings } = this.#options;
    for (let empty = 0; empty < rings.length && left > 0 && this.#rows.free.count > 0 && !this.#ended; ) {
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
      queue.disarm();
      while (taken < most && this.#rows.free.count > 0 && queue.take(this.#chain)) {
        this.#accept(ring, queue, nowMs);
        taken++;
      }
    }
    if (queue.fault !== undefined) this.#breakRing(ring, queue.fault);
    return taken;
  }

  /** One chain: into the batch, or answered at once. */
  #accept(ring: Ring, queue: SplitQueue, nowMs: number): void {
    const chain = this.#chain;
    if (!isBlockRequest(chain)) {
      queue.untake(chain.head);
      queue.fail(
        `head ${chain.head}: no room for a header and a status (${chain.readableBytes} readable, ${chain.writableBytes} writable bytes)`,
      );
      return;
    }
    const { table } = this.#rows;
    const row = this.#rows.assign(ring, queue, chain, nowMs);
    let status = this.#reader.read(chain, table, row, this.#durable);
    const { type } = this.#reader;
    this.#rows.operation[row] = operationOf(type);
    if (type === BlockRequest.getId) {
      this.#answerId(row);
      return;
    }
    if (
      (type === BlockRequest.discard && !this.#offersDiscard) ||
      (type === BlockRequest.writeZeroes && !this.#offersWriteZeroes)
    ) {
      status = DiskStatus.unsupported;
    }
    if (status === DiskStatus.ok) status = checkDiskRequest(table, row, this.#profile);
    if (status === DiskStatus.ok) this.#batch.add(row);
    else this.#finish(row, status, 0, nowMs);
  }

  /** virtio 1.2, 5.2.6: the identity has 20 bytes, without a terminator where it fills them. */
  #answerId(row: number): void {
    const chain = this.#chain;
    const segments = this.#rows.table.segments(row);
    const length = Math.min(DISK_SERIAL_BYTES_MAX, chain.writableBytes - 1);
    const id = new Uint8Array(DISK_SERIAL_BYTES_MAX);
    id.set(new TextEncoder().encode(this.#profile.serial).subarray(0, DISK_SERIAL_BYTES_MAX));
    chain.appendWritable(segments, 0, length);
    scatter(segments, 0, id, 0, length);
    this.#rows.table.inLength[row] = chain.writableBytes - 1;
    this.#finish(row, DiskStatus.ok, length, this.#rows.startedMs[row]);
  }

  #finish(row: number, status: number, written: number, nowMs: number): void {
    const rows = this.#rows;
    const ok = status === DiskStatus.ok;
    const { table } = rows;
    // The status byte comes after the room for data: it counts where that is filled.
    const used = ok && written < table.inLength[row] ? written : ok ? written + 1 : 1;
    const operation = rows.operation[row];
    const bytes = operation < OTHER_OPERATION && operation !== GET_ID_OPERATION ? table.extent[row] : 0;
    this.#options.statistics.record(operation, bytes, !ok, (nowMs - rows.startedMs[row]) / 1000);
    this.#touched |= 1 << rows.ring[row];
    rows.answer(row, status, used);
  }

  /** Shows the driver what was answered: one index and at most one call per ring. */
  #publish(): void {
    for (let touched = this.#touched; touched !== 0; touched &= touched - 1) {
      const ring = this.#options.rings[31 - Math.clz32(touched & -touched)];
      if (ring.queue?.publish()) ring.call();
    }
    this.#touched = 0;
  }

  /** Asks all rings for a kick; false where something came in between. */
  #arm(): boolean {
    let idle = true;
    for (const ring of this.#options.rings) {
      const queue = ring.open;
      if (queue !== undefined && !queue.arm()) idle = false;
    }
    return idle;
  }

  #breakRing(ring: Ring, reason: string): void {
    this.#options.log.warn(
      { ring: ring.index, reason },
      `the guest's driver broke ring ${ring.index}, which takes nothing more: ${reason}`,
    );
    ring.break(reason);
  }

  /** From the device. It may push nothing from inside its own call, so the pump runs in a microtask. */
  #replied(replies: Replies): void {
    const nowMs = this.#options.clock.now();
    for (let i = 0; i < replies.count; i++) this.#finish(replies.rows[i], replies.statuses[i], replies.lengths[i], nowMs);
    this.#publish();
    this.#onProgress?.();
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    this.#pump();
  };

  // --- the device's life --------------------------------------------------------------------------------------------

  #openAfterClosed(): void {
    this.#state = { name: 'closing' };
    void this.#closed.then(() => {
      if (this.#state.name !== 'closing') return;
      if (this.#ended || !this.#options.rings.some((ring) => ring.started)) {
        this.#state = { name: 'idle' };
        this.#lost = false;
      } else {
        this.#open();
      }
    });
  }

  #open(): void {
    const device = this.#newDevice();
    const guest = new DeviceGuest(this.#rows.table, {
      reply: (replies) => this.#replied(replies),
      ready: () => {
        this.#blocked = false;
        this.#schedule();
      },
      lost: (cause) => this.#deviceLost(cause),
    });
    this.#state = { name: 'open', device, guest };
    this.#blocked = false;
    device.start(guest);
    for (const ring of this.#options.rings) if (ring.started) this.#adopt(ring);
    this.#pump();
  }

  #newDevice(): Device {
    const { source, depth, log } = this.#options;
    if (this.#lost) return new FailedDevice(this.#profile, depth, DiskStatus.ioError);
    try {
      return source.open();
    } catch (thrown) {
      const cause = NetbusError.from(thrown);
      log.error({ code: cause.code }, `the disk cannot be opened and answers with errors: ${cause.message}`);
      return new FailedDevice(this.#profile, depth, DiskStatus.ioError);
    }
  }

  /**
   * A ring has started, or the device is new: what was cut off goes first, in order. Only where the ring goes on from where it had
   * stopped, by its own index and by the guest's used index; any other start is a new life of the guest, for which it never was.
   */
  #adopt(ring: Ring): void {
    const queue = ring.queue!;
    const point = ring.stopPoint;
    const goesOn =
      point !== undefined &&
      point.size === queue.size &&
      point.nextAvailable === queue.nextAvailable &&
      point.usedIndex === queue.usedIndex;
    const rest: number[] = [];
    for (const row of this.#kept) {
      if (this.#rows.ring[row] !== ring.index) rest.push(row);
      else if (this.#rows.isOf(row, queue)) this.#batch.add(row);
      else if (goesOn) {
        this.#rows.moveTo(row, queue);
        this.#batch.add(row);
      } else this.#rows.release(row);
    }
    this.#kept = rest;
    ring.stopPoint = undefined;
  }

  #deviceLost(cause: NetbusError): void {
    if (this.#state.name !== 'open') return;
    this.#options.log.error(
      { code: cause.code },
      `the disk is lost and answers with errors until the guest stops using it: ${cause.message}`,
    );
    this.#lost = true;
    void this.#quiesce(AbortSignal.abort());
  }

  async stopRing(ring: Ring): Promise<void> {
    if (this.#state.name === 'quiescing') await this.#state.done;
    if (this.#state.name !== 'open') return;
    this.#untake(ring);
    const { clock, log, rings } = this.#options;
    const begun = clock.now();
    const { signal, cancel } = abortAfter(clock, this.#waitLeftMs);
    const isLast = !rings.some((other) => other !== ring && other.started);
    // What could not be given back has yet to be pushed; a device that quiesces would not take it any more.
    const answered = () => this.#rows.inFlight[ring.index] === 0;
    const unpushed = () => !this.#batch.rows.subarray(0, this.#batch.count).some((row) => this.#rows.ring[row] === ring.index);
    const clean = await this.#until(isLast ? unpushed : answered, signal);
    if (this.#state.name === 'open' && (isLast || !clean)) await this.#quiesce(signal);
    cancel();
    const waitedMs = clock.now() - begun;
    this.#waitLeftMs = Math.max(0, this.#waitLeftMs - waitedMs);
    const unfinished = this.#rows.inFlight[ring.index];
    if (unfinished > 0) {
      log.warn(
        { ring: ring.index, unfinished, waitedMs },
        `ring ${ring.index} was stopped with ${unfinished} requests unfinished, which are kept`,
      );
    }
  }

  /** Gives back what was taken and has not been pushed: the guest's ring holds it as well as we do. */
  #untake(ring: Ring): void {
    const batch = this.#batch;
    let removed = 0;
    for (let i = batch.count - 1; i >= 0; i--) {
      const row = batch.rows[i];
      if (this.#rows.ring[row] !== ring.index) continue;
      if (!this.#rows.untake(row)) break;
      batch.rows.copyWithin(i, i + 1, batch.count - removed);
      removed++;
    }
    batch.count -= removed;
  }

  /** Waits until `done`, looking after each step of progress. False where the signal came first. */
  #until(done: () => boolean, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const look = () => {
        if (!done() && !signal.aborted && this.#state.name === 'open') return;
        signal.removeEventListener('abort', look);
        this.#onProgress = undefined;
        resolve(done());
      };
      this.#onProgress = look;
      signal.addEventListener('abort', look);
      look();
    });
  }

  /** Brings the device to rest and closes it; what it did not finish is kept. Only while open. */
  async #quiesce(signal: AbortSignal): Promise<void> {
    const state = this.#state;
    if (state.name !== 'open') return;
    const done = state.device.quiesce(signal).then((quiesced) => {
      state.guest.silence();
      const unfinished = quiesced.outcome === 'cut' ? quiesced.unfinished : [];
      this.#kept.push(...unfinished, ...this.#batch.rows.subarray(0, this.#batch.count));
      this.#batch.clear();
      this.#closed = state.device.close().catch((error: unknown) => {
        this.#options.log.error({ error: String(error) }, 'closing the disk failed');
      });
      this.#openAfterClosed();
    });
    this.#state = { name: 'quiescing', done };
    this.#onProgress?.();
    await done;
  }

  async end(): Promise<void> {
    this.#ended = true;
    const { signal, cancel } = abortAfter(this.#options.clock, DISCONNECT_QUIESCE_MS_MAX);
    if (this.#state.name === 'quiescing') await this.#state.done;
    await this.#quiesce(signal);
    cancel();
    const kept = this.#kept;
    this.#kept = [];
    // The device may use guest memory until it is closed.
    this.#closed = this.#closed.then(() => {
      for (const row of kept) this.#rows.release(row);
    });
  }
}

/** The index in `diskOperations` of a request type. */
function operationOf(type: number): number {
  switch (type) {
    case BlockRequest.in:
      return DiskKind.read - 1;
    case BlockRequest.out:
      return DiskKind.write - 1;
    case BlockRequest.flush:
      return DiskKind.flush - 1;
    case BlockRequest.discard:
      return DiskKind.discard - 1;
    case BlockRequest.writeZeroes:
      return DiskKind.writeZeroes - 1;
    case BlockRequest.getId:
      return GET_ID_OPERATION;
    default:
      return OTHER_OPERATION;
  }
}
