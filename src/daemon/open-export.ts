import { openDiskSource } from '../backends/disk/disk.ts';
import { openNbdSource } from '../backends/nbd/nbd.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { OpenExport } from './export.ts';

/** Opens what an export names: an image file, a block device, or an export of an NBD server. */
export function exportOpener(clock: Clock, log: Log): OpenExport {
  return (record, { signal, waitForLock, onWaiting, onFlushFailed, onFailure, onLost }) => {
    const { disk, nbd, readOnly, direct, reopened } = record;
    const more = { readOnly, clock, log, onFlushFailed, onFailure };
    const wait = { signal, onWaiting };
    // Each opening of it is another instance, also by a daemon that was restarted.
    if (nbd !== undefined) return openNbdSource({ uri: nbd, onLost, ...(waitForLock && { waitForServer: wait }), ...more });
    return openDiskSource({ path: disk!, direct, reopened, ...(waitForLock && { waitForLock: wait }), ...more });
  };
}
