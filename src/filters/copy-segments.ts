import { native } from '../../native/index.ts';
import type { SegmentList } from '../device/segments.ts';

/** Copies `length` bytes out of segments in regions of the addon, beginning `skip` bytes into them, to a place of the region `target`. */
export function copyFromSegments(
  target: number,
  targetOffset: number,
  source: SegmentList,
  skip: number,
  length: number,
): void {
  for (let i = 0; i < source.count && length > 0; i++) {
    if (skip >= source.lengths[i]) {
      skip -= source.lengths[i];
      continue;
    }
    const take = Math.min(length, source.lengths[i] - skip);
    native.copyRegion(target, targetOffset, source.regions[i]!.handle, source.offsets[i] + skip, take);
    targetOffset += take;
    length -= take;
    skip = 0;
  }
}

/**
 * Copies `length` bytes between segments in regions of the addon, beginning `targetSkip` and `sourceSkip` bytes into them. Makes no view and
 * no other object. Returns the bytes copied: fewer where one of the two ends first.
 */
export function copySegments(
  target: SegmentList,
  targetSkip: number,
  source: SegmentList,
  sourceSkip: number,
  length: number,
): number {
  let copied = 0;
  let to = 0;
  let from = 0;
  while (copied < length && to < target.count && from < source.count) {
    if (targetSkip >= target.lengths[to]) {
      targetSkip -= target.lengths[to++];
    } else if (sourceSkip >= source.lengths[from]) {
      sourceSkip -= source.lengths[from++];
    } else {
      const take = Math.min(length - copied, target.lengths[to] - targetSkip, source.lengths[from] - sourceSkip);
      const targetHandle = target.regions[to]!.handle;
      const sourceHandle = source.regions[from]!.handle;
      native.copyRegion(targetHandle, target.offsets[to] + targetSkip, sourceHandle, source.offsets[from] + sourceSkip, take);
      targetSkip += take;
      sourceSkip += take;
      copied += take;
    }
  }
  return copied;
}
