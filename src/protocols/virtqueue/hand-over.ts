/** What another host left of a queue, held against the rings that the guest has. Whoever sent it is not trusted, and the guest may be another. */
import type { QueueHandOver } from '../../device/hand-over.ts';
import type { InflightFinding, QueueStart } from './inflight.ts';

/** A queue of which nobody knows where it stands: an entry was taken that is neither answered nor unfinished. It fits no ring. */
export const UNKNOWN_QUEUE: QueueHandOver = { fetched: 1, usedIndex: 0, heads: [], lastBatch: [] };

/** `handOver` is null where nobody knows what was left. */
export function examineHandOver(handOver: QueueHandOver | null, start: QueueStart): InflightFinding {
  const found = handOver === null ? mismatch('nobody knows where it stood at the last host') : compare(handOver, start);
  // A driver that begins anew, perhaps on the way: nothing of what was before it is its own.
  return found.name === 'mismatch' && start.base === 0 && start.usedIndex === 0 ? { name: 'new' } : found;
}

function compare({ fetched, usedIndex, heads, lastBatch }: QueueHandOver, start: QueueStart): InflightFinding {
  const { size, base, availableIndex } = start;
  // All that was taken is answered, or unfinished.
  if (((fetched - usedIndex) & 0xffff) !== heads.length) return mismatch('it is not known where it stood at the last host');
  const outside = [...heads, ...lastBatch].find((head) => head >= size);
  if (outside !== undefined) return mismatch(`it names head ${outside}, the ring has ${size} entries`);
  if (new Set(heads).size !== heads.length || new Set(lastBatch).size !== lastBatch.length)
    return mismatch('it names a head twice');
  const done = (start.usedIndex - usedIndex) & 0xffff;
  if (done > lastBatch.length) return mismatch(`it knows ${usedIndex} answers, the driver has ${start.usedIndex}`);
  const answered = new Set(lastBatch.slice(0, done));
  const left = heads.filter((head) => !answered.has(head));
  const next = (start.usedIndex + left.length) & 0xffff;
  // A front-end that lost its back-end knows no better than the used index.
  if (base !== next && base !== start.usedIndex) return mismatch(`it goes on from entry ${next}, the VMM from ${base}`);
  const awaited = (availableIndex - start.usedIndex) & 0xffff;
  if (left.length > awaited || awaited > size)
    return mismatch(`it has ${left.length} unfinished requests, the driver of ${size} entries waits for ${awaited}`);
  return { name: 'handed-over', heads: left };
}

function mismatch(reason: string): InflightFinding {
  return { name: 'mismatch', reason };
}
