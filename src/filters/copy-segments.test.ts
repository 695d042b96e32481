import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { NativeRegion } from '../../native/region.ts';
import { SegmentList } from '../device/segments.ts';
import { copySegments } from './copy-segments.ts';

const SIZE = 2000;
const target = NativeRegion.allocate(SIZE);
const source = NativeRegion.allocate(SIZE);
after(() => {
  target.release();
  source.release();
});

const places = fc.array(fc.record({ gap: fc.nat(5), length: fc.integer({ min: 1, max: 60 }) }), { maxLength: 20 });

/** The segments, and the offset of each of their bytes in the region. */
function listOf(region: NativeRegion, segments: readonly { gap: number; length: number }[]) {
  const list = new SegmentList();
  const bytes: number[] = [];
  let offset = 0;
  for (const { gap, length } of segments) {
    offset += gap;
    list.addSeparately(region, offset, length);
    for (let i = 0; i < length; i++) bytes.push(offset + i);
    offset += length;
  }
  return { list, bytes };
}

test('agrees with a copy byte by byte', () => {
  fc.assert(
    fc.property(places, places, fc.nat(100), fc.nat(100), fc.nat(800), (into, from, intoSkip, fromSkip, length) => {
      const to = listOf(target, into);
      const of = listOf(source, from);
      target.bytes(0, SIZE).fill(0);
      source.bytes(0, SIZE).forEach((_, i, all) => {
        all[i] = 1 + (i % 251);
      });
      const count = Math.max(0, Math.min(length, to.bytes.length - intoSkip, of.bytes.length - fromSkip));
      const expected = new Uint8Array(SIZE);
      for (let i = 0; i < count; i++) expected[to.bytes[intoSkip + i]] = 1 + (of.bytes[fromSkip + i] % 251);
      assert.equal(copySegments(to.list, intoSkip, of.list, fromSkip, length), count);
      assert.deepEqual(Buffer.from(target.bytes(0, SIZE)), Buffer.from(expected));
    }),
  );
});
