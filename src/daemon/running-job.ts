/** A job from the moment in which it is asked for until it is over: it waits until it can begin, may be paused and cancelled, and ends with a record. */
import type { JobEntry, JobProgress } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Job, JobEnd, MakeJob } from './job.ts';
import { deviceName, isOver, type JobRecord } from './job-record.ts';
import type { StoredRecord } from './record.ts';

/** Between two tries to begin. */
export const BEGIN_RETRY_MS = 2_000;
/** A virtual device that has not settled on this host by then never will. */
export const BEGIN_MS_MAX = 24 * 3_600_000;
/** How long whoever cancels is kept waiting for everything to be undone. */
export const CANCEL_MS_MAX = 20_000;
/** Between two tries to store how it ended. */
export const STORE_RETRY_MS = 10_000;
const NOT_FORGOTTEN = 'a job that was refused is not forgotten';
const REASON_CHARACTERS_MAX = 1_000;

export interface RunningJobOptions {
  readonly record: StoredRecord<JobRecord>;
  readonly makeJob: MakeJob;
  readonly clock: Clock;
  readonly log: Log;
  /** It is over; told once, before that is stored. */
  readonly onEnded: (entry: JobEntry) => void;
}

type Ended = Pick<JobRecord, 'state' | 'endedAt' | 'reason' | 'code' | 'progress'>;

export class RunningJob {
  readonly #options: RunningJobOptions;
  /** The present try; undefined while it has not begun, and when it is over. */
  #job: Job | undefined;
  /** Of the try to begin that is under way. */
  #beginning: Promise<void> = Promise.resolve();
  /** Resolves when the job has ended, and that was seen here. */
  #seen: Promise<void> = Promise.resolve();
  /** Why it could not begin yet. */
  #waits: Pick<JobProgress, 'reason' | 'waitingSince'> = {};
  /** How it ended, which may not be stored yet. */
  #end: Ended | undefined;
  #stopTimer = () => {};
  #closed = false;

  /** Of one that was running when the daemon ended, its place in the path of the virtual device is taken at once. */
  constructor(options: RunningJobOptions) {
    this.#options = options;
    if (!isOver(this.record) && !hasNotBegun(this.record)) this.#job = options.makeJob({ record: options.record });
  }

  get record(): JobRecord {
    return this.#options.record.value;
  }

  get isOver(): boolean {
    return this.#end !== undefined || isOver(this.record);
  }

