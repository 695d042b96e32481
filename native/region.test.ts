import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { native } from './index.ts';
import {
  ADDON_PATH,
  collectGarbage,
  NO_DESCRIPTOR,
  nextTurn,
  openDescriptors,
  systemError,
  temporaryDirectory,
} from './testing.ts';

const PAGE_BYTES = 4096;

function bytesOf(region: number, offset: number, length: number): Uint8Array {
  return new Uint8Array(native.regionWindow(region, offset, length));
}

test('a mapped region shares its memory with the file, also after the descriptor is closed', () => {
  const fd = native.createMemoryFile('guest', 4 * PAGE_BYTES);
  const other = native.duplicate(fd);
  const region = native.mapRegion(fd, PAGE_BYTES, 2 * PAGE_BYTES);
  native.close(fd);
  const window = bytesOf(region, 0, 2 * PAGE_BYTES);
  writeSync(other, Buffer.from('from the file'), 0, 13, PAGE_BYTES + 5);
  assert.equal(Buffer.from(window.subarray(5, 18)).toString(), 'from the file');
  window.set(Buffer.from('from the window'), PAGE_BYTES);
  const read = Buffer.alloc(15);
  readSync(other, read, 0, 15, 2 * PAGE_BYTES);
  assert.equal(read.toString(), 'from the window');
  native.unmapRegion(region);
  native.close(other);
});

test('a region has its exact length, not whole pages', () => {
  const fd = native.createMemoryFile('short', 100);
  const region = native.mapRegion(fd, 0, 100);
  assert.equal(native.regionWindow(region, 0, 100).byteLength, 100);
  assert.throws(() => native.regionWindow(region, 0, 101), RangeError);
  native.unmapRegion(region);
  native.close(fd);
});

test('a memory file is sealed against shrinking while it is mapped', () => {
  const fd = native.createMemoryFile('sealed', PAGE_BYTES);
  const region = native.mapRegion(fd, 0, PAGE_BYTES);
  assert.throws(() => ftruncateSync(fd, 0), { code: 'EPERM' });
  native.unmapRegion(region);
  native.close(fd);
});

test('mapRegion refuses what is not wholly in the file', (context) => {
  const fd = native.createMemoryFile('small', 2 * PAGE_BYTES);
  for (const [offset, length] of [
    [0, 2 * PAGE_BYTES + 1],
    [PAGE_BYTES, PAGE_BYTES + 1],
    [2 * PAGE_BYTES, 1],
    [2 ** 53 - 4096, PAGE_BYTES],
    [1, PAGE_BYTES],
  ]) {
    assert.throws(() => native.mapRegion(fd, offset!, length!), systemError('EINVAL', 'mmap'), `${offset} ${length}`);
  }
  for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    assert.throws(() => native.mapRegion(fd, value, 1), RangeError);
    assert.throws(() => native.mapRegion(fd, 0, value), RangeError);
    assert.throws(() => native.mapRegion(value, 0, 1), RangeError);
  }
  assert.throws(() => native.mapRegion(fd, 0, 0), RangeError);
  assert.throws(() => native.mapRegion('0' as unknown as number, 0, 1), TypeError);
  native.close(fd);
  assert.throws(() => native.mapRegion(NO_DESCRIPTOR, 0, 1), systemError('EBADF', 'fstat'));
  const directory = openSync(temporaryDirectory(context), 'r');
  assert.throws(() => native.mapRegion(directory, 0, 1), systemError('EINVAL', 'mmap'));
  closeSync(directory);
});

test('an allocated region is zeroed, and larger than memory where nobody uses it', () => {
  const region = native.allocateRegion(2 ** 40);
  const last = bytesOf(region, 2 ** 40 - 10, 10);
  assert.deepEqual([...last], new Array(10).fill(0));
  last[9] = 1;
  assert.equal(bytesOf(region, 2 ** 40 - 1, 1)[0], 1);
  assert.equal(native.regionFaults(region), 0);
  native.unmapRegion(region);
});

