/** `gather` and `scatter` of src/device/segments.ts for the data path: most payloads have one segment, and its copy needs no loop. */
import { gather, type SegmentList, scatter } from '../device/segments.ts';

/** Copies payload bytes [skip, skip + length) of `segments` to `target`. The segments have that many. */
export function copyOut(segments: SegmentList, skip: number, target: Uint8Array, targetOffset: number, length: number): void {
  if (segments.count === 1) {
    target.set(segments.regions[0]!.bytes(segments.offsets[0] + skip, length), targetOffset);
  } else {
    gather(segments, skip, target, targetOffset, length);
  }
}

/** Copies `length` bytes of `source` to the payload from `skip` on. The segments have room for them. */
export function copyIn(segments: SegmentList, skip: number, source: Uint8Array, sourceOffset: number, length: number): void {
  if (segments.count === 1) {
    const piece =
      sourceOffset === 0 && length === source.length ? source : source.subarray(sourceOffset, sourceOffset + length);
    segments.regions[0]!.bytes(segments.offsets[0] + skip, length).set(piece);
  } else {
    scatter(segments, skip, source, sourceOffset, length);
  }
}
