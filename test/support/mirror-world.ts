/**
 * A guest that works on a disk which is being copied: two disks whose hosts can lose what was not flushed, a mirror whose daemon can be killed, and a
 * model of what the guest must find. Everything happens in an order that a seed decides; only the clock of the test goes.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { DiskFlag, DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { DiskReplay } from '../../src/device/disk-replay.ts';
import { NetbusError } from '../../src/device/errors.ts';
import { Slot } from '../../src/device/slot.ts';
import { ManualClock } from '../../src/lib/clock.ts';
import { DirtyMap, type Extent, REGION_BYTES_MIN } from '../../src/migration/mirror/dirty-map.ts';
import { Mirror } from '../../src/migration/mirror/mirror.ts';
import { TestGuest } from '../compliance/test-guest.ts';
import { type ForgetfulDevice, ForgetfulDisk } from './forgetful-disk.ts';
import { MemoryRegion } from './memory-region.ts';
import { type SeededRandom, seededRandom } from './random.ts';
import { SectorModel } from './sector-model.ts';

const KIB = 1024;
/** The last region is a part of one. */
const CAPACITY_BYTES = 20 * REGION_BYTES_MIN + 20 * KIB;
const ROWS = 24;
const MEMORY_BYTES = 8 * 1024 * KIB;
/** Turns after which something that should come to an end is believed not to. */
const TURNS_MAX = 20_000;

export class MirrorWorld {
  readonly random: SeededRandom;
  readonly clock = new ManualClock();
  readonly old = new ForgetfulDisk(CAPACITY_BYTES);
  readonly target = new ForgetfulDisk(CAPACITY_BYTES);
  readonly model: SectorModel;
  readonly slot: Slot;
  readonly guest: TestGuest;
  mirror!: Mirror;
  /** The new disk cannot be opened. */
  isTargetAway = false;
  /** Told by the mirror. */
  failure: NetbusError | undefined;
  /** The switch could have been made, and was looked at. */
  wasInStep = false;
  readonly #folder = mkdtempSync(join(tmpdir(), 'netbus-mirror-'));
  readonly #blank: boolean;
  #map!: DirtyMap;
  #jobs = 0;
  #isRemoving = false;

