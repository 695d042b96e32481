/**
 * The smallest device behind a virtqueue: it finishes each request with a status, moves no data, and remembers what it saw. It
 * reads the rings by the specification, apart from the code under test, for tests of the driver's side itself.
 */
import { native } from '../../../native/index.ts';
import { BLOCK_HEADER_BYTES } from './block-request.ts';
import { DESCRIPTOR_BYTES, DescriptorFlag, type DriverQueue } from './driver-queue.ts';
import type { GuestMemory } from './guest-memory.ts';

export interface SeenRequest {
  type: number;
  sector: number;
  /** Bytes between header and status. */
  dataBytes: number;
}

interface Piece {
  address: number;
  length: number;
  flags: number;
  next: number;
}

export class EchoDevice {
  readonly requests: SeenRequest[] = [];
  /** Most requests that were there at a time. */
  deepest = 0;
  readonly #memory: GuestMemory;
  readonly #queue: DriverQueue;
  readonly #statusOf: (request: SeenRequest) => number;
  readonly #watch: number;
  readonly #available: DataView;
  readonly #used: DataView;
  #next = 0;

  /** Serves `queue`, with EVENT_IDX, whenever it is kicked. */
  constructor(memory: GuestMemory, queue: DriverQueue, statusOf: (request: SeenRequest) => number) {
    this.#memory = memory;
    this.#queue = queue;
    this.#statusOf = statusOf;
    this.#available = viewOf(memory, queue.availableAddress, 2 * (3 + queue.size));
    this.#used = viewOf(memory, queue.usedAddress, 6 + 8 * queue.size);
    this.#watch = native.watch(queue.kickFd, { readable: true, writable: false }, () => {
      native.drainEvent(queue.kickFd);
      this.#serve();
    });
  }

  close(): void {
    native.unwatch(this.#watch);
  }

  #serve(): void {
    const { size } = this.#queue;
    const available = this.#available.getUint16(2, true);
    const before = this.#next;
    this.deepest = Math.max(this.deepest, (available - before) & 0xffff);
    for (; this.#next !== available; this.#next = (this.#next + 1) & 0xffff) {
      const head = this.#available.getUint16(4 + 2 * (this.#next % size), true);
      const written = this.#finish(this.#chain(head));
      const element = 4 + 8 * (this.#next % size);
      this.#used.setUint32(element, head, true);
      this.#used.setUint32(element + 4, written, true);
    }
    this.#used.setUint16(2, this.#next, true);
    // The next kick is wanted for the next request; the driver is told as it asked (virtio 1.2, 2.7.7 and 2.7.10).
    this.#used.setUint16(4 + 8 * size, this.#next, true);
    const usedEvent = this.#available.getUint16(4 + 2 * size, true);
    const wanted = ((this.#next - usedEvent - 1) & 0xffff) < ((this.#next - before) & 0xffff);
    if (wanted) native.signalEvent(this.#queue.callFd);
  }

  /** Writes the status; the bytes written. */
  #finish(chain: readonly Piece[]): number {
    const header = viewOf(this.#memory, chain[0].address, BLOCK_HEADER_BYTES);
    const data = chain.slice(1, -1);
    const total = data.reduce((sum, { length }) => sum + length, 0);
    const request = { type: header.getUint32(0, true), sector: Number(header.getBigUint64(8, true)), dataBytes: total };
    this.requests.push(request);
    this.#memory.bytes(chain.at(-1)!.address, 1)[0] = this.#statusOf(request);
    const writable = data.filter(({ flags }) => (flags & DescriptorFlag.write) !== 0);
    return writable.reduce((sum, { length }) => sum + length, 1);
  }

  #chain(head: number): Piece[] {
    const first = this.#descriptor(this.#queue.descriptorAddress, head);
    const indirect = (first.flags & DescriptorFlag.indirect) !== 0;
    const table = indirect ? first.address : this.#queue.descriptorAddress;
    const chain = [indirect ? this.#descriptor(table, 0) : first];
    for (let last = chain[0]; (last.flags & DescriptorFlag.next) !== 0; last = chain.at(-1)!) {
      chain.push(this.#descriptor(table, last.next));
    }
    return chain;
  }

  #descriptor(table: number, index: number): Piece {
    const view = viewOf(this.#memory, table + index * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
    return {
      address: Number(view.getBigUint64(0, true)),
      length: view.getUint32(8, true),
      flags: view.getUint16(12, true),
      next: view.getUint16(14, true),
    };
  }
}

function viewOf(memory: GuestMemory, address: number, length: number): DataView {
  const { buffer, offset } = memory.place(address, length);
  return new DataView(buffer, offset, length);
}
