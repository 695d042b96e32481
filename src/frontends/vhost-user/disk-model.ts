/** A disk behind vhost-user rings: virtio-blk's features and configuration space before a Source. */
import { DiskStatus } from '../../device/disk.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { DiskProfile } from '../../device/profile.ts';
import type { Passage, Source } from '../../device/source.ts';
import type { BusyPoll } from '../../lib/busy-poll.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { hasFeature, VirtioFeature } from '../../protocols/vhost-user/index.ts';
import {
  BLOCK_CONFIG_WRITEBACK_OFFSET,
  BlockFeature,
  blockConfigOf,
  blockFeatureBits,
  encodeBlockConfig,
} from '../../protocols/virtio-blk/index.ts';
import type { DeviceModel } from './device-model.ts';
import { DeviceUse } from './device-use.ts';
import type { DirtyLog } from './dirty-log.ts';
import { DiskRequests } from './disk-requests.ts';
import type { DiskStatistics } from './disk-statistics.ts';
import type { LeftRequests } from './left-requests.ts';
import { RequestRows } from './request-rows.ts';
import type { Ring } from './ring.ts';
import { RingPump } from './ring-pump.ts';
import type { RingTimes } from './ring-times.ts';

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
  readonly dirtyLog: DirtyLog;
  readonly clock: Clock;
  readonly log: Log;
  /** For the guest's next request. */
  readonly requestPoll: BusyPoll;
  readonly statistics: DiskStatistics;
  readonly writeCache: WriteCache;
  /** Of earlier connections, and of this one at its end. */
  readonly left: LeftRequests;
  /** The bound of a stop. */
  readonly quiesceMsMax: number;
  readonly times: RingTimes;
  /** The last use of the source is over. */
  readonly previous: Promise<void>;
}

export class DiskModel implements DeviceModel {
  readonly features: bigint;
  readonly #writeCache: WriteCache;
  readonly #requests: DiskRequests;
  readonly #pump: RingPump;
  readonly #use: DeviceUse;
  readonly #passage: Passage | undefined;
  #accepted = 0n;
  #mayLeave = false;

  constructor(options: DiskModelOptions) {
    const { profile, passage } = options.source;
    this.#passage = passage;
    this.features = blockFeatureBits(profile);
    this.#writeCache = options.writeCache;
    const rows = new RequestRows(options.depth, options.rings.length, options.dirtyLog);
    this.#requests = new DiskRequests(profile, this.features, rows, options.statistics);
    this.#pump = new RingPump({ ...options, rows, reader: this.#requests });
    this.#use = new DeviceUse({ ...options, rows, pump: this.#pump, failedStatus: DiskStatus.ioError });
  }

  get closed(): Promise<void> {
    return this.#use.closed;
  }

  /** Requests without an answer. */
  get inFlight(): number {
    return this.#use.inFlight;
  }

  /** The capacity has changed. */
  profileChanged(profile: DiskProfile): void {
    this.#requests.profile = profile;
  }

  /** The write cache is as it was chosen elsewhere. */
  writeCacheChosen(): void {
    this.#chooseDurability();
  }

  readConfig(): Uint8Array {
    return encodeBlockConfig(blockConfigOf(this.#requests.profile, this.#writeCache.enabled));
  }

  writeConfig(offset: number, data: Uint8Array): string | undefined {
    if (!hasFeature(this.features, BlockFeature.configWce)) return 'this disk has nothing that a driver may write';
    if (offset !== BLOCK_CONFIG_WRITEBACK_OFFSET || data.length !== 1) return 'a driver may write the write cache byte only';
    const enabled = data[0] !== 0;
    if (enabled !== this.#writeCache.enabled) {
      this.#writeCache.enabled = enabled;
      this.#writeCache.onChange(enabled);
    }
    this.#chooseDurability();
    return undefined;
  }

  featuresAccepted(features: bigint): void {
    this.#accepted = features;
    this.#chooseDurability();
    this.#tellMayLeave(hasFeature(features, VirtioFeature.logAll));
    // The first word of a front-end that starts its rings.
    this.#use.comes();
  }

  needsKick(ring: Ring): boolean {
    return this.#use.needsKick(ring);
  }

  handOverOf(ring: Ring): QueueHandOver | null | undefined | 'expected' {
    return this.#use.handOverOf(ring);
  }

  ringHeld(): void {
    this.#use.ringHeld();
  }

  ringStarted(ring: Ring): void {
    this.#use.ringStarted(ring);
  }

  wake(): void {
    this.#pump.run();
  }

  stopRing(ring: Ring): Promise<number> {
    return this.#use.stopRing(ring);
  }

  end(): Promise<void> {
    return this.#use.end().finally(() => this.#tellMayLeave(false));
  }

  #tellMayLeave(expected: boolean): void {
    if (expected === this.#mayLeave) return;
    this.#mayLeave = expected;
    this.#passage?.mayLeave(expected);
  }

  /** virtio 1.2, 5.2.6.2: without FLUSH the driver cannot ask for stable storage, so each write must be there when it is answered. */
  #chooseDurability(): void {
    this.#requests.durable = !hasFeature(this.#accepted, BlockFeature.flush) || !this.#writeCache.enabled;
  }
}
