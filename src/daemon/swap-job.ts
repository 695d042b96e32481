/**
 * The hot-swap of one virtual device of this host (src/device/copy-mark.ts): the new device is filled behind the guest's back, and takes the old one's place in a
 * pause. A try that comes to nothing is given up at both hosts, and the next one goes on with what was copied.
 */
import type { JobProgress } from '../api/jobs.ts';
import type { AllocateStaging } from '../bus/staging.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { DirtyMap, type DirtyMaps } from '../migration/mirror/dirty-map.ts';
import type { Persistent } from '../migration/swap/try.ts';
import type { SessionFilter } from './attachment.ts';
import type { Job, JobEnd } from './job.ts';
import type { JobRecord } from './job-record.ts';
import { Patience } from './patience.ts';
import { SwapMirror } from './swap-mirror.ts';
import { SwapProgress } from './swap-progress.ts';
import { putBack, SwapSwitch, type Switched } from './swap-switch.ts';
import { SwapTries, type SwapTriesOptions } from './swap-tries.ts';

/** Between two tries to switch. */
const SWITCH_RETRY_MS = 1_000;

export interface SwapJobOptions extends SwapTriesOptions {
  /** This host's, as a device of `host` is attached under it. */
  readonly membershipAt: (host: string) => string | undefined;
  /** See VirtualDeviceRecord. */
  readonly forgets: (device: JobRecord['to']) => boolean;
  readonly mapPath: string;
  /** Of this host: a map ends with it, also where the run folder does not. */
  readonly bootId: string;
  readonly allocate: AllocateStaging;
  /** See SwapMirrorOptions. */
  readonly maps?: DirtyMaps;
  /** It has nothing between the guest and its device any more. May be told twice. */
  readonly onOver: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class SwapJob implements Job {
  readonly ended: Promise<JobEnd>;
  readonly #options: SwapJobOptions;
  readonly #patience: Patience;
  readonly #tries: SwapTries;
  readonly #tellEnded: (end: JobEnd) => void;
  #mirror: SwapMirror | undefined;
  /** After a restart no guest gets the old device before its mirror is there. */
  #known: Promise<void> = Promise.resolve();
  #tellKnown: () => void = () => {};
  readonly #progress = new SwapProgress();
  /** How it is to end, which is not done. */
  #stopping: JobEnd | undefined;
  #switch: SwapSwitch | undefined;
  #wake: () => void = () => {};

  constructor(options: SwapJobOptions) {
    this.#options = options;
    this.#patience = new Patience(options.clock);
    this.#tries = new SwapTries(options);
    let tellEnded: (end: JobEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      tellEnded = resolve;
    });
    this.#tellEnded = tellEnded;
    if (this.record.generation === undefined) return;
    this.#known = new Promise((resolve) => {
      this.#tellKnown = resolve;
    });
  }

  get record(): JobRecord {
    return this.#options.record.value;
  }

  /** What comes between the guest and its device. */
  readonly filter: SessionFilter = (open) => async (onEnded) => {
    await this.#known;
    const { swap } = this.#options.attachment().record;
    // The new one is what it is a copy of.
    const isOld = swap === undefined && this.#progress.phase !== 'releasing';
    return (isOld ? (this.#mirror?.wrap(open) ?? open) : open)(onEnded);
  };

  // --- Job -------------------------------------------------------------------------------------------------------------

  async start(): Promise<void> {
    const { vm, name, to, overwrite } = this.record;
    const { profile, arriving, host, export: exported } = this.#options.attachment().record;
    if (profile.readOnly)
      throw new NetbusError('usage', `${vm}/${name} is read-only: there is nothing that a guest could write to a new disk`);
    if (arriving) throw new NetbusError('in_use', `VM ${vm} has not settled on this host yet: swap its disk when it has`);
    if (host === to.host && exported === to.export)
      throw new NetbusError('usage', `${vm}/${name} is at ${host}/${exported} already`);
    await this.#tries.begin(overwrite);
    try {
      this.#makeMirror({ left: false });
    } catch (thrown) {
      await this.#tries.settle(this.#patience);
      throw thrown;
    }
    void this.#run(() => this.#course());
  }

  resumeAfterRestart(): Promise<void> {
    if (this.record.generation !== undefined) {
      void this.#run(() => this.#resume());
      return Promise.resolve();
    }
    return this.start().catch((thrown: unknown) => this.#over(failure(thrown)));
  }

  describe(): JobProgress {
    return this.#progress.describe(this.#mirror?.progress, this.#patience.reason, () => this.#idleReason());
  }

  pause(): void {
    this.#mirror?.pause();
  }

  resume(): void {
    this.#mirror?.resume();
  }

  setSpeed(bytesPerSecondMax: number | undefined): void {
    if (this.#mirror !== undefined) this.#mirror.speed = bytesPerSecondMax;
  }

  async cancel(): Promise<void> {
    if (this.#progress.phase === 'releasing' || this.#progress.isOver) throw tooLate();
    this.#stop({ state: 'cancelled' });
    const { state } = await this.ended;
    if (state === 'done') throw tooLate();
  }

  /** The daemon ends; what it puts between the guest and its device stays until `close`. */
  endWaiting(): void {
    this.#patience.end();
    this.#tellKnown();
    this.#wake();
  }

  async close(): Promise<void> {
    this.endWaiting();
    this.#options.onOver();
    await this.#mirror?.close();
  }

  // --- the course of it ------------------------------------------------------------------------------------------------

  /** What is not expected ends it where it is: the guest goes on with what it has. */
  async #run(course: () => Promise<JobEnd>): Promise<void> {
    try {
      this.#over(await course().catch((thrown: unknown) => this.#undo(this.#stopping ?? failure(thrown))));
    } catch (thrown) {
      // Whoever is not let in by a device's host can undo nothing there.
      if (!this.#patience.ending.aborted) this.#over(failure(thrown));
    }
  }

  #over(end: JobEnd): void {
    this.#progress.isOver = true;
    this.#tellKnown();
    this.#options.onOver();
    this.#tellEnded(end);
  }

  /** From the moment in which both devices are marked. */
  async #course(): Promise<JobEnd> {
    const { attachment } = this.#options;
    await this.#mirrorGuest();
    const { host, attachment: id } = attachment().record;
    await this.#mirror!.begin(this.#options.deviceHost(host).copies, id);
    for (;;) {
      await this.#converged();
      const outcome = this.#stopping === undefined ? await this.#trySwitch() : 'stays';
      if (outcome === 'decided') return this.#finish();
      if (this.#stopping !== undefined) return this.#undo(this.#stopping);
      if (outcome === 'lost') await this.#beginAgain();
      await this.#patience.pause(SWITCH_RETRY_MS);
    }
  }

  /** A daemon before this one ended meanwhile. The guest goes on at once, unless the new device may be its already. */
  async #resume(): Promise<JobEnd> {
    if (this.record.state === 'finishing') return this.#finish();
    const target = this.#options.attachment();
    const isOpen = target.record.swap !== undefined;
    if (isOpen && (await this.#tries.settle(this.#patience)) === 'decided') return this.#finish();
    await putBack(target, this.#patience);
    this.#makeMirror({ left: true });
    if (isOpen || !(await this.#tries.isWhole(this.#unlessStopping))) await this.#beginAgain();
    return this.#course();
  }

  /** Another try, when the last one is over at both hosts, onto what is its own already. */
  async #beginAgain(): Promise<void> {
    await this.#tries.beginAgain(this.#unlessStopping);
    this.#mirror?.targetIsBack();
  }

  #makeMirror({ left }: { left: boolean }): void {
    const { record, attachment, deviceHost, bootId, mapPath, allocate, maps, clock, log } = this.#options;
    const { id, to, bytesPerSecondMax, paused = false } = record.value;
    const { capacityBytes } = attachment().record.profile;
    this.#mirror = new SwapMirror(
      {
        ...{ path: mapPath, owner: `${id}\n${bootId}`, capacityBytes, isBlank: this.#tries.isBlank, bytesPerSecondMax, paused },
        openTarget: (onEnded) => deviceHost(to.host).openSession(record.value.attachment!, this.#patience.ending)(onEnded),
        generation: () => record.value.generation!,
        ...{ allocate, clock, log },
        ...(maps !== undefined && { maps }),
        onConverged: () => this.#wake(),
        onFailed: (cause) => this.#stop(failure(cause)),
      },
      { left },
    );
    this.#tellKnown();
  }

  /** The guest's next session is mirrored, and it begins now. */
  async #mirrorGuest(): Promise<void> {
    const target = this.#options.attachment();
    if (target.connected) await this.#patience.warm(target.behind);
    await target.renew(async () => {});
  }

  /** Why there is nothing to mirror now, as far as that is known. */
  #idleReason(): string | undefined {
    const { state, connected } = this.#options.attachment();
    if ('cause' in state) return `the old disk is away: ${state.cause.message}`;
    return connected ? undefined : 'the VM does not use the disk at the moment';
  }

  async #trySwitch(): Promise<Switched['outcome']> {
    const { attachment, membershipAt, forgets } = this.#options;
    const tried = this.#tries.current;
    const { to } = this.record;
    const place = {
      ...{ ...to, attachment: tried.next.attachment, generation: tried.generation, membership: membershipAt(to.host) },
      ...(forgets(to) && { forgets: true as const }),
    };
    this.#progress.phase = 'switching';
    this.#switch = new SwapSwitch({
      ...{ target: attachment(), tried, place, mirror: this.#mirror!, patience: this.#patience },
      converged: () => this.#converged(),
      isStopping: () => this.#stopping !== undefined,
    });
    const switched = await this.#switch.run();
    this.#switch = undefined;
    this.#progress.phase = 'copying';
    if (switched.outcome === 'decided') this.#progress.stallMs = switched.stallMs;
    return switched.outcome;
  }

  /** The new device is the guest's. */
  async #finish(): Promise<JobEnd> {
    const { record, attachment } = this.#options;
    const { old, generation } = this.#tries.current;
    this.#progress.phase = 'releasing';
    this.#tellKnown();
    await this.#patience.persist(() => record.change((value) => ({ ...value, state: 'finishing' })));
    await this.#patience.persist(() => attachment().decided());
    await this.#dropMirror({ isInUse: false });
    await this.#patience.persist(() => old.host.supersede(old.attachment, generation));
    return { state: 'done' };
  }

  /**
   * The guest keeps the old device, whose host was not told to hand it over, or has taken that back. So the new one's host need not answer: what is there stays marked
   * as half-filled.
   */
  async #undo(end: JobEnd): Promise<JobEnd> {
    const { generation, old, next } = this.#tries.current;
    await this.#dropMirror({ isInUse: true });
    await next.host.abort(next.attachment, generation).catch((thrown: unknown) => {
      const { message } = NetbusError.from(thrown);
      this.#options.log.info(
        { job: this.record.id, reason: message },
        "the new device's host was not told that the swap is given up",
      );
    });
    await this.#patience.persist(() => old.host.abort(old.attachment, generation));
    return end;
  }

  /** `isInUse`: the guest may still have a device of it. */
  async #dropMirror({ isInUse }: { isInUse: boolean }): Promise<void> {
    this.describe();
    const mirror = this.#mirror;
    this.#mirror = undefined;
    await mirror?.close();
    if (isInUse) await this.#options.attachment().renew(async () => {});
    mirror?.remove();
    // Where there was none it is that of a daemon before this one.
    DirtyMap.remove(this.#options.mapPath);
  }

  #stop(end: JobEnd): void {
    this.#stopping ??= end;
    this.#wake();
    // It may wait for a new device that does not answer.
    this.#switch?.withdraw().catch(() => undefined);
  }

  // --- waiting ---------------------------------------------------------------------------------------------------------

  /** Asks as long as nobody wants the job to end. */
  readonly #unlessStopping: Persistent = {
    persist: (ask) =>
      this.#patience.persist(async () => {
        if (this.#stopping !== undefined) throw new NetbusError('usage', 'the job is to end');
        return ask();
      }),
  };

  /** Until the switch may be made, or the job is to end. */
  async #converged(): Promise<void> {
    while (!this.#mirror!.converged && this.#stopping === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#patience.check();
    }
    this.#patience.reason = undefined;
  }
}

function failure(thrown: unknown): JobEnd {
  const { code, message } = NetbusError.from(thrown);
  return { state: 'failed', code, reason: message };
}

function tooLate(): NetbusError {
  return new NetbusError('ended', 'it is too late to cancel: the guest uses the new device already');
}
