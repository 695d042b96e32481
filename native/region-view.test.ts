import assert from 'node:assert/strict';
import { test } from 'node:test';
import { native } from './index.ts';
import { NativeRegion } from './region.ts';

const GIB = 2 ** 30;

test('a region is seen through windows, also across where they begin', () => {
  const region = NativeRegion.allocate(3 * GIB);
  try {
    region.bytes(GIB - 2, 4).set([1, 2, 3, 4]);
    assert.deepEqual([...region.bytes(GIB, 2)], [3, 4]);
    assert.deepEqual([...region.bytes(GIB - 2, 2)], [1, 2]);
    assert.equal(region.bytes(2 * GIB, GIB).length, GIB);
    assert.equal(region.bytes(3 * GIB, 0).length, 0);
    for (const [offset, length] of [
      [3 * GIB, 1],
      [-1, 1],
      [0, GIB + 1],
      [Number.NaN, 1],
    ]) {
      assert.throws(() => region.bytes(offset, length), RangeError);
    }
  } finally {
    region.release();
  }
});

test('a file is mapped, shared, and released once', () => {
  const before = native.regionCount();
  const fd = native.createMemoryFile('test', 8192);
  const first = NativeRegion.map(fd, 0, 8192);
  const second = NativeRegion.map(fd, 4096, 4096);
  native.close(fd);
  first.bytes(4096, 2).set([7, 8]);
  const view = second.bytes(0, 2);
  assert.deepEqual([...view], [7, 8]);
  assert.equal(second.faults, 0);
  second.release();
  second.release();
  assert.equal(view.length, 0);
  assert.throws(() => second.bytes(0, 1), /released/);
  first.release();
  assert.equal(native.regionCount(), before);
});
