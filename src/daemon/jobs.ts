/** The jobs of this host: those that run, at most one for each virtual device, and the last ones that are over. */
import type { JobEntry } from '../api/jobs.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { formatBytes, formatDuration } from '../lib/format.ts';
import type { Log } from '../lib/log.ts';
import type { EventRecorder } from './events.ts';
import type { MakeJob } from './job.ts';
import { type JobRecord, jobNumber } from './job-record.ts';
import { StoredRecord } from './record.ts';
import { RunningJob } from './running-job.ts';
import type { RecordStore } from './store.ts';
import { Turns } from './turns.ts';

/** At once, on one host. */
export const JOBS_RUNNING_MAX = 64;
/** Of those that are over the newest stay. */
export const JOBS_KEPT_MAX = 100;

export interface JobRequest {
  readonly vm: string;
  readonly name: string;
  readonly to: JobRecord['to'];
  readonly overwrite: boolean;
  readonly bytesPerSecondMax?: number | undefined;
  /** The VM has just come to this host: the job begins when its virtual device has settled here, and is not refused before that. */
  readonly whenSettled?: boolean;
}

export interface JobsOptions {
  readonly records: RecordStore<JobRecord>;
  readonly makeJob: MakeJob;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
}

export class Jobs {
  readonly #options: JobsOptions;
  /** By id, in the order in which they came. */
  readonly #jobs = new Map<string, RunningJob>();
  readonly #forgetting = new Turns();
  #last = 0;
  #closed = false;

  constructor(options: JobsOptions) {
    this.#options = options;
  }

  /** Takes the jobs of before, which have their places in the paths of their virtual devices then. */
  restore(records: ReadonlyMap<string, JobRecord>): void {
    const sorted = [...records.values()].sort((a, b) => jobNumber(a.id) - jobNumber(b.id));
    for (const record of sorted) {
      this.#last = jobNumber(record.id);
      this.#jobs.set(record.id, this.#make(record));
    }
  }