test('the same range gives the same window, overlapping ranges give windows of the same memory', () => {
  const region = native.allocateRegion(PAGE_BYTES);
  const whole = native.regionWindow(region, 0, PAGE_BYTES);
  assert.equal(native.regionWindow(region, 0, PAGE_BYTES), whole);
  const start = native.regionWindow(region, 0, 16);
  assert.notEqual(start, whole);
  new Uint8Array(whole)[3] = 42;
  assert.equal(new Uint8Array(start)[3], 42);
  native.unmapRegion(region);
  assert.equal(whole.byteLength, 0);
  assert.equal(start.byteLength, 0);
});

test('the longest window is 4 GiB - 1', () => {
  const region = native.allocateRegion(2 ** 33);
  const window = bytesOf(region, 2 ** 32, 2 ** 32 - 1);
  window[2 ** 32 - 2] = 9;
  assert.equal(bytesOf(region, 2 ** 33 - 2, 1)[0], 9);
  assert.throws(() => native.regionWindow(region, 0, 2 ** 32), RangeError);
  native.unmapRegion(region);
});

test('windows that were collected can be asked for again, and neither leak nor break unmapping', async () => {
  const region = native.allocateRegion(64 * PAGE_BYTES);
  const kept = native.regionWindow(region, 0, PAGE_BYTES);
  for (let round = 0; round < 5; round++) {
    for (let page = 0; page < 64; page++) bytesOf(region, page * PAGE_BYTES, PAGE_BYTES)[0] = page;
    collectGarbage();
    await nextTurn();
    assert.equal(native.regionWindow(region, 0, PAGE_BYTES), kept);
  }
  assert.equal(bytesOf(region, 63 * PAGE_BYTES, 1)[0], 63);
  native.unmapRegion(region);
  assert.equal(kept.byteLength, 0);
  collectGarbage();
  await nextTurn();
});

test('V8 counts nothing for a window that was detached', async () => {
  const before = process.memoryUsage();
  const region = native.allocateRegion(2 ** 32);
  assert.equal(native.regionWindow(region, 0, 2 ** 31).byteLength, 2 ** 31);
  native.unmapRegion(region);
  collectGarbage();
  await nextTurn();
  const after = process.memoryUsage();
  assert.ok(Math.abs(after.arrayBuffers - before.arrayBuffers) < 2 ** 28);
  assert.ok(Math.abs(after.external - before.external) < 2 ** 28);
});

test('a handle of an unmapped region never finds another one', () => {
  const stale = native.allocateRegion(1);
  native.unmapRegion(stale);
  const seen = new Set([stale]);
  for (let count = 0; count < 1000; count++) {
    const region = native.allocateRegion(1);
    assert.ok(!seen.has(region) && region > 0 && region < 2 ** 31);
    seen.add(region);
    native.unmapRegion(region);
  }
  for (const handle of [stale, 0, -1, 0.5, Number.NaN, 2 ** 31, 2 ** 40]) {
    assert.throws(() => native.regionWindow(handle, 0, 1), RangeError);
    assert.throws(() => native.unmapRegion(handle), RangeError);
    assert.throws(() => native.regionFaults(handle), RangeError);
    assert.throws(() => native.copyRegion(handle, 0, handle, 0, 0), RangeError);
  }
});

test('copyRegion copies between regions and over itself', () => {
  const source = native.allocateRegion(100);
  const target = native.allocateRegion(100);
  bytesOf(source, 0, 5).set([1, 2, 3, 4, 5]);
  native.copyRegion(target, 90, source, 0, 5);
  assert.deepEqual([...bytesOf(target, 90, 5)], [1, 2, 3, 4, 5]);
  native.copyRegion(source, 1, source, 0, 5);
  assert.deepEqual([...bytesOf(source, 0, 6)], [1, 1, 2, 3, 4, 5]);
  native.copyRegion(source, 100, target, 100, 0);
  native.unmapRegion(source);
  native.unmapRegion(target);
});

