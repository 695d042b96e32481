import { NativeRegion } from '../../../native/region.ts';
import type { DiskProfile } from '../../device/profile.ts';
import type { FailureLog } from './failure-log.ts';
import { FlushState } from './flush-state.ts';

/** Zeroes that are written where the storage cannot make zeroes itself. Never written to, so that all of it stays the kernel's one zero page. */
export const ZEROES_BYTES = 1024 * 1024;

/** An image that is open and locked: what its source and all devices of it share. */
export class Image {
  readonly path: string;
  readonly fd: number;
  readonly isBlockDevice: boolean;
  readonly failures: FailureLog;
  readonly flushes = new FlushState();
  /** As it is now: the capacity follows the real size. */
  profile: DiskProfile;
  /** Until the storage says that it cannot (EOPNOTSUPP). */
  canDiscard = true;
  canZero = true;
  /** An operation met the end of the file before its capacity. */
  onEndMet: () => void = () => {};
  /** A flush failed for the first time. */
  onFlushFailed: () => void = () => {};
  #zeroes: NativeRegion | undefined;

  constructor(options: { path: string; fd: number; isBlockDevice: boolean; profile: DiskProfile; failures: FailureLog }) {
    this.path = options.path;
    this.fd = options.fd;
    this.isBlockDevice = options.isBlockDevice;
    this.profile = options.profile;
    this.failures = options.failures;
  }

  get zeroes(): NativeRegion {
    this.#zeroes ??= NativeRegion.allocate(ZEROES_BYTES);
    return this.#zeroes;
  }

  release(): void {
    this.#zeroes?.release();
  }
}
