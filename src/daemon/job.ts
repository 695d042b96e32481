/** What a kind of job does; everything that all of them have in common is in running-job.ts and jobs.ts. */
import type { JobProgress, jobEndStates } from '../api/jobs.ts';
import type { ErrorCode } from '../device/errors.ts';
import type { JobRecord } from './job-record.ts';
import type { StoredRecord } from './record.ts';

export interface JobEnd {
  readonly state: (typeof jobEndStates)[number];
  /** Of one that failed: one line for people. */
  readonly reason?: string | undefined;
  readonly code?: ErrorCode | undefined;
}

/**
 * One try. It keeps what it has to know after a restart in its record; `paused` and `bytesPerSecondMax` are stored there by the caller, which the job
 * reads when it begins, and hears of by the calls below afterwards.
 */
export interface Job {
  /**
   * Begins; resolves when it copies. Rejects with a NetbusError where it is refused: nothing is left of it at any host then, and the caller closes the
   * job and removes its record, or makes another job of it later.
   */
  start(): Promise<void>;
  /** Goes on from the record that it was made with, after a restart of the daemon: from the beginning, where that has no `generation`. Never rejects: what cannot be done yet is tried again. */
  resumeAfterRestart(): Promise<void>;
  /** At any time, also when it is over. */
  describe(): JobProgress;
  pause(): void;
  resume(): void;
  /** Resolves when everything is undone, `ended` too. Rejects with `ended` where it is too late for that, and the job goes on. Twice is once. */
  cancel(): Promise<void>;
  /** undefined: as fast as it goes. */
  setSpeed(bytesPerSecondMax: number | undefined): void;
  /** Resolves when it is over, every host knows it, and nothing of it is open any more; never rejects. Pending for ever once it is closed. */
  readonly ended: Promise<JobEnd>;
  /** The daemon stops: whatever is open is closed, and the record stays as it is. Twice is once. */
  close(): Promise<void>;
}

export interface MakeJobOptions {
  /** Already stored. The job changes `state`, `from`, `attachment` and `generation`; how it ended is stored for it. */
  readonly record: StoredRecord<JobRecord>;
}

/** Must not touch anything yet, and takes its place in the path of its virtual device at once: after a restart that is before any guest comes. */
export type MakeJob = (options: MakeJobOptions) => Job;