  /** They go on, once this host's virtual devices are back. Resolves when each has looked at what became of it, for which others are asked. Never rejects. */
  async resumeAll(): Promise<void> {
    const resumed = this.#running.map((job) => job.resumeAfterRestart());
    await Promise.all([this.#forgetting.run(() => this.#forgetOldest()), ...resumed]);
  }

  /**
   * Resolves when it has begun, or with `whenSettled` when it will. Throws what the job is refused for, and `in_use` where the virtual device has another
   * one, `limit`; nothing is left of it then.
   */
  async start({ vm, name, to, overwrite, bytesPerSecondMax, whenSettled = false }: JobRequest): Promise<JobEntry> {
    if (this.#closed) throw new NetbusError('ended', 'the daemon is stopping');
    const other = this.jobOf(vm, name);
    if (other !== undefined) {
      throw new NetbusError(
        'in_use',
        `job ${other.id} swaps ${vm}/${name} to ${other.to} already: see "netbus job ${other.id}"`,
      );
    }
    if (this.#running.length >= JOBS_RUNNING_MAX) {
      throw new NetbusError('limit', `${JOBS_RUNNING_MAX} jobs run on this host, which is the most: wait until one is over`);
    }
    const id = `j${++this.#last}`;
    const job = this.#make({
      ...{ version: 1, id, kind: 'swap', vm, name, to, overwrite },
      ...(bytesPerSecondMax !== undefined && { bytesPerSecondMax }),
      state: whenSettled ? 'waiting' : 'copying',
      createdAt: new Date(this.#options.clock.wallTime()).toISOString(),
    });
    this.#jobs.set(id, job);
    try {
      await job.start();
    } catch (thrown) {
      this.#jobs.delete(id);
      throw thrown;
    }
    const entry = job.describe();
    const from = entry.from === undefined ? '' : ` from ${entry.from}`;
    const when = whenSettled ? ' as soon as it has settled on this host' : '';
    this.#record('job.started', entry, `job ${id} swaps it${from} to ${entry.to}${when}`);
    return entry;
  }

  /** The oldest first. */
  entries(): JobEntry[] {
    return [...this.#jobs.values()].map((job) => job.describe());
  }

  /** Throws `not_found`. */
  find(id: string): JobEntry {
    return this.#find(id).describe();
  }

  /** The job that runs for a virtual device, paused or not. */
  jobOf(vm: string, name: string): JobEntry | undefined {
    return this.#running.find(({ record }) => record.vm === vm && record.name === name)?.describe();
  }

  /** Like those below it throws `not_found`, and `ended` for one that is over. */
  async pause(id: string): Promise<JobEntry> {
    return this.#setPaused(id, true);
  }

  async resume(id: string): Promise<JobEntry> {
    return this.#setPaused(id, false);
  }

  /** undefined: as fast as it goes. */
  async setSpeed(id: string, bytesPerSecondMax: number | undefined): Promise<JobEntry> {
    const job = this.#find(id);
    await job.setSpeed(bytesPerSecondMax);
    return job.describe();
  }

  /** Resolves when everything is undone, or with `cancelling` where that takes long. Throws `ended` where it is too late, too. */
  async cancel(id: string): Promise<JobEntry> {
    const job = this.#find(id);
    await job.cancel();
    return job.describe();
  }

  /** The records stay: a daemon that is started anew goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#jobs.values()].map((job) => job.close()));
    await this.#forgetting.idle();
  }

  get #running(): RunningJob[] {
    return [...this.#jobs.values()].filter((job) => !job.isOver);
  }

  #find(id: string): RunningJob {
    const job = this.#jobs.get(id);
    if (job !== undefined) return job;
    throw new NetbusError('not_found', `there is no job ${id} on this host: "netbus jobs" lists them`);
  }

  #make(value: JobRecord): RunningJob {
    const { records, makeJob, clock, log } = this.#options;
    const record = new StoredRecord(records, value.id, value);
    return new RunningJob({ record, makeJob, clock, log, onEnded: (entry) => this.#ended(entry) });
  }

  async #setPaused(id: string, paused: boolean): Promise<JobEntry> {
    const job = this.#find(id);
    const before = job.describe().state;
    await job.setPaused(paused);
    const entry = job.describe();
    if (entry.state !== before) {
      this.#record(paused ? 'job.paused' : 'job.resumed', entry, `job ${id} ${paused ? 'is paused' : 'goes on'}`);
    }
    return entry;
  }

  #ended(entry: JobEntry): void {
    this.#record('job.ended', entry, endText(entry));
    void this.#forgetting.run(() => this.#forgetOldest());
  }

  /** What cannot be removed is found again after a restart, and tried again then. */
  async #forgetOldest(): Promise<void> {
    const over = [...this.#jobs.values()].filter((job) => job.isOver);
    for (const { record } of over.slice(0, Math.max(0, over.length - JOBS_KEPT_MAX))) {
      this.#jobs.delete(record.id);
      await this.#options.records.remove(record.id).catch((thrown: unknown) => {
        this.#options.log.warn({ job: record.id, reason: NetbusError.from(thrown).message }, 'an old job is not forgotten');
      });
    }
  }

  #record(type: 'job.started' | 'job.paused' | 'job.resumed' | 'job.ended', entry: JobEntry, message: string): void {
    const { id, vm, name, from, to, state, code, progress } = entry;
    const details = {
      ...{ job: id, to, state },
      ...(from !== undefined && { from }),
      ...(code !== undefined && { code }),
      ...(progress?.stallMs !== undefined && { stallMs: progress.stallMs }),
    };
    this.#options.log.info({ attachment: `${vm}/${name}`, ...details }, message);
    const severity = state === 'failed' ? ({ severity: 'error' } as const) : {};
    this.#options.events.record({ type, subject: `${vm}/${name}`, message, details, ...severity });
  }
}

function endText({ id, from, to, state, reason, progress }: JobEntry): string {
  switch (state) {
    case 'done': {
      const copied = progress === undefined ? '' : `: ${formatBytes(progress.doneBytes)} were copied`;
      const stall =
        progress?.stallMs === undefined ? '' : `, and its guest stood still for ${formatDuration(progress.stallMs)}`;
      return `job ${id} has swapped it to ${to}${copied}${stall}`;
    }
    case 'cancelled':
      return `job ${id} was cancelled: it stays ${from === undefined ? 'where it is' : `at ${from}`}`;
    default:
      return `job ${id} failed: it stays ${from === undefined ? 'where it is' : `at ${from}`}${reason === undefined ? '' : `: ${reason}`}`;
  }
}
