/**
 * The in-flight region of a device (GET_INFLIGHT_FD, SET_INFLIGHT_FD). The file is made here and kept by the VMM, which gives it back
 * on each connection and lets it go when its guest resets the device: so a region that comes back is of the same life of the driver.
 */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { NetbusError } from '../../device/errors.ts';
import { type InflightRegion as Description, RING_INDEX_MAX } from '../../protocols/vhost-user/index.ts';
import { InflightQueue, inflightBytes, isQueueSize, QUEUE_SIZE_MAX } from '../../protocols/virtqueue/index.ts';
import { MappedRegion } from './mapped-region.ts';
import { refused } from './ring-messages.ts';

/** As many as SET_VRING_KICK can name. */
const QUEUES_MAX = RING_INDEX_MAX + 1;
/** The VMM gets it as a descriptor; nobody needs the path but us. */
const FILE_MODE = 0o600;

/** A region that the VMM has given. */
export class InflightRegion {
  readonly #mapping: MappedRegion;
  readonly #queues: readonly InflightQueue[];

  /** Maps what is described of `fd`, which stays the caller's. Throws `protocol` for what cannot be. */
  constructor(fd: number, description: Description) {
    const { queues, queueSize, mmapSize, mmapOffset } = description;
    const bytes = regionBytes(description);
    if (mmapSize < bytes) throw refused(`${mmapSize} bytes are too few for ${queues} queues of ${queueSize} entries in flight`);
    if (mmapOffset !== 0) throw refused(`the in-flight region begins at byte ${mmapOffset} of its file, not at 0`);
    try {
      this.#mapping = new MappedRegion(fd, bytes);
    } catch (error) {
      throw refused(`the file of the in-flight region cannot be mapped: ${(error as Error).message}`);
    }
    const each = inflightBytes(queueSize);
    this.#queues = Array.from(
      { length: queues },
      (_, index) => new InflightQueue(this.#mapping.window(index * each, each), queueSize),
    );
  }

  /** Undefined where the region has none for that ring. */
  queue(index: number): InflightQueue | undefined {
    return this.#queues[index];
  }

  close(): void {
    this.#mapping.unmap();
  }
}

/**
 * Makes the file of a new region, in place of the one at `path`, and opens it; the descriptor is the caller's. Throws `protocol` for what
 * no device has, `device` where the file cannot be made.
 */
export function createInflightFile(path: string, asked: Description): { fd: number; description: Description } {
  const bytes = regionBytes(asked);
  const next = `${path}.new`;
  let fd = -1;
  try {
    rmSync(next, { force: true });
    fd = openSync(next, 'wx+', FILE_MODE);
    // Written, not truncated to its size: pages that there is no room for would be missing later, under a store.
    if (writeSync(fd, new Uint8Array(bytes)) !== bytes) throw new Error('no space left');
    renameSync(next, path);
    return { fd, description: { ...asked, mmapSize: bytes, mmapOffset: 0 } };
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    rmSync(next, { force: true });
    throw new NetbusError('device', `${path}: the in-flight region cannot be made: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function regionBytes({ queues, queueSize }: Description): number {
  if (!isQueueSize(queueSize))
    throw refused(`no queue has ${queueSize} entries in flight: a power of two up to ${QUEUE_SIZE_MAX}`);
  if (queues < 1 || queues > QUEUES_MAX) throw refused(`no device has ${queues} queues: 1 to ${QUEUES_MAX}`);
  return queues * inflightBytes(queueSize);
}
