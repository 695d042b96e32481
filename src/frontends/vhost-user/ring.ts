/** One ring of a vhost-user device: what the front-end has said about it, and where it is. */
import { readlinkSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { RingAddresses } from '../../protocols/vhost-user/index.ts';
import {
  type AddressMap,
  AVAILABLE_ALIGN,
  availableBytes,
  DESCRIPTORS_ALIGN,
  descriptorBytes,
  type InflightQueue,
  isQueueSize,
  QUEUE_SIZE_MAX,
  type QueueMemory,
  SplitQueue,
  USED_ALIGN,
  usedBytes,
} from '../../protocols/virtqueue/index.ts';
import type { DirtyLog } from './dirty-log.ts';
import type { MappedRegion } from './mapped-region.ts';
import type { MemoryGeneration } from './memory.ts';

/** Where a queue was when it stopped. */
interface StopPoint {
  readonly size: number;
  readonly left: QueueHandOver;
  readonly followsUsed: boolean;
}

export type RingState =
  /** Not started, or stopped by GET_VRING_BASE. */
  | { readonly name: 'stopped' }
  /** Kicked, but it cannot start yet: its memory is not in the table, or what another host hands over is not here. It starts when that comes. */
  | { readonly name: 'waiting'; readonly for: 'memory' | 'hand-over' }
  /** From the first kick on. Taken from only while the ring is enabled. */
  | { readonly name: 'running'; readonly queue: SplitQueue }
  /** GET_VRING_BASE came: nothing more is taken, replies are put until all are there. */
  | { readonly name: 'stopping'; readonly queue: SplitQueue }
  /** The driver did something wrong: nothing more is taken until the ring is stopped and set up again. */
  | { readonly name: 'broken'; readonly queue: SplitQueue | undefined; readonly reason: string };

const NONE = -1;
/** VHOST_VRING_F_LOG. */
const LOG_USED = 1;

export class Ring {
  readonly index: number;
  /** Set by SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ADDR. */
  size = 0;
  base = 0;
  addresses: RingAddresses | undefined;
  /** Separate from started: a ring may be kicked before it is enabled, and disabled while it runs. */
  enabled = false;
  state: RingState = { name: 'stopped' };
  /** The memory that the queue is in and that its descriptors are translated with; undefined while there is no queue. */
  generation: MemoryGeneration | undefined;
  #stopPoint: StopPoint | undefined;
  /** False while the ring's own memory is missing from the table: QEMU takes a region out and puts it back, grown. */
  #mapped = false;
  #kickFd = NONE;
  #kickWatch = NONE;
  #callFd = NONE;
  #errFd = NONE;
  readonly #onKick: (ring: Ring) => void;

  constructor(index: number, onKick: (ring: Ring) => void) {
    this.index = index;
    this.#onKick = onKick;
  }

  /** The queue, while there is one. */
  get queue(): SplitQueue | undefined {
    return 'queue' in this.state ? this.state.queue : undefined;
  }

  /** Has begun and is not being stopped. */
  get started(): boolean {
    return this.state.name !== 'stopping' && this.queue !== undefined;
  }

  /** The queue, while chains may be taken from it. */
  get open(): SplitQueue | undefined {
    return this.enabled && this.#mapped && this.state.name === 'running' ? this.state.queue : undefined;
  }

  /** Takes the eventfd over. The first kick starts the ring, also one that is there already. Throws for what is no eventfd, as all three. */
  setKick(fd: number): void {
    checkEventFd(this.index, fd);
    this.#endKick();
    this.#kickFd = fd;
    this.#kickWatch = native.watch(fd, { readable: true, writable: false }, (error) => {
      if (error < 0) {
        this.#endKick();
        return;
      }
      native.drainEvent(fd);
      this.#onKick(this);
    });
  }

  /** Takes the eventfd over; -1 = the driver looks for itself. */
  setCall(fd: number): void {
    if (fd !== NONE) checkEventFd(this.index, fd);
    if (this.#callFd !== NONE) native.close(this.#callFd);
    this.#callFd = fd;
    // A call that went to the old descriptor while it was replaced may have been lost; one too many does no harm.
    if (this.state.name !== 'stopped') this.call();
  }

  setErr(fd: number): void {
    if (fd !== NONE) checkEventFd(this.index, fd);
    if (this.#errFd !== NONE) native.close(this.#errFd);
    this.#errFd = fd;
  }

  /** What it waited for may be here: begins at once where it is. */
  goOn(): void {
    if (this.state.name === 'waiting') this.#onKick(this);
  }

  /** As if the driver had kicked: a kick that an earlier process took does not come again. */
  kick(): void {
    native.signalEvent(this.#kickFd);
  }

  /** Interrupts the driver. */
  call(): void {
    if (this.#callFd !== NONE) native.signalEvent(this.#callFd);
  }

  /** The used ring was written: notes that where the front-end asked for it. */
  noteUsed(log: DirtyLog): void {
    if (this.addresses !== undefined && (this.addresses.flags & LOG_USED) !== 0)
      log.mark(this.addresses.logAddress, usedBytes(this.size));
  }

  /**
   * Makes the queue, or waits where memory does not have it yet, or where `handOver` is not here yet (undefined). Throws a `protocol` error where what
   * the front-end said about it is incomplete or wrong, `device` where the in-flight region or the hand-over contradict it.
   */
  start(
    generation: MemoryGeneration,
    options: { indirect: boolean; eventIndex: boolean; inflight: InflightQueue | undefined },
    handOver: QueueHandOver | null | undefined | 'expected',
  ): SplitQueue | undefined {
    const memory = locateQueue(this, generation);
    if (memory === undefined || handOver === 'expected') {
      this.state = { name: 'waiting', for: memory === undefined ? 'memory' : 'hand-over' };
      return undefined;
    }
    const { index, size, base } = this;
    const queue = new SplitQueue({ index, size, base, ...options, handOver: this.#goesOn(memory) ?? handOver, memory });
    this.#hold(generation);
    this.#mapped = true;
    this.state = { name: 'running', queue };
    return queue;
  }

  /** The memory table changed. The old mapping serves until the new table has the ring, too. */
  remap(generation: MemoryGeneration): void {
    if (this.queue === undefined) return;
    const memory = locateQueue(this, generation);
    this.#mapped = memory !== undefined;
    if (memory === undefined) return;
    this.queue.remap(memory);
    this.#hold(generation);
  }

  /** From here on nothing is taken; the queue stays for the replies. */
  beginStop(): void {
    const { queue } = this;
    this.#endKick();
    this.state = queue === undefined ? { name: 'stopped' } : { name: 'stopping', queue };
  }

  /** Ends the queue; `heads` were taken and have no answer. The next start goes on from here, unless the front-end says otherwise. */
  endStop(heads: readonly number[]): void {
    const { queue } = this;
    if (queue === undefined) return;
    const left = queue.leave(heads);
    this.base = left.fetched;
    this.#stopPoint = { size: this.size, left, followsUsed: queue.followUsed(left.heads) };
    this.state = { name: 'stopped' };
    this.#hold(undefined);
  }

  /** What it left when it stopped last; undefined: it never began. */
  get left(): QueueHandOver | undefined {
    return this.#stopPoint?.left;
  }

  /** Of the requests that it left: see LeftRequests. */
  get leftFollowsUsed(): boolean {
    return this.#stopPoint?.followsUsed ?? true;
  }

  /** Another host had the guest since then. */
  forgetStop(): void {
    this.#stopPoint = undefined;
  }

  /** What is unfinished is the guest's own only where its ring is at the very point where it stopped; any other start is a new life of the driver. */
  #goesOn({ used }: QueueMemory): QueueHandOver | undefined {
    const point = this.#stopPoint;
    if (point === undefined || point.size !== this.size || point.left.fetched !== this.base) return undefined;
    return point.left.usedIndex === new Uint16Array(used, 0, 2)[1] ? point.left : undefined;
  }

  /** Puts the ring out of use, and tells the front-end where it asked for that. */
  break(reason: string): void {
    this.state = { name: 'broken', queue: this.queue, reason };
    if (this.#errFd !== NONE) native.signalEvent(this.#errFd);
  }

  /** It begins after all, where it was broken before it had a queue. */
  beginAgain(): void {
    if (this.state.name !== 'broken' || this.state.queue !== undefined) return;
    this.state = { name: 'stopped' };
    this.kick();
  }

  close(): void {
    this.#endKick();
    this.setCall(NONE);
    this.setErr(NONE);
    this.state = { name: 'stopped' };
    this.#hold(undefined);
  }

  #hold(generation: MemoryGeneration | undefined): void {
    generation?.retain();
    this.generation?.release();
    this.generation = generation;
  }

  #endKick(): void {
    if (this.#kickFd === NONE) return;
    native.unwatch(this.#kickWatch);
    native.close(this.#kickFd);
    this.#kickFd = NONE;
  }
}

/** The queue's parts in a generation of memory, or undefined where it does not have them whole. Throws for what cannot be right in any. */
function locateQueue(ring: Ring, generation: MemoryGeneration): QueueMemory | undefined {
  const { index, size, addresses } = ring;
  if (!isQueueSize(size)) throw wrong(index, `has ${size} entries, which is no power of two up to ${QUEUE_SIZE_MAX}`);
  if (addresses === undefined) throw wrong(index, 'was kicked before SET_VRING_ADDR');
  checkAlignment(index, 'descriptor table', addresses.descriptors, DESCRIPTORS_ALIGN);
  checkAlignment(index, 'available ring', addresses.available, AVAILABLE_ALIGN);
  checkAlignment(index, 'used ring', addresses.used, USED_ALIGN);
  const descriptors = locate(generation.user, addresses.descriptors, descriptorBytes(size), DESCRIPTORS_ALIGN);
  const available = locate(generation.user, addresses.available, availableBytes(size), AVAILABLE_ALIGN);
  const used = locate(generation.user, addresses.used, usedBytes(size), USED_ALIGN);
  if (descriptors === undefined || available === undefined || used === undefined) return undefined;
  return {
    map: generation.guest,
    descriptors,
    available: available.region.window(available.offset, availableBytes(size)),
    used: used.region.window(used.offset, usedBytes(size)),
  };
}

function checkAlignment(index: number, what: string, address: number, align: number): void {
  if (address % align !== 0) throw wrong(index, `has its ${what} at 0x${address.toString(16)}, not a multiple of ${align}`);
}

/** A part that is whole inside one range; its place in the file must be aligned, too, as Atomics go there. */
function locate(
  map: AddressMap,
  address: number,
  length: number,
  align: number,
): { region: MappedRegion; offset: number } | undefined {
  const range = map.find(address);
  if (range < 0 || map.left(range, address) < length) return undefined;
  const offset = map.offset(range, address);
  return offset % align === 0 ? { region: map.region(range) as MappedRegion, offset } : undefined;
}

/** A pipe or a file could block the process in a write, or in a read. Makes sure that an eventfd does not, either. */
function checkEventFd(index: number, fd: number): void {
  const kind = readlinkSync(`/proc/self/fd/${fd}`);
  if (!kind.startsWith('anon_inode:[eventfd')) {
    native.close(fd);
    throw wrong(index, `was given a descriptor that is no eventfd: ${kind}`);
  }
  native.setNonBlocking(fd);
}

function wrong(index: number, what: string): NetbusError {
  return new NetbusError('protocol', `vhost-user: ring ${index} ${what}`);
}
