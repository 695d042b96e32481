/** A disk in memory that a test holds by its strings: answers when it is told to, takes as much as it is told to. */
import { Batch, Replies } from '../../src/device/batch.ts';
import type { Device, Guest, Quiesced } from '../../src/device/device.ts';
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { DiskProfile } from '../../src/device/profile.ts';
import { clearBytes, gather, scatter } from '../../src/device/segments.ts';
import type { Source } from '../../src/device/source.ts';

export interface SeenRequest {
  readonly kind: number;
  readonly flags: number;
  readonly argument: number;
  readonly extent: number;
}

export function diskProfile(changes: Partial<DiskProfile> = {}): DiskProfile {
  return {
    class: 'disk',
    capacityBytes: 16 * 1024 * 1024,
    logicalBlockBytes: 512,
    physicalBlockBytes: 4096,
    optimalIoBytes: 65536,
    readOnly: false,
    queues: 2,
    discardAlignmentBytes: 4096,
    serial: 'netbus-test',
    features: ['flush', 'discard', 'write-zeroes', 'write-cache-control', 'multi-queue'],
    ...changes,
  };
}

export class MemoryDisk implements Source {
  profile: DiskProfile;
  storage: Buffer;
  /** Everything that was pushed, in order, over all uses. */
  readonly seen: SeenRequest[] = [];
  /** True: requests are held until `release`. */
  holding = false;
  /** Most requests held at a time. */
  room: number;
  /** Devices that were opened, and those that are open. */
  opened = 0;
  openNow = 0;
  /** The latest use. */
  device: MemoryDevice | undefined;
  /** Status of all requests to come. */
  status: number = DiskStatus.ok;
  /** Closing a device waits for this. */
  closing: Promise<void> = Promise.resolve();

  constructor(changes: Partial<DiskProfile> = {}, room = 1024) {
    this.profile = diskProfile(changes);
    this.storage = Buffer.alloc(this.profile.capacityBytes);
    this.room = room;
  }

  /** The capacity is `bytes` from now on. */
  grow(bytes: number): void {
    this.profile = { ...this.profile, capacityBytes: bytes };
    this.storage = Buffer.concat([this.storage, Buffer.alloc(bytes - this.storage.length)]);
  }

  open(): Device {
    if (this.openNow > 0) throw new NetbusError('in_use', 'the memory disk is in use');
    this.opened++;
    this.openNow++;
    this.device = new MemoryDevice(this);
    return this.device;
  }
}

export class MemoryDevice implements Device {
  readonly profile: DiskProfile;
  readonly depth: number;
  readonly #disk: MemoryDisk;
  #guest: Guest | undefined;
  #held!: Batch;
  #replies!: Replies;
  #refused = false;
  #quiescing = false;
  #scheduled = false;
  #drained: (() => void) | undefined;
  #closed: Promise<void> | undefined;

  constructor(disk: MemoryDisk) {
    this.#disk = disk;
    this.profile = disk.profile;
    this.depth = disk.room;
  }

  get held(): number {
    return this.#held.count;
  }

  start(guest: Guest): void {
    this.#guest = guest;
    this.#held = new Batch(guest.requests);
    this.#replies = new Replies(guest.requests.capacity);
  }

  push(batch: Batch): number {
    if (this.#quiescing) return 0;
    const { table } = batch;
    const count = Math.max(0, Math.min(batch.count, this.#disk.room - this.#held.count));
    for (let i = 0; i < count; i++) {
      const row = batch.rows[i];
      this.#held.add(row);
      const [kind, flags, argument, extent] = [table.kind[row], table.flags[row], table.argument[row], table.extent[row]];
      this.#disk.seen.push({ kind, flags, argument, extent });
    }
    if (count < batch.count) this.#refused = true;
    if (!this.#disk.holding) this.#schedule();
    return count;
  }

  /** Answers the first `count` held requests, in a microtask. */
  release(count = this.#held.count): void {
    this.#schedule(count);
  }

  /** Answers in an order of the test's own. */
  releaseLast(): void {
    this.releaseAt(this.#held.count - 1);
  }

  /** The one that is held there, counted from the oldest. */
  releaseAt(place: number): void {
    const row = this.#held.rows[place];
    this.#held.rows.copyWithin(1, 0, place);
    this.#held.rows[0] = row;
    this.#schedule(1);
  }

  /** There is room again. */
  makeRoom(room: number): void {
    this.#disk.room = room;
    queueMicrotask(() => this.#tellReady());
  }

  lose(cause: NetbusError): void {
    queueMicrotask(() => this.#guest?.lost(cause));
  }

  ready(): void {}

  quiesce(signal: AbortSignal): Promise<Quiesced> {
    this.#quiescing = true;
    return new Promise((resolve) => {
      const done = () => {
        if (this.#held.count > 0 && !signal.aborted) return;
        signal.removeEventListener('abort', done);
        this.#drained = undefined;
        const unfinished = [...this.#held.rows.subarray(0, this.#held.count)];
        if (unfinished.length > 0) this.#guest = undefined;
        resolve(unfinished.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished });
      };
      this.#drained = done;
      signal.addEventListener('abort', done);
      done();
    });
  }

  close(): Promise<void> {
    this.#guest = undefined;
    this.#closed ??= this.#disk.closing.then(() => {
      this.#disk.openNow--;
    });
    return this.#closed;
  }

  #schedule(count?: number): void {
    if (count === undefined) {
      if (this.#scheduled) return;
      this.#scheduled = true;
    }
    queueMicrotask(() => {
      if (count === undefined) this.#scheduled = false;
      this.#answer(count ?? this.#held.count);
    });
  }

  #answer(count: number): void {
    const guest = this.#guest;
    if (guest === undefined || count === 0) return;
    this.#replies.clear();
    for (let i = 0; i < Math.min(count, this.#held.count); i++) this.#serve(guest, this.#held.rows[i]);
    this.#held.drop(this.#replies.count);
    guest.reply(this.#replies);
    this.#tellReady();
    this.#drained?.();
  }

  #tellReady(): void {
    if (!this.#refused || this.#held.count >= this.#disk.room) return;
    this.#refused = false;
    this.#guest?.ready();
  }

  #serve({ requests: table }: Guest, row: number): void {
    const { storage, status } = this.#disk;
    const [position, extent] = [table.argument[row], table.extent[row]];
    if (status === DiskStatus.ok) {
      switch (table.kind[row]) {
        case DiskKind.read:
          scatter(table.segments(row), 0, storage, position, extent);
          break;
        case DiskKind.write:
          gather(table.segments(row), 0, storage, position, extent);
          break;
        case DiskKind.writeZeroes:
        case DiskKind.discard:
          storage.fill(0, position, position + extent);
          break;
      }
    }
    const room = table.inLength[row];
    if (status !== DiskStatus.ok && room > 0) clearBytes(table.segments(row), 0, room);
    this.#replies.add(row, status, status === DiskStatus.ok ? room : 0);
  }
}
