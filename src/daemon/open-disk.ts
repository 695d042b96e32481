import { openDiskSource } from '../backends/disk/disk.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { OpenExport } from './export.ts';

/** Opens what a disk's export names: an image file or a block device. */
export function diskOpener(clock: Clock, log: Log): OpenExport {
  return (record, { signal, waitForLock, onWaiting, onFlushFailed, onFailure }) => {
    const { disk, readOnly, direct, reopened } = record;
    return openDiskSource({
      path: disk,
      readOnly,
      direct,
      reopened,
      ...(waitForLock && { waitForLock: { signal, onWaiting } }),
      clock,
      log,
      onFlushFailed,
      onFailure,
    });
  };
}
