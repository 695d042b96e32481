/** A guest's virtio-blk driver on one virtqueue, for tests: a promise per request, any shape of chain. */
import { native } from '../../../native/index.ts';
import { BLOCK_HEADER_BYTES, encodeHeader } from './block-request.ts';
import { DESCRIPTOR_BYTES, DescriptorFlag, type DriverQueue, indirectTable, writeDescriptor } from './driver-queue.ts';
import type { GuestMemory } from './guest-memory.ts';

/** What a status byte has before the device writes it: no virtio-blk status has this value. */
export const STATUS_UNWRITTEN = 0xff;

/** Header and status byte share a piece of memory. */
const CONTROL_BYTES = 64;
const STATUS_OFFSET = 32;

/** How chains are laid out. */
export interface ChainStyle {
  /** One descriptor in the table that points to an indirect one (where negotiated), or all of them in the table. */
  indirect: boolean;
  /** Data is cut into descriptors of this size; each has memory of its own. */
  segmentBytes: number;
}

export interface BlockRequest extends Partial<ChainStyle> {
  type: number;
  /** 0 where not given. */
  sector?: number;
  /** Data for the device, after the header. */
  out?: Uint8Array;
  /** Room for data from the device, before the status byte. */
  inBytes?: number;
}

export interface BlockReply {
  status: number;
  /** The room for data as the device left it (all of it, whatever `usedLength` says). */
  data: Uint8Array;
  /** Bytes that the device says it has written, the status byte included. */
  usedLength: number;
}

/** One descriptor of a chain, before it has its place in a table. */
export interface ChainPiece {
  address: number;
  length: number;
  writable: boolean;
}

interface InFlight {
  descriptors: number[];
  table: { address: number; bytes: number } | undefined;
  resolve(usedLength: number): void;
  reject(cause: Error): void;
}

export class BlockDriver {
  readonly queue: DriverQueue;
  /** Heads that the device returned and nobody had offered: a broken device, or the raw chains of a hostile test. */
  readonly strayHeads: number[] = [];
  readonly #memory: GuestMemory;
  readonly #style: ChainStyle;
  readonly #freeDescriptors: number[] = [];
  readonly #inFlight = new Map<number, InFlight>();
  #waiting: { pieces: readonly ChainPiece[]; indirect: boolean; chain: Omit<InFlight, 'descriptors' | 'table'> }[] = [];
  #watch: number | undefined;
  #ended: Error | undefined;

  constructor(memory: GuestMemory, queue: DriverQueue, style: ChainStyle) {
    this.#memory = memory;
    this.queue = queue;
    this.#style = style;
    this.#freeAll();
  }

