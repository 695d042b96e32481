/**
 * The mirror of one job: brings a new disk to the state of the old one while the guest works on, and keeps it there until the switch. It outlives the
 * guest's sessions, each of which gets a device of its own (`wrap`), and the new disk's, which it opens again when one is lost.
 *
 * It is in step when the new disk has everything, flushed. Two modes lead there, as QEMU's mirror has them: the first pass copies in the background;
 * behind it the guest's writes go to both.
 */
import type { StagingRegion } from '../../bus/staging.ts';
import type { Device } from '../../device/device.ts';
import { DiskStatus } from '../../device/disk.ts';
import { NetbusError } from '../../device/errors.ts';
import { deviceNumber } from '../../filters/write-log/write-log.ts';
import type { Clock } from '../../lib/clock.ts';
import { COPY_BYTES, Copier, type CopierOwner } from './copier.ts';
import { COPY_SLOTS } from './copy-slots.ts';
import type { DirtyMap } from './dirty-map.ts';
import { GUEST_ROWS } from './guest-rows.ts';
import { MirrorDevice } from './mirror-device.ts';
import type { MirrorOptions, MirrorProgress } from './mirror-options.ts';
import { Rate } from './rate.ts';
import { type OpenedTarget, Target, type TargetOwner, writeFailed } from './target.ts';
import { TargetFlush } from './target-flush.ts';

/** What a guest waits for the new disk alone, before that is cut loose. */
const GUEST_WAIT_MS = 100;

export class Mirror implements CopierOwner, TargetOwner {
  readonly map: DirtyMap;
  readonly clock: Clock;
  readonly rate: Rate;
  readonly target: Target;
  readonly copier: Copier;
  readonly blankTarget: boolean;
  readonly guestWaitMs: number;
  /** The next quiesce is the switch's: it copies and flushes what is left. */
  finish = false;
  readonly #options: MirrorOptions;
  readonly #memory: StagingRegion;
  #session: MirrorDevice | undefined;
  #isPaused = false;
  #failure: NetbusError | undefined;
  #isClosed = false;
  /** Nothing of the new disk uses the memory any more. */
  #mayRelease = false;
  readonly #flush: TargetFlush;
  /** A flush that began when nothing was dirty was answered, and nothing is dirty since. */
  #isCalm = false;
  #wasConverged = false;
  #isInStep = false;
  #tellDrained: ((isInStep: boolean) => void) | undefined;

  /** Opens the new disk at once; copies as soon as there is a session. */
  constructor(options: MirrorOptions) {
    this.#options = options;
    this.map = options.map;
    this.clock = options.clock;
    this.blankTarget = options.blankTarget ?? false;
    this.guestWaitMs = options.guestWaitMs ?? GUEST_WAIT_MS;
    this.rate = new Rate(options.clock, options.speed);
    this.#memory = options.allocate(COPY_BYTES);
    this.#flush = new TargetFlush(this);
    this.copier = new Copier(this, this.#memory, GUEST_ROWS);
    this.target = new Target({ open: options.openTarget, clock: options.clock, rows: GUEST_ROWS + COPY_SLOTS, owner: this });
    this.target.begin();
  }

  /** A device for one session of the guest, which takes `old` over. The one before it is closed. */
  wrap(old: Device): MirrorDevice {
    this.#isInStep = false;
    this.#wasConverged = false;
    return new MirrorDevice(old, this);
  }

  /** The new disk has everything, flushed, and the session that brought that about takes nothing more. */
  get inStep(): boolean {
    return this.#isInStep && !this.map.faulty;
  }

  /** The switch may be made now. */
  get converged(): boolean {
    return this.isMirroring && this.#session !== undefined && this.map.dirty === 0 && this.#isCalm;
  }

  /** What the guest wrote since is flushed, and only then it is converged again: little is left for the pause of the switch. */
  flushAgain(): void {
    this.#isCalm = false;
    this.tend();
  }

  /** Bytes per second of the copies; undefined: no bound. */
  get speed(): number | undefined {
    return this.rate.limit;
  }

  set speed(speed: number | undefined) {
    this.rate.limit = speed;
    this.copier.stopWaiting();
    this.tend();
  }

  /** Nothing is sent to the new disk any more: the guest's writes go to the old one alone. */
  pause(): void {
    this.#isPaused = true;
    this.copier.stop();
    this.#drained(false);
    this.#session?.deliver();
    this.tend();
  }

  resume(): void {
    this.#isPaused = false;
    this.tend();
  }

  get progress(): MirrorProgress {
    const { map, target } = this;
    const { reason } = target;
    return {
      mode: map.blocking ? 'blocking' : 'background',
      phase: this.#phase,
      totalBytes: map.capacityBytes,
      doneBytes: map.capacityBytes - map.dirtyBytes,
      dirtyBytes: map.dirtyBytes,
      bytesPerSecond: this.rate.bytesPerSecond,
      ...(reason !== undefined && { targetReason: reason.message }),
    };
  }

  get #phase(): MirrorProgress['phase'] {
    if (this.#failure !== undefined) return 'failed';
    if (this.#isPaused) return 'paused';
    if (!this.target.isOpen || this.#session === undefined) return 'waiting';
    return this.converged ? 'converged' : 'copying';
  }

  /** Ends it at any time, twice is once: what is marked stays so. A session's device goes on as the old disk alone. Resolves when the new disk is free. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.copier.stop();
    await this.target.close(new NetbusError('ended', 'the copy was ended'));
    this.#mayRelease = true;
    this.tend();
  }

  /** The old disk of a session uses none of these slots any more. */
  reuse(slots: readonly number[]): void {
    this.copier.reuse(slots);
    this.tend();
  }

  // --- for the parts of it ---------------------------------------------------------------------------------------------

  get isCopying(): boolean {
    return this.target.isOpen && !this.#isPaused && this.#failure === undefined;
  }

  get isMirroring(): boolean {
    return this.isCopying && this.map.blocking;
  }

  get isDraining(): boolean {
    return this.#tellDrained !== undefined;
  }

  /** The disk is not larger than the map: one that grew cannot be copied. */
  holds(end: number): boolean {
    if (end <= this.map.capacityBytes) return true;
    this.fail(new NetbusError('device', 'the old disk grew while it was copied: start the copy again'));
    return false;
  }

  passed(): void {
    this.map.blocking = true;
  }

  /** Nothing leaves for the new disk before its region is marked. */
  send(row: number): void {
    const { table } = this.target;
    this.map.markUnflushed(table.argument[row], table.extent[row]);
    this.#flush.left(table.extent[row]);
    this.target.send(row);
  }

  attach(session: MirrorDevice): void {
    this.#session = session;
    this.copier.attach(session);
    this.tend();
  }

  /** Returns the slots of copies that its disk may still use. `isLent`: the new disk may use memory of its guest. */
  detach(session: MirrorDevice, isLent: boolean): number[] {
    const left = this.copier.detach(session);
    if (this.#session === session) {
      this.#session = undefined;
      this.#drained(false);
    }
    if (isLent) this.target.cut(new NetbusError('ended', "the guest's session with the old disk ended"));
    return left;
  }

  sessionLost(): void {
    this.#drained(false);
  }

  /** Resolves when everything is on the new disk and flushed there; or, at `signal` or when that cannot be, with less. */
  drain(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const abort = () => this.#drained(false);
      this.#tellDrained = (isInStep) => {
        signal.removeEventListener('abort', abort);
        this.#tellDrained = undefined;
        this.#isInStep = isInStep;
        resolve();
      };
      signal.addEventListener('abort', abort);
      if (signal.aborted || !this.isCopying) abort();
      else this.tend();
    });
  }