test('property: a range is accepted exactly where it lies within the region', () => {
  const length = 3 * PAGE_BYTES;
  const region = native.allocateRegion(length);
  const other = native.allocateRegion(length);
  const place = fc.oneof(
    fc.integer({ min: -2, max: length + 2 }),
    fc.constantFrom(
      2 ** 31,
      2 ** 32,
      2 ** 32 + 1,
      2 ** 52,
      2 ** 53 - 1,
      2 ** 53,
      2 ** 63,
      2 ** 64,
      -(2 ** 31),
      0.5,
      Number.NaN,
    ),
  );
  fc.assert(
    fc.property(place, place, place, (target, source, count) => {
      const fits = (offset: number) => Number.isInteger(offset) && offset >= 0 && count >= 0 && offset + count <= length;
      const valid = Number.isInteger(count) && fits(target) && fits(source);
      if (valid) {
        native.copyRegion(region, target, other, source, count);
        if (count > 0) assert.equal(native.regionWindow(region, target, count).byteLength, count);
      } else {
        assert.throws(() => native.copyRegion(region, target, other, source, count), RangeError);
      }
    }),
    { numRuns: 500, seed: 1 },
  );
  native.unmapRegion(region);
  native.unmapRegion(other);
});

test('a page that its file lost reads as zeroes, is counted, and can be written', (context) => {
  const fd = openSync(join(temporaryDirectory(context), 'file'), 'w+');
  ftruncateSync(fd, 4 * PAGE_BYTES);
  const region = native.mapRegion(fd, 0, 4 * PAGE_BYTES);
  const other = native.mapRegion(fd, 0, PAGE_BYTES);
  const window = bytesOf(region, 0, 4 * PAGE_BYTES);
  window.fill(7);
  ftruncateSync(fd, PAGE_BYTES);
  assert.equal(window[0], 7);
  assert.equal(native.regionFaults(region), 0);
  assert.equal(window[PAGE_BYTES], 0);
  assert.equal(native.regionFaults(region), 1);
  window[PAGE_BYTES] = 8;
  assert.equal(window[PAGE_BYTES], 8);
  assert.equal(native.regionFaults(region), 1);
  const copy = native.allocateRegion(2 * PAGE_BYTES);
  bytesOf(copy, 0, 1)[0] = 1;
  native.copyRegion(copy, 0, region, 2 * PAGE_BYTES, 2 * PAGE_BYTES);
  assert.equal(bytesOf(copy, 0, 1)[0], 0);
  assert.equal(native.regionFaults(region), 3);
  assert.equal(native.regionFaults(other), 0);
  for (const each of [region, other, copy]) native.unmapRegion(each);
  closeSync(fd);
});

test('a SIGBUS that no region is to blame for still ends the process', () => {
  const script = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const fd = native.createMemoryFile('any', 4096);
    native.mapRegion(fd, 0, 4096);
    process.kill(process.pid, 'SIGBUS');
    setTimeout(() => console.log('alive'), 10000);`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.equal(child.stdout, '');
  // The sanitizer's own handler, to which the signal goes on, exits with its report instead.
  if (process.env.NETBUS_ADDON === undefined) assert.equal(child.signal, 'SIGBUS');
  else assert.match(child.stderr, /AddressSanitizer: BUS/);
});

test('nothing is left: no region, no descriptor', () => {
  const regions = native.regionCount();
  const descriptors = openDescriptors();
  for (let count = 0; count < 100; count++) {
    const fd = native.createMemoryFile('loop', PAGE_BYTES);
    const region = native.mapRegion(fd, 0, PAGE_BYTES);
    native.close(fd);
    native.regionWindow(region, 0, 1);
    assert.equal(native.regionCount(), regions + 1);
    native.unmapRegion(region);
  }
  assert.equal(native.regionCount(), regions);
  assert.equal(regions, 0);
  assert.ok(openDescriptors() <= descriptors);
});

test('regions are limited in number', () => {
  const regions: number[] = [];
  assert.throws(
    () => {
      for (;;) regions.push(native.allocateRegion(1));
    },
    systemError('EMFILE', 'mmap'),
  );
  assert.equal(regions.length, 16384);
  for (const region of regions) native.unmapRegion(region);
  assert.equal(native.regionCount(), 0);
});
