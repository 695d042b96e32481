/** A disk whose host can lose power: what was not flushed is then really gone. It answers when the test says so, in any order. */
import { type Batch, Replies } from '../../src/device/batch.ts';
import type { Device, Guest, Quiesced } from '../../src/device/device.ts';
import { DiskFlag, DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { NetbusError } from '../../src/device/errors.ts';
import type { DiskProfile } from '../../src/device/profile.ts';
import { clearBytes, gather, scatter } from '../../src/device/segments.ts';
import { diskProfile } from './memory-disk.ts';

const SECTOR_BYTES = 512;

export class ForgetfulDisk {
  readonly profile: DiskProfile;
  /** What reads see. */
  memory: Buffer;
  /** What a loss of power leaves. */
  stable: Buffer;
  boots = 1;
  instance = 'one';
  /** Fails from here on: as a flush that failed does, until the export is opened anew. */
  flushFails = false;
  /** Every write fails: a full filesystem. */
  writesFail = false;
  /** Every read fails. */
  readsFail = false;
  flushes = 0;
  /** What was pushed, in order: kind and position. */
  readonly seen: { kind: number; position: number; extent: number; flags: number }[] = [];
  /** Answers at once, in a microtask. */
  automatic = true;
  device: ForgetfulDevice | undefined;

  constructor(capacityBytes: number) {
    this.profile = diskProfile({ capacityBytes });
    this.memory = Buffer.alloc(capacityBytes);
    this.stable = Buffer.alloc(capacityBytes);
  }

  get bootId(): string {
    return `boot-${this.boots}`;
  }

  /** The power goes: of what was not flushed each sector is there for which `survives` is true. Whatever is in flight is done or not, alike. */
  losePower(survives: (sector: number) => boolean): void {
    this.killDaemon(survives);
    for (let sector = 0; sector < this.memory.length / SECTOR_BYTES; sector++) {
      if (survives(sector)) continue;
      const at = sector * SECTOR_BYTES;
      this.stable.copy(this.memory, at, at, at + SECTOR_BYTES);
    }
    this.stable = Buffer.from(this.memory);
    this.boots++;
  }

  /** The daemon is killed: what it was told is kept, what was in flight is done where `isDone` says so. */
  killDaemon(isDone: (n: number) => boolean): void {
    const { device } = this;
    this.device = undefined;
    device?.end(isDone);
  }

  open(): Device {
    this.device = new ForgetfulDevice(this);
    return this.device;
  }
}

export class ForgetfulDevice implements Device {
  readonly profile: DiskProfile;
  readonly depth = 16;
  readonly held: number[] = [];
  readonly #disk: ForgetfulDisk;
  #guest: Guest | undefined;
  #ended = false;
  #refused = false;
  #drained: () => void = () => {};

  constructor(disk: ForgetfulDisk) {
    this.#disk = disk;
    this.profile = disk.profile;
  }

  start(guest: Guest): void {
    this.#guest = guest;
  }

  push(batch: Batch): number {
    if (this.#ended || this.#guest === undefined) return 0;
    const count = Math.min(batch.count, this.depth - this.held.length);
    const table = this.#guest.requests;
    for (let i = 0; i < count; i++) {
      const row = batch.rows[i];
      this.held.push(row);
      this.#disk.seen.push({
        kind: table.kind[row],
        position: table.argument[row],
        extent: table.extent[row],
        flags: table.flags[row],
      });
    }
    this.#refused ||= count < batch.count;
    if (this.#disk.automatic) setImmediate(() => this.answer(this.held.length));
    return count;
  }

  ready(): void {}

  /** Does and answers `count` of the requests that it holds, from the `from`th on. */
  answer(count: number, from = 0): void {
    const guest = this.#guest;
    const rows = this.held.splice(from, count);
    if (guest === undefined || this.#ended || rows.length === 0) return;
    const replies = new Replies(rows.length);
    for (const row of rows) {
      const status = this.#work(guest, row);
      replies.add(row, status, status === DiskStatus.ok ? guest.requests.inLength[row] : 0);
    }
    guest.reply(replies);
    if (this.#refused) {
      this.#refused = false;
      this.#guest?.ready();
    }
    this.#drained();
  }

  end(isDone: (n: number) => boolean): void {
    const guest = this.#guest;
    if (guest === undefined || this.#ended) return;
    this.#ended = true;
    this.held.forEach((row, n) => {
      if (guest.requests.kind[row] !== DiskKind.read && isDone(n)) this.#work(guest, row);
    });
    guest.lost(new NetbusError('unreachable', 'the host of the device is away'));
  }

  quiesce(signal: AbortSignal): Promise<Quiesced> {
    return new Promise((resolve) => {
      this.#drained = () => {
        if (this.held.length > 0 && !signal.aborted && !this.#ended) return;
        this.#guest = undefined;
        resolve(this.held.length === 0 ? { outcome: 'clean' } : { outcome: 'cut', unfinished: [...this.held] });
      };
      signal.addEventListener('abort', this.#drained);
      this.#drained();
    });
  }

  close(): Promise<void> {
    this.#guest = undefined;
    return Promise.resolve();
  }

  #work({ requests: table }: Guest, row: number): number {
    const disk = this.#disk;
    const [position, extent] = [table.argument[row], table.extent[row]];
    const isWrite = table.kind[row] === DiskKind.write || table.kind[row] === DiskKind.writeZeroes;
    if (isWrite && disk.writesFail) return DiskStatus.ioError;
    if (table.kind[row] === DiskKind.read && disk.readsFail) return DiskStatus.ioError;
    switch (table.kind[row]) {
      case DiskKind.read:
        if (table.inLength[row] > 0) clearBytes(table.segments(row), 0, table.inLength[row]);
        scatter(table.segments(row), 0, disk.memory, position, extent);
        break;
      case DiskKind.write:
        gather(table.segments(row), 0, disk.memory, position, extent);
        break;
      case DiskKind.writeZeroes:
      case DiskKind.discard:
        disk.memory.fill(0, position, position + extent);
        break;
      case DiskKind.flush:
        if (disk.flushFails) return DiskStatus.ioError;
        disk.flushes++;
        disk.stable = Buffer.from(disk.memory);
        break;
    }
    if ((table.flags[row] & DiskFlag.durable) !== 0) disk.memory.copy(disk.stable, position, position, position + extent);
    return DiskStatus.ok;
  }
}