  /** Rejects where it is refused; nothing is left of it then. One whose virtual device has yet to settle is not refused here. */
  async start(): Promise<void> {
    const { record, log } = this.#options;
    await record.save();
    const job = this.#job;
    if (job === undefined) return void this.#tryToBegin();
    this.#beginning = job.start();
    try {
      await this.#beginning;
    } catch (thrown) {
      await job.close();
      // Of a daemon that stops nobody knows how far it came: the next one does, by the record.
      if (!this.#closed) await record.remove().catch((error: Error) => log.error({ reason: error.message }, NOT_FORGOTTEN));
      throw thrown;
    }
    this.#watch(job);
  }

  /** Never rejects; resolves when it was looked at what became of it. */
  async resumeAfterRestart(): Promise<void> {
    const job = this.#job;
    if (job === undefined) return this.#tryToBegin();
    this.#watch(job);
    await job.resumeAfterRestart();
    if (this.record.cancelling) job.cancel().catch(() => this.#forgetCancelling());
  }

  describe(): JobEntry {
    const { id, kind, vm, name, from, to, overwrite, bytesPerSecondMax, paused, cancelling, createdAt } = this.record;
    const { state, endedAt, reason, code, progress }: Ended = this.#end ?? this.record;
    const isEnded = state === 'done' || state === 'failed' || state === 'cancelled';
    const shown = isEnded ? progress : this.#progress();
    return {
      ...{ id, kind, vm, name },
      ...(from !== undefined && { from: deviceName(from) }),
      ...{ to: deviceName(to), overwrite },
      state: isEnded ? state : paused ? 'paused' : 'running',
      ...(cancelling && !isEnded && { cancelling }),
      ...(bytesPerSecondMax !== undefined && { bytesPerSecondMax }),
      createdAt,
      ...(endedAt !== undefined && { endedAt }),
      ...(reason !== undefined && { reason }),
      ...(code !== undefined && { code }),
      ...(shown !== undefined && { progress: shown }),
    };
  }

  async setPaused(paused: boolean): Promise<void> {
    this.#checkRuns();
    await this.#options.record.change(({ paused: _, ...rest }) => (paused ? { ...rest, paused } : rest));
    if (paused) this.#job?.pause();
    else this.#job?.resume();
  }

  async setSpeed(bytesPerSecondMax: number | undefined): Promise<void> {
    this.#checkRuns();
    await this.#options.record.change(({ bytesPerSecondMax: _, ...rest }) =>
      bytesPerSecondMax === undefined ? rest : { ...rest, bytesPerSecondMax },
    );
    this.#job?.setSpeed(bytesPerSecondMax);
  }

  /** Resolves when it is cancelled, or after CANCEL_MS_MAX, when it goes on to be. Rejects with `ended` where it is too late for that. */
  async cancel(): Promise<void> {
    this.#checkRuns();
    const { record, clock } = this.#options;
    // It holds for a daemon that is started anew meanwhile, too.
    await record.change((value) => ({ ...value, cancelling: true }));
    let stop = () => {};
    const late = new Promise<void>((resolve) => {
      stop = clock.after(CANCEL_MS_MAX, resolve);
    });
    try {
      await Promise.race([this.#cancel(), late]);
    } finally {
      stop();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stopTimer();
    await this.#job?.close();
    await this.#options.record.settled();
  }

  async #cancel(): Promise<void> {
    await this.#beginning.catch(() => undefined);
    const job = this.#job;
    if (job === undefined) {
      this.#stopTimer();
      return this.#ended({ state: 'cancelled' });
    }
    try {
      await job.cancel();
    } catch (thrown) {
      await this.#forgetCancelling();
      throw thrown;
    }
    await this.#seen;
  }

  async #forgetCancelling(): Promise<void> {
    await this.#options.record.change(({ cancelling: _, ...rest }) => rest).catch(() => undefined);
  }

  /** Until its virtual device has settled on this host. */
  async #tryToBegin(): Promise<void> {
    const { record, makeJob, clock } = this.#options;
    if (this.#closed || this.isOver || record.value.cancelling) return;
    let job: Job | undefined;
    try {
      job = makeJob({ record });
      this.#job = job;
      this.#beginning = job.start();
      await this.#beginning;
    } catch (thrown) {
      await job?.close();
      this.#job = undefined;
      const { code, message } = NetbusError.from(thrown);
      if (this.#closed) return;
      const waitedMs = clock.wallTime() - Date.parse(record.value.createdAt);
      const passes = code === 'in_use' || code === 'unreachable' || code === 'timeout';
      if (!passes || waitedMs >= BEGIN_MS_MAX) return this.#ended({ state: 'failed', reason: message, code });
      const waitingSince = this.#waits.waitingSince ?? new Date(clock.wallTime()).toISOString();
      this.#waits = { reason: message, waitingSince };
      this.#stopTimer = clock.after(BEGIN_RETRY_MS, () => void this.#tryToBegin());
      return;
    }
    this.#watch(job);
  }

  #watch(job: Job): void {
    this.#seen = job.ended.then((end) => {
      this.#job = undefined;
      return this.#ended(end, job.describe());
    });
  }

  async #ended({ state, reason, code }: JobEnd, last?: JobProgress): Promise<void> {
    if (this.#closed || this.isOver) return;
    const { clock, onEnded } = this.#options;
    this.#end = {
      state,
      endedAt: new Date(clock.wallTime()).toISOString(),
      ...(reason !== undefined && { reason: reason.slice(0, REASON_CHARACTERS_MAX) }),
      ...(code !== undefined && { code }),
      ...(last !== undefined && { progress: { ...last, reason: undefined, waitingSince: undefined, secondsLeft: undefined } }),
    };
    onEnded(this.describe());
    await this.#storeEnd();
  }

  /** Where it cannot be stored, a daemon that is started anew would find the same once more. */
  async #storeEnd(): Promise<void> {
    const { record, clock, log } = this.#options;
    try {
      await record.change(({ paused: _, cancelling: __, ...rest }) => ({ ...rest, ...this.#end }));
    } catch (thrown) {
      log.error({ job: record.value.id, reason: NetbusError.from(thrown).message }, 'the end of a job is not stored');
      if (!this.#closed) this.#stopTimer = clock.after(STORE_RETRY_MS, () => void this.#storeEnd());
    }
  }

  #progress(): JobProgress {
    const nothing = { phase: 'waiting', totalBytes: 0, doneBytes: 0, dirtyBytes: 0, bytesPerSecond: 0 } as const;
    return this.#job?.describe() ?? { ...nothing, ...this.#waits };
  }

  #checkRuns(): void {
    if (!this.isOver) return;
    const { id, state } = this.describe();
    throw new NetbusError('ended', `job ${id} is over: it is ${state}`);
  }
}

/** Nothing was touched for it yet at any host. */
function hasNotBegun({ state, from, generation }: JobRecord): boolean {
  return state === 'waiting' && from === undefined && generation === undefined;
}