  constructor(seed: number) {
    this.random = seededRandom(seed);
    this.#blank = this.random.below(2) === 0;
    const extents = this.#fillDisks();
    this.old.automatic = false;
    this.target.automatic = false;
    this.model = new SectorModel(this.old.memory);
    this.slot = new Slot({
      profile: this.old.profile,
      depth: ROWS,
      owner: {
        lost: () => {
          if (!this.#isRemoving) this.install();
        },
        quiesced: async () => {},
        closed: async () => {},
        tookBeyond: () => {},
      },
      policy: new DiskReplay(),
    });
    this.guest = new TestGuest(this.slot, new MemoryRegion(MEMORY_BYTES), ROWS);
    this.guest.onReply = (row, status) => this.#answered(row, status);
    this.#begin(this.#blank ? extents : undefined);
    this.install();
  }

  /** Puts a new session of the old disk into the slot. */
  install(): void {
    const device = this.old.open() as ForgetfulDevice;
    this.#endsLate(device);
    this.slot.install(this.mirror.wrap(device));
  }

  /** A request of the guest. */
  request(): void {
    if (this.guest.rowsFree === 0) return;
    const { random } = this;
    const length = 512 * (1 + random.below(random.below(3) === 0 ? 300 : 16));
    const position = 512 * random.below((CAPACITY_BYTES - length) / 512 + 1);
    const kinds = [DiskKind.write, DiskKind.write, DiskKind.write, DiskKind.read, DiskKind.flush];
    const kind = [...kinds, DiskKind.discard, DiskKind.writeZeroes][random.below(7)];
    const flags = kind !== DiskKind.read && random.below(4) === 0 ? DiskFlag.durable : 0;
    const { guest } = this;
    if (kind === DiskKind.flush) {
      guest.add({ kind });
    } else if (kind === DiskKind.read) {
      this.model.reads(guest.add({ kind, position, inBytes: length }), position, length);
    } else {
      const byte = kind === DiskKind.write ? 1 + random.below(255) : kind === DiskKind.writeZeroes ? 0 : undefined;
      const row =
        kind === DiskKind.write
          ? guest.add({ kind, position, flags, outBytes: length })
          : guest.add({ kind, position, flags, extent: length });
      if (kind === DiskKind.write) guest.fill(row, new Uint8Array(length).fill(byte!));
      this.model.writes(row, position, length, byte);
    }
    guest.pushAll();
  }

  /** One of the two disks answers something, in any order. */
  answer(disk: ForgetfulDisk): void {
    const { device } = disk;
    if (device !== undefined && device.held.length > 0) {
      const from = this.random.below(device.held.length);
      device.answer(1 + this.random.below(3), from);
    }
  }

  /** The session ends and the next one begins, as for a live renewal; with `finish` the switch could be made, where the mirror says that it is in step. */
  async renew(finish: boolean, abortAfterTurns = TURNS_MAX): Promise<void> {
    const bound = new AbortController();
    this.#isRemoving = true;
    this.mirror.finish = finish;
    let isOver = false;
    const removed = this.slot.remove(bound.signal).then(() => {
      isOver = true;
    });
    for (let turns = 0; !isOver; turns++) {
      if (turns === abortAfterTurns) bound.abort();
      if (turns > 2 * TURNS_MAX) throw new Error('the session does not end');
      this.answer(this.old);
      if (this.random.below(20) !== 0) this.answer(this.target);
      else this.clock.advance(this.random.below(60));
      await turn();
    }
    await removed;
    this.#isRemoving = false;
    if (finish && this.mirror.inStep) this.#compare();
    this.mirror.finish = false;
    this.install();
  }

  /** The daemon of the VM's host is killed and started again: the map is all that it leaves. */
  restart(): void {
    this.#map.close();
    this.#endJob();
    const map = DirtyMap.open(this.#mapOptions());
    if (map === undefined) throw new Error('the map cannot be opened again');
    this.#map = map;
    this.mirror = this.#newMirror();
    this.old.killDaemon(() => this.random.below(2) === 0);
  }

  /** The job failed, and is started anew. */
  startAnew(): void {
    if (this.failure === undefined) return;
    this.failure = undefined;
    this.#endJob();
    this.#map.close();
    this.target.writesFail = false;
    this.#begin(undefined);
    this.old.killDaemon(() => this.random.below(2) === 0);
  }

  /** The power of the new disk's host goes. */
  losePower(): void {
    this.target.flushFails = false;
    this.target.losePower(() => this.random.below(2) === 0);
  }

  /** Everything is well from here on: the copy must come to its end, and the switch be right. */
  async finish(): Promise<void> {
    this.isTargetAway = false;
    this.target.writesFail = false;
    if (this.target.flushFails) this.losePower();
    this.mirror.resume();
    this.mirror.speed = undefined;
    for (let turns = 0; !this.mirror.converged || this.guest.lent.size > 0; turns++) {
      if (turns > TURNS_MAX) throw new Error(`it does not converge: ${JSON.stringify(this.mirror.progress)}`);
      this.startAnew();
      this.answer(this.old);
      this.answer(this.target);
      if (turns % 50 === 49) this.clock.advance(1_000);
      await turn();
    }
    for (let tries = 0; ; tries++) {
      this.clock.advance(20_000);
      await turn();
      this.wasInStep = false;
      await this.renew(true);
      if (this.wasInStep) break;
      if (tries > 20) throw new Error('it does not come in step');
    }
    this.guest.breaches.push(...this.model.mistakes);
    if (this.guest.breaches.length > 0) throw new Error(this.guest.breaches.join('; '));
  }

  async dispose(): Promise<void> {
    this.old.automatic = true;
    const closing = this.slot.close();
    this.#endJob();
    await closing;
    this.#map.close();
    rmSync(this.#folder, { recursive: true });
  }

  /** What the switch would give the guest: the same, also if the new disk's host loses its power right behind it. */
  #compare(): void {
    this.wasInStep = true;
    const { memory } = this.old;
    for (const [what, other] of [
      ['what the new disk has', this.target.memory],
      ['what the new disk has flushed', this.target.stable],
    ] as const) {
      if (other.equals(memory)) continue;
      const at = memory.findIndex((byte, i) => byte !== other[i]);
      throw new Error(
        `${what} differs at ${at} (region ${Math.floor(at / REGION_BYTES_MIN)}): ${other[at]}, not ${memory[at]}`,
      );
    }
    const wrong = this.model.check(memory);
    if (wrong !== undefined) throw new Error(wrong);
  }

  #begin(extents: readonly Extent[] | undefined): void {
    this.#jobs++;
    this.#map = DirtyMap.create(this.#mapOptions(), extents);
    this.mirror = this.#newMirror();
  }

  #mapOptions() {
    return { path: join(this.#folder, 'map'), owner: `job ${this.#jobs}`, capacityBytes: CAPACITY_BYTES };
  }

  #newMirror(): Mirror {
    return new Mirror({
      map: this.#map,
      clock: this.clock,
      allocate: (bytes) => Object.assign(new MemoryRegion(bytes), { release: () => {} }),
      blankTarget: this.#blank && this.#jobs === 1,
      openTarget: async () => {
        if (this.isTargetAway) throw new NetbusError('unreachable', 'the host of the new disk is away');
        const device = this.target.open() as ForgetfulDevice;
        this.#endsLate(device);
        const { bootId, instance } = this.target;
        return { device, ids: { bootId, instance }, close: () => {} };
      },
      onConverged: () => {},
      onFailed: (cause) => {
        this.failure = cause;
      },
    });
  }

  #endJob(): void {
    const { mirror } = this;
    void mirror.close();
  }

  /** What it holds when it is closed is done or not. */
  #endsLate(device: ForgetfulDevice): void {
    const close = device.close.bind(device);
    device.close = () => {
      device.end(() => this.random.below(2) === 0);
      return close();
    };
  }

  /** The old disk has data here and there; the new one has nothing, or something else. */
  #fillDisks(): Extent[] {
    const { random } = this;
    const extents: Extent[] = [];
    for (let position = 0; position < CAPACITY_BYTES; position += REGION_BYTES_MIN) {
      const length = Math.min(REGION_BYTES_MIN, CAPACITY_BYTES - position);
      if (!this.#blank) this.target.memory.fill(1 + random.below(255), position, position + length);
      if (random.below(3) === 0) continue;
      extents.push({ position, length });
      this.old.memory.fill(random.below(2) === 0 ? 0 : 1 + random.below(255), position, position + length);
    }
    this.target.stable = Buffer.from(this.target.memory);
    return extents;
  }

  #answered(row: number, status: number): void {
    if (status !== DiskStatus.ok) this.guest.breaches.push(`a request of kind ${this.guest.requests.kind[row]} failed`);
    const length = this.guest.requests.extent[row];
    if (this.guest.requests.kind[row] === DiskKind.read) this.model.wasRead(row, this.guest.payload(row, length));
    else this.model.wasWritten(row);
    // The guest uses its memory for something else from here on.
    if (this.guest.requests.kind[row] === DiskKind.write) this.guest.fill(row, new Uint8Array(length).fill(0xee));
  }
}
