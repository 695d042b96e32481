/** The mirror of one hot-swap in its daemon: the map on tmpfs, the new device's sessions, and its place between the guest and the old device. */
import type { AllocateStaging } from '../bus/staging.ts';
import { NetbusError } from '../device/errors.ts';
import type { Grant, OpenSession } from '../device/source.ts';
import { type DeviceIds, deviceNumber } from '../filters/write-log/write-log.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { DirtyMap, type DirtyMaps } from '../migration/mirror/dirty-map.ts';
import { Mirror } from '../migration/mirror/mirror.ts';
import type { MirrorProgress } from '../migration/mirror/mirror-options.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';

export interface SwapMirrorOptions {
  readonly path: string;
  /** Names the job, and this boot of this host. */
  readonly owner: string;
  readonly capacityBytes: number;
  readonly isBlank: boolean;
  readonly bytesPerSecondMax: number | undefined;
  readonly paused: boolean;
  /** Sessions of the new device. */
  readonly openTarget: OpenSession;
  /** Under which it is filled. */
  readonly generation: () => number;
  readonly allocate: AllocateStaging;
  /** DirtyMap itself where it is left out. */
  readonly maps?: DirtyMaps;
  readonly onConverged: () => void;
  readonly onFailed: (cause: NetbusError) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class SwapMirror {
  readonly #options: SwapMirrorOptions;
  readonly #map: DirtyMap;
  readonly #mirror: Mirror;
  /** What is to be copied is not known yet. */
  #isMapping = false;
  #toCopyBytes: number;
  #isPaused: boolean;
  #ids: DeviceIds | null = null;
  #isClosed = false;

  /** `left`: goes on with the map of a daemon before this one, if that is there. Throws `limit` where there is no memory. */
  constructor(options: SwapMirrorOptions, { left }: { left: boolean }) {
    this.#options = options;
    const { path, owner, capacityBytes, isBlank, openTarget, generation, allocate, maps = DirtyMap, clock } = options;
    this.#isPaused = options.paused;
    const place = { path, owner, capacityBytes };
    const found = left ? maps.open(place) : undefined;
    const known = found?.known ? found : undefined;
    if (known === undefined) found?.close();
    // On a device of zeroes only what is not zeroes is to be copied, and that is asked for when no write can be missed any more.
    this.#isMapping = known === undefined && isBlank;
    try {
      this.#map = known ?? maps.create(place, this.#isMapping ? [] : undefined);
      this.#map.known = !this.#isMapping;
    } catch (thrown) {
      throw new NetbusError('limit', `the map of the copy cannot be made: ${NetbusError.from(thrown).message}`);
    }
    this.#toCopyBytes = this.#isMapping ? 0 : capacityBytes;
    this.#mirror = new Mirror({
      map: this.#map,
      clock,
      allocate,
      blankTarget: isBlank,
      ...(options.bytesPerSecondMax !== undefined && { speed: options.bytesPerSecondMax }),
      openTarget: async (onEnded) => {
        // Whoever switches has ended its session on purpose.
        if (this.#mirror.finish) throw new NetbusError('ended', 'the new disk takes the place of the old one');
        const session = await openTarget(onEnded);
        try {
          const { bootId, instance, device } = await session.activate({ fills: generation() });
          this.#ids = { bootId, instance };
          return { device, ids: this.#ids, close: () => session.close() };
        } catch (thrown) {
          session.close();
          throw thrown;
        }
      },
      onConverged: options.onConverged,
      onFailed: options.onFailed,
    });
    if (this.#isMapping || this.#isPaused) this.#mirror.pause();
  }

  /** Sessions whose devices are mirrored. */
  wrap(open: OpenSession): OpenSession {
    return async (onEnded) => {
      const session = await open(onEnded);
      return {
        ...(session.ids !== undefined && { ids: session.ids }),
        activate: async () => {
          const grant = await session.activate();
          if (this.#isClosed) return grant;
          this.#follows(grant);
          return { ...grant, device: this.#mirror.wrap(grant.device) };
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  /** From now on no write is missed: learns what there is to copy, and copies it. */
  async begin(old: CopyHost, attachment: string): Promise<void> {
    if (!this.#isMapping) return;
    const { capacityBytes, log } = this.#options;
    try {
      for (let from: number | undefined = 0; from !== undefined && !this.#isClosed; ) {
        const { ranges, next }: Awaited<ReturnType<CopyHost['extents']>> = await old.extents(attachment, from);
        for (const [position, length] of ranges) this.#mark(position, length);
        from = next !== undefined && next > from ? next : undefined;
      }
    } catch (thrown) {
      log.info({ reason: NetbusError.from(thrown).message }, 'what of the disk is in use is not known: all of it is copied');
      this.#mark(0, capacityBytes);
    }
    if (this.#isClosed) return;
    this.#isMapping = false;
    this.#toCopyBytes = this.#map.dirtyBytes;
    this.#map.known = true;
    if (!this.#isPaused) this.#mirror.resume();
  }

  /** Of what there was to copy when that became known. What the guest has written behind the first pass is told when that is over. */
  get progress(): MirrorProgress {
    const progress = this.#mirror.progress;
    const { dirtyBytes } = progress;
    const totalBytes = Math.max(this.#toCopyBytes, dirtyBytes);
    const doneBytes = totalBytes - dirtyBytes;
    return { ...progress, totalBytes, doneBytes, dirtyBytes: progress.mode === 'blocking' ? dirtyBytes : 0 };
  }

  /** Of the new device, as it was granted last. */
  get ids(): DeviceIds | null {
    return this.#ids;
  }

  /** See Mirror. */
  get inStep(): boolean {
    return this.#mirror.inStep;
  }

  get converged(): boolean {
    return this.#mirror.converged;
  }

  /** See Mirror. */
  flushAgain(): void {
    this.#mirror.flushAgain();
  }

  set finish(finish: boolean) {
    this.#mirror.finish = finish;
  }

  set speed(bytesPerSecond: number | undefined) {
    this.#mirror.speed = bytesPerSecond;
  }

  /** The new device is there again, as another attachment: it is not waited for any longer. */
  targetIsBack(): void {
    this.#mirror.target.begin();
  }

  pause(): void {
    this.#isPaused = true;
    this.#mirror.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (!this.#isMapping) this.#mirror.resume();
  }

  /** Nothing goes to the new device any more. What a session that is still there writes is noted, for the next daemon. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#mirror.close();
  }

  /** After `close`, when no session has a device of it any more, and for good. */
  remove(): void {
    this.#map.close();
    DirtyMap.remove(this.#options.path);
  }

  /**
   * A lease that somebody had in between, without the mirror, may have changed anything; and an old device that forgot what nobody sends it again, as of an earlier start
   * of the guest, is not what was copied. In this order: whoever is killed in between copies once more than is needed.
   */
  #follows(grant: Grant): void {
    const map = this.#map;
    const { epoch, unflushed } = grant;
    const old = deviceNumber(grant);
    const isMissed = map.epoch !== 0 && epoch !== map.epoch + 1;
    const isForgotten = map.old !== 0 && map.old !== old && unflushed !== 'kept';
    if (isMissed || isForgotten) this.#mark(0, this.#options.capacityBytes);
    map.epoch = epoch;
    map.old = old;
  }

  #mark(position: number, length: number): void {
    const { capacityBytes } = this.#options;
    const end = Math.min(position + length, capacityBytes);
    if (!this.#isClosed && position < end) this.#map.markDirty(position, end - position);
  }
}
