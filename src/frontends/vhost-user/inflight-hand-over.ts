/**
 * What a guest's queues were left with, from the file of its in-flight region alone: the daemon was started again, and the VMM, which has the guest's
 * memory, has not come back.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { QueueHandOver } from '../../device/hand-over.ts';
import { InflightQueue, inflightBytes, QUEUE_SIZE_MAX } from '../../protocols/virtqueue/index.ts';

/**
 * One for each of the device's `queues`, in order. Undefined where there is no such file, where no queue was ever started with it, and where no device
 * with so many queues can have left it behind.
 */
export function readInflightHandOver(path: string, queues: number): QueueHandOver[] | undefined {
  const bytes = readRegion(path, queues * inflightBytes(QUEUE_SIZE_MAX));
  if (bytes === undefined) return undefined;
  // The file does not say what its parts are like, but each part in use says how many entries it has.
  for (let size = 1; size <= QUEUE_SIZE_MAX; size *= 2) {
    const count = bytes.byteLength / inflightBytes(size);
    if (!Number.isInteger(count) || count > queues) continue;
    const parts = Array.from({ length: count }, (_, i) => new InflightQueue(partOf(bytes, i, inflightBytes(size)), size));
    if (!parts.some(({ inUse }) => inUse)) continue;
    const left = parts.map((part) => part.handOver());
    if (left.every((each) => each !== undefined)) return [...left, ...unused(queues - count)];
  }
  return undefined;
}

const partOf = (bytes: ArrayBuffer, index: number, length: number) => bytes.slice(index * length, (index + 1) * length);

function unused(count: number): QueueHandOver[] {
  return Array.from({ length: count }, () => ({ fetched: 0, usedIndex: 0, heads: [], lastBatch: [] }));
}

/** A copy of the file; undefined where it is none, or larger than `bytesMax`. */
function readRegion(path: string, bytesMax: number): ArrayBuffer | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return undefined;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > bytesMax) return undefined;
    const bytes = new Uint8Array(stat.size);
    return readSync(fd, bytes, 0, stat.size, 0) === stat.size ? bytes.buffer : undefined;
  } catch {
    return undefined;
  } finally {
    closeSync(fd);
  }
}
