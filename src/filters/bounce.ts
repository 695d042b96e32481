/**
 * Keeps a guest's memory out of the kernel's reach: payloads go through staging of our own. Below it stands a device whose work
 * cannot be recalled, and a cut would otherwise let late I/O write into memory that the guest uses for something else by then.
 * Here a late reply is dropped together with its staging, which goes when the device below is closed.
 */
import { NativeRegion } from '../../native/region.ts';
import { Batch, type Replies } from '../device/batch.ts';
import { ChunkPool } from '../device/chunk-pool.ts';
import type { Device, Filter, Guest, Quiesced } from '../device/device.ts';
import { MessageTable } from '../device/message-table.ts';
import { DISK_TRANSFER_BYTES_MAX, type Profile } from '../device/profile.ts';
import type { Region } from '../device/region.ts';
import { copySegments } from './copy-segments.ts';

/** What the smallest request stages, and the alignment that direct I/O gets. */
const CHUNK_BYTES = 16 * 1024;
/** Staging of one device, taken from the system only as far as it is used. At the bound the guest waits. */
const BOUNCE_BYTES_DEFAULT = 32 * 1024 * 1024;

/** Reserves `bytes` of memory, taken from the system as it is used; `release` gives it back. */
export type AllocateBounce = (bytes: number) => Region & { release(): void };

/** `stagingBytes` is at least the largest transfer, DISK_TRANSFER_BYTES_MAX. */
export function bounce(
  stagingBytes: number = BOUNCE_BYTES_DEFAULT,
  allocate: AllocateBounce = (bytes) => NativeRegion.allocate(bytes),
): Filter {
  if (stagingBytes < DISK_TRANSFER_BYTES_MAX)
    throw new RangeError(`staging of ${stagingBytes} bytes is less than one transfer`);
  return (device) => new BouncedDevice(device, stagingBytes, allocate);
}

class BouncedDevice implements Device {
  readonly #inner: Device;
  readonly #stagingBytes: number;
  readonly #allocate: AllocateBounce;
  #staging: ReturnType<AllocateBounce> | undefined;
  #pool!: ChunkPool;
  /** The requests as the inner device sees them: the same rows, with staging in place of the guest's memory. */
  #staged!: MessageTable;
  #batch!: Batch;
  /** Gone after a cut or `close`: nothing reaches it any more, and nothing its memory. */
  #guest: Guest | undefined;
  #held = 0;
  #quiescing = false;
  /** The guest was refused something for want of staging. Where the inner device was full, it calls `ready` itself. */
  #guestWaits = false;
  #closing: Promise<void> | undefined;

  constructor(inner: Device, stagingBytes: number, allocate: AllocateBounce) {
    this.#inner = inner;
    this.#stagingBytes = stagingBytes;
    this.#allocate = allocate;
  }

  get profile(): Profile {
    return this.#inner.profile;
  }

  get depth(): number {
    return this.#inner.depth;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#staging = this.#allocate(this.#stagingBytes);
    this.#pool = new ChunkPool(this.#staging, CHUNK_BYTES);
    this.#staged = new MessageTable(guest.requests.capacity);
    this.#batch = new Batch(this.#staged);
    this.#inner.start({
      requests: this.#staged,
      reply: (replies) => this.#reply(replies),
      push: (events) => this.#guest?.push(events) ?? events.count,
      ready: () => this.#guest?.ready(),
      lost: (cause) => this.#guest?.lost(cause),
    });
  }

  push(batch: Batch): number {
    if (this.#guest === undefined || this.#quiescing) return 0;
    const inner = this.#batch;
    inner.clear();
    // One more than the inner device has room for, so that it knows of a guest that waits.
    const count = Math.min(batch.count, this.depth - this.#held + 1);
    while (inner.count < count && this.#stage(batch.table, batch.rows[inner.count])) inner.add(batch.rows[inner.count]);
    const taken = inner.count === 0 ? 0 : this.#inner.push(inner);
    for (let i = taken; i < inner.count; i++) this.#pool.give(this.#staged.segments(inner.rows[i]));
    this.#guestWaits = taken === inner.count && taken < batch.count;
    this.#held += taken;
    return taken;
  }

  ready(): void {
    this.#inner.ready();
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    const quiesced = await this.#inner.quiesce(signal);
    this.#guest = undefined;
    return quiesced;
  }

  close(): Promise<void> {
    this.#guest = undefined;
    this.#closing ??= this.#inner.close().then(() => this.#staging?.release());
    return this.#closing;
  }

  /** Copies a request and its out payload; false where there is no staging for it now. */
  #stage(table: MessageTable, row: number): boolean {
    const staged = this.#staged;
    const segments = staged.segments(row);
    const out = table.outLength[row];
    const room = table.inLength[row];
    // What is larger than any request may be goes on without memory: its lengths alone make the device refuse it.
    const isSane = this.#pool.chunks(out) + this.#pool.chunks(room) <= this.#pool.capacity;
    if (isSane && !this.#pool.take(segments, out)) return false;
    if (isSane && !this.#pool.take(segments, room)) {
      this.#pool.give(segments);
      return false;
    }
    if (isSane && out > 0) copySegments(segments, 0, table.segments(row), 0, out);
    staged.kind[row] = table.kind[row];
    staged.flags[row] = table.flags[row];
    staged.argument[row] = table.argument[row];
    staged.extent[row] = table.extent[row];
    staged.outLength[row] = out;
    staged.inLength[row] = room;
    return true;
  }

  #reply(replies: Replies): void {
    const guest = this.#guest;
    if (guest === undefined) return;
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      const segments = this.#staged.segments(row);
      const skip = this.#staged.outLength[row];
      if (replies.lengths[i] > 0) copySegments(guest.requests.segments(row), skip, segments, skip, replies.lengths[i]);
      this.#pool.give(segments);
    }
    this.#held -= replies.count;
    guest.reply(replies);
    if (!this.#guestWaits || this.#quiescing) return;
    this.#guestWaits = false;
    // The guest may have closed the device inside `reply`.
    this.#guest?.ready();
  }
}