  /** Whatever may go on now does: copies, flushes, and what is told. */
  tend(): void {
    const { map, target, copier } = this;
    if (this.#isClosed) {
      this.#release();
      return;
    }
    if (map.dirty > 0) this.#isCalm = false;
    copier.fill();
    // What it looked at last may be what is gone.
    if (map.faulty) {
      this.fail(
        new NetbusError('device', 'the map of the copy is damaged, its file or its memory is gone: start the copy again'),
      );
      return;
    }
    target.push();
    const isLast = map.dirty === 0 && copier.busy === 0;
    this.#flush.tend(isLast && (this.isDraining || (map.blocking && !this.#isCalm)));
    if (isLast && map.unflushed === 0) {
      if (map.blocking) this.#isCalm = true;
      if (target.isOpen) this.#drained(true);
    }
    const { converged } = this;
    if (converged && !this.#wasConverged) queueMicrotask(this.#options.onConverged);
    this.#wasConverged = converged;
  }

  fail(cause: NetbusError): void {
    if (this.#failure !== undefined || this.#isClosed) return;
    this.#failure = cause;
    this.copier.stop();
    // Not from inside the guest's call.
    queueMicrotask(() => {
      void this.target.close(cause);
      this.#options.onFailed(cause);
    });
  }

  // --- the new disk ----------------------------------------------------------------------------------------------------

  opened({ device, ids }: OpenedTarget): NetbusError | undefined {
    const { capacityBytes, readOnly } = device.profile;
    if (capacityBytes < this.map.capacityBytes || readOnly) {
      const cause = new NetbusError('device', `the new disk is ${readOnly ? 'read-only' : 'smaller than the old one'}`);
      this.fail(cause);
      return cause;
    }
    const number = deviceNumber(ids);
    // In this order: whoever is killed in between copies once more than is needed.
    if (this.map.target !== number) this.map.forget();
    this.map.target = number;
    this.#options.onTarget?.(undefined);
    this.tend();
    return undefined;
  }

  answered(row: number, status: number): void {
    if (row === this.target.flushRow) {
      this.#flushAnswered(status);
      return;
    }
    if (row < GUEST_ROWS) this.#session?.targetAnswered(row, status);
    if (status !== DiskStatus.ok) this.fail(writeFailed(status));
    else if (row >= GUEST_ROWS) this.copier.wasWritten(row);
  }

  answeredAll(): void {
    this.#session?.deliver();
    this.tend();
  }

  gone(cause: NetbusError, rows: readonly number[]): void {
    this.#flush.stop();
    this.#isInStep = false;
    this.copier.targetGone();
    this.#session?.targetGone(rows);
    this.#drained(false);
    this.#wasConverged = false;
    this.#options.onTarget?.(cause);
  }

  #flushAnswered(status: number): void {
    if (status === DiskStatus.ok) {
      this.#isCalm = this.#flush.succeeded() || this.#isCalm;
      return;
    }
    this.#flush.failed();
    this.target.cut(new NetbusError('device', 'the new disk failed a flush, and may have lost what it was sent'));
  }

  /** Once it is closed, and no old disk reads into it any more. */
  #release(): void {
    if (!this.#mayRelease || this.copier.isReading) return;
    this.#mayRelease = false;
    this.#memory.release();
  }

  #drained(isInStep: boolean): void {
    this.#tellDrained?.(isInStep);
  }
}