  /** Begins to take completions. */
  start(): void {
    if (this.#watch !== undefined) return;
    this.queue.armCall();
    this.#watch = native.watch(this.queue.callFd, { readable: true, writable: false }, () => {
      native.drainEvent(this.queue.callFd);
      this.takeCompletions();
    });
    this.takeCompletions();
  }

  /** Stops taking completions, which stay in the used ring: for another user of the queue, and for hostile tests. */
  stop(): void {
    if (this.#watch !== undefined) native.unwatch(this.#watch);
    this.#watch = undefined;
  }

  /** Requests that have no answer yet. */
  get pending(): number {
    return this.#inFlight.size + this.#waiting.length;
  }

  /** Builds the chain of a request, sends it and waits for its answer, whatever its status. */
  async submit(request: BlockRequest): Promise<BlockReply> {
    const { type, sector = 0, out = new Uint8Array(), inBytes = 0 } = request;
    const indirect = request.indirect ?? this.#style.indirect;
    const segmentBytes = request.segmentBytes ?? this.#style.segmentBytes;
    const control = this.#memory.allocate(CONTROL_BYTES);
    const outPieces = this.#allocatePieces(out.length, segmentBytes, false);
    const inPieces = this.#allocatePieces(inBytes, segmentBytes, true);
    encodeHeader(this.#memory.bytes(control, BLOCK_HEADER_BYTES), type, sector);
    this.#memory.bytes(control + STATUS_OFFSET, 1)[0] = STATUS_UNWRITTEN;
    let done = 0;
    for (const { address, length } of outPieces) {
      this.#memory.bytes(address, length).set(out.subarray(done, done + length));
      done += length;
    }
    const header = { address: control, length: BLOCK_HEADER_BYTES, writable: false };
    const status = { address: control + STATUS_OFFSET, length: 1, writable: true };
    const usedLength = await this.submitChain([header, ...outPieces, ...inPieces, status], indirect);

    const data = new Uint8Array(inBytes);
    let read = 0;
    for (const { address, length } of inPieces) {
      data.set(this.#memory.bytes(address, length), read);
      read += length;
    }
    const reply = { status: this.#memory.bytes(control + STATUS_OFFSET, 1)[0], data, usedLength };
    // A request that never ends keeps its memory, as in a guest: the device may still write there.
    for (const { address, length } of [...outPieces, ...inPieces]) this.#memory.free(address, length);
    this.#memory.free(control, CONTROL_BYTES);
    return reply;
  }

  /** Sends any chain of descriptors; resolves with the used length. Waits where the table is full. */
  submitChain(pieces: readonly ChainPiece[], indirect = this.#style.indirect): Promise<number> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (!indirect && pieces.length > this.queue.size)
      throw new RangeError(`a chain of ${pieces.length} does not fit the queue`);
    return new Promise((resolve, reject) => {
      const chain = { resolve, reject };
      if (this.#waiting.length > 0 || !this.#offer(pieces, indirect, chain)) this.#waiting.push({ pieces, indirect, chain });
      this.queue.notify();
    });
  }

  /** Takes what the device is done with. Also useful where the call eventfd is not watched. */
  takeCompletions(): void {
    do {
      for (let head = this.queue.takeUsed(); head !== -1; head = this.queue.takeUsed()) this.#complete(head);
      this.#offerWaiting();
    } while (this.queue.armCall());
  }

  /** Rejects everything in flight, and what comes later: the machine is gone. */
  end(cause: Error): void {
    this.stop();
    this.#ended = cause;
    this.#reject(cause);
  }

  /** As after a reset of the device: what was in flight is rejected, the rings are empty. */
  reset(): void {
    this.#reject(new Error('the driver reset the device'));
    this.#freeAll();
    this.queue.reset();
  }

  #complete(head: number): void {
    const chain = this.#inFlight.get(head);
    if (chain === undefined) {
      this.strayHeads.push(head);
      return;
    }
    this.#inFlight.delete(head);
    this.#freeDescriptors.push(...chain.descriptors);
    if (chain.table !== undefined) this.#memory.free(chain.table.address, chain.table.bytes);
    chain.resolve(this.queue.usedLength);
  }

  #offerWaiting(): void {
    let offered = false;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#offer(next.pieces, next.indirect, next.chain)) break;
      this.#waiting.shift();
      offered = true;
    }
    if (offered) this.queue.notify();
  }

  #offer(pieces: readonly ChainPiece[], indirect: boolean, chain: Omit<InFlight, 'descriptors' | 'table'>): boolean {
    const needed = indirect ? 1 : pieces.length;
    if (this.#freeDescriptors.length < needed) return false;
    const descriptors = this.#freeDescriptors.splice(-needed);
    const table = indirect ? this.#writeIndirect(pieces, descriptors[0]) : this.#writeDirect(pieces, descriptors);
    this.#inFlight.set(descriptors[0], { ...chain, descriptors, table });
    this.queue.offer(descriptors[0]);
    return true;
  }

  #writeDirect(pieces: readonly ChainPiece[], descriptors: readonly number[]): undefined {
    pieces.forEach(({ address, length, writable }, i) => {
      const flags = linkFlags(writable, i + 1 === pieces.length);
      this.queue.writeDescriptor(descriptors[i], address, length, flags, descriptors[i + 1] ?? 0);
    });
  }

  #writeIndirect(pieces: readonly ChainPiece[], descriptor: number): { address: number; bytes: number } {
    const bytes = pieces.length * DESCRIPTOR_BYTES;
    const tableAddress = this.#memory.allocate(bytes);
    const words = indirectTable(this.#memory, tableAddress, pieces.length);
    pieces.forEach(({ address, length, writable }, i) => {
      const last = i + 1 === pieces.length;
      writeDescriptor(words, i, address, length, linkFlags(writable, last), last ? 0 : i + 1);
    });
    this.queue.writeDescriptor(descriptor, tableAddress, bytes, DescriptorFlag.indirect, 0);
    return { address: tableAddress, bytes };
  }

  #allocatePieces(bytes: number, segmentBytes: number, writable: boolean): ChainPiece[] {
    const pieces: ChainPiece[] = [];
    for (let at = 0; at < bytes; at += segmentBytes) {
      const length = Math.min(segmentBytes, bytes - at);
      pieces.push({ address: this.#memory.allocate(length), length, writable });
    }
    return pieces;
  }

  #freeAll(): void {
    this.#freeDescriptors.length = 0;
    for (let i = this.queue.size - 1; i >= 0; i--) this.#freeDescriptors.push(i);
  }

  #reject(cause: Error): void {
    const chains = [...this.#inFlight.values(), ...this.#waiting.map(({ chain }) => chain)];
    this.#inFlight.clear();
    this.#waiting = [];
    for (const chain of chains) chain.reject(cause);
  }
}

function linkFlags(writable: boolean, last: boolean): number {
  return (writable ? DescriptorFlag.write : 0) | (last ? 0 : DescriptorFlag.next);
}
