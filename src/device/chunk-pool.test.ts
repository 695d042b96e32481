import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { ChunkPool } from './chunk-pool.ts';
import { SegmentList } from './segments.ts';

const CHUNK_BYTES = 16;

function lengthOf(list: SegmentList): number {
  let bytes = 0;
  for (let i = 0; i < list.count; i++) bytes += list.lengths[i];
  return bytes;
}

test('a pool gives neighbours as one segment and the same chunks again', () => {
  const pool = new ChunkPool(new MemoryRegion(10 * CHUNK_BYTES + 3), CHUNK_BYTES);
  assert.equal(pool.capacity, 10);
  const list = new SegmentList();
  assert.equal(pool.take(list, 40), true);
  assert.deepEqual([list.count, list.offsets[0], list.lengths[0], pool.free], [1, 0, 40, 7]);
  pool.give(list);
  assert.deepEqual([list.count, pool.free], [0, 10]);
  assert.equal(pool.take(list, 48), true);
  assert.deepEqual([list.count, list.offsets[0], list.lengths[0]], [1, 0, 48]);
});

test('a take that does not fit takes nothing', () => {
  const pool = new ChunkPool(new MemoryRegion(4 * CHUNK_BYTES), CHUNK_BYTES);
  const list = new SegmentList();
  assert.equal(pool.take(list, 4 * CHUNK_BYTES + 1), false);
  assert.deepEqual([list.count, pool.free], [0, 4]);
  assert.equal(pool.take(list, 0), true);
  assert.equal(list.count, 0);
});

test('giving back twice, or what is not of the pool, is a bug that is said', () => {
  const pool = new ChunkPool(new MemoryRegion(4 * CHUNK_BYTES), CHUNK_BYTES);
  const foreign = new SegmentList();
  foreign.add(new MemoryRegion(CHUNK_BYTES), 0, CHUNK_BYTES);
  assert.throws(() => pool.give(foreign), /not of this pool/);
  const own = new SegmentList();
  own.add(pool.region, 0, CHUNK_BYTES);
  assert.throws(() => pool.give(own), /twice/);
});

test('over random schedules no chunk is lent twice and none is lost', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ slot: fc.nat(7), bytes: fc.nat(100) }), { maxLength: 200 }), (steps) => {
      const pool = new ChunkPool(new MemoryRegion(16 * CHUNK_BYTES), CHUNK_BYTES);
      const lists = Array.from({ length: 8 }, () => new SegmentList());
      for (const { slot, bytes } of steps) {
        const list = lists[slot];
        if (list.count > 0) pool.give(list);
        else if (pool.take(list, bytes)) assert.equal(lengthOf(list), bytes);
        const used = new Set<number>();
        for (const lent of lists) {
          for (let i = 0; i < lent.count; i++) {
            for (let at = lent.offsets[i]; at < lent.offsets[i] + lent.lengths[i]; at++) {
              assert.equal(used.has(at), false);
              used.add(at);
            }
          }
        }
      }
      for (const list of lists) if (list.count > 0) pool.give(list);
      assert.equal(pool.free, pool.capacity);
    }),
  );
});
