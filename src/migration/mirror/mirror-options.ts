/** What a mirror is made of, and what it says of itself. */
import type { AllocateStaging } from '../../bus/staging.ts';
import type { NetbusError } from '../../device/errors.ts';
import type { Clock } from '../../lib/clock.ts';
import type { DirtyMap } from './dirty-map.ts';
import type { OpenTarget } from './target.ts';

export interface MirrorOptions {
  /** What is to be copied. The caller closes it, behind the mirror. */
  readonly map: DirtyMap;
  readonly clock: Clock;
  readonly allocate: AllocateStaging;
  readonly openTarget: OpenTarget;
  /** The new disk is zeroes wherever the mirror wrote nothing: zeroes are not written there. */
  readonly blankTarget?: boolean;
  /** Bytes per second; left out: no bound. */
  readonly speed?: number;
  readonly guestWaitMs?: number;
  /** Nothing is dirty and the new disk was just flushed: the switch may be made now. Told when it becomes so, in each session anew. */
  readonly onConverged: () => void;
  /** The job cannot go on. The guest does, with the old disk. Told once. */
  readonly onFailed: (cause: NetbusError) => void;
  /** The new disk is not to be had, and why; undefined: it is, again. */
  readonly onTarget?: (cause: NetbusError | undefined) => void;
}

export interface MirrorProgress {
  readonly mode: 'background' | 'blocking';
  readonly phase: 'waiting' | 'copying' | 'paused' | 'converged' | 'failed';
  readonly totalBytes: number;
  readonly doneBytes: number;
  readonly dirtyBytes: number;
  readonly bytesPerSecond: number;
  /** Why the new disk is not there. */
  readonly targetReason?: string;
}
