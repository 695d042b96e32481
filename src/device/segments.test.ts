import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { clearBytes, gather, SEGMENTS_PER_MESSAGE_MAX, SegmentList, scatter } from './segments.ts';

test('neighbours become one segment, unless they must not', () => {
  const region = new MemoryRegion(100);
  const list = new SegmentList();
  list.add(region, 0, 10);
  list.add(region, 10, 10);
  assert.equal(list.count, 1);
  list.addSeparately(region, 20, 10);
  list.add(new MemoryRegion(100), 30, 10);
  assert.equal(list.count, 3);
});

test('a list ends at its bound', () => {
  const region = new MemoryRegion(4 * SEGMENTS_PER_MESSAGE_MAX);
  const list = new SegmentList();
  for (let i = 0; i < SEGMENTS_PER_MESSAGE_MAX; i++) assert.equal(list.add(region, 4 * i, 1), true);
  assert.equal(list.add(region, 2, 1), false);
  assert.equal(list.count, SEGMENTS_PER_MESSAGE_MAX);
  list.clear();
  assert.deepEqual([list.count, list.regions[0]], [0, undefined]);
});

const places = fc.array(fc.record({ gap: fc.nat(5), length: fc.integer({ min: 1, max: 40 }) }), {
  minLength: 1,
  maxLength: 20,
});

test('scatter, gather and clearBytes agree with a flat array', () => {
  fc.assert(
    fc.property(places, fc.nat(200), fc.nat(300), (segments, skip, length) => {
      const list = new SegmentList();
      const region = new MemoryRegion(2000);
      let offset = 0;
      let total = 0;
      for (const segment of segments) {
        offset += segment.gap;
        list.addSeparately(region, offset, segment.length);
        offset += segment.length;
        total += segment.length;
      }
      const expected = Math.max(0, Math.min(length, total - skip));
      const source = Uint8Array.from({ length: length + 3 }, (_, i) => 1 + (i % 255));
      assert.equal(scatter(list, skip, source, 3, length), expected);
      const back = new Uint8Array(length + 1);
      assert.equal(gather(list, skip, back, 1, length), expected);
      assert.deepEqual(back.subarray(1, 1 + expected), source.subarray(3, 3 + expected));
      // Nothing but the places was written.
      assert.equal(region.bytes(0, 2000).filter((byte) => byte !== 0).length, expected);
      clearBytes(list, skip, length);
      assert.equal(
        region.bytes(0, 2000).some((byte) => byte !== 0),
        false,
      );
    }),
  );
});
