import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { EXTENTS_MAX, native } from './index.ts';
import { ADDON_PATH, systemError, temporaryDirectory } from './testing.ts';

const MIB = 1024 * 1024;
const data = Buffer.alloc(MIB, 1);

test('dataExtents says where data is, within the range that was asked for', async () => {
  // tmpfs keeps holes by pages, whatever the file system of the tests does.
  const fd = native.createMemoryFile('extents', 8 * MIB);
  assert.deepEqual([...(await native.dataExtents(fd, 0, 8 * MIB))], [8 * MIB]);
  writeSync(fd, data, 0, MIB, MIB);
  writeSync(fd, data, 0, MIB, 4 * MIB);
  const all = [8 * MIB, MIB, MIB, 4 * MIB, MIB];
  assert.deepEqual([...(await native.dataExtents(fd, 0, 8 * MIB))], all);
  assert.deepEqual(
    [...(await native.dataExtents(fd, MIB + 4096, 4 * MIB + 8192))],
    [4 * MIB + 8192, MIB + 4096, MIB - 4096, 4 * MIB, 8192],
  );
  assert.deepEqual([...(await native.dataExtents(fd, 2 * MIB, 4 * MIB))], [4 * MIB]);
  assert.deepEqual([...(await native.dataExtents(fd, 5 * MIB, 100 * MIB))], [100 * MIB], 'beyond the end of the file');
  assert.deepEqual([...(await native.dataExtents(fd, 7, 7))], [7]);
  native.close(fd);
});

test('an answer is bounded, and goes on where the next one begins', async () => {
  const count = EXTENTS_MAX + 10;
  const fd = native.createMemoryFile('extents', 2 * count * 4096);
  for (let i = 0; i < count; i++) writeSync(fd, data, 0, 1, i * 2 * 4096);
  const first = await native.dataExtents(fd, 0, 2 * count * 4096);
  assert.equal(first.length, 1 + 2 * EXTENTS_MAX);
  const rest = await native.dataExtents(fd, first[0], 2 * count * 4096);
  assert.equal(rest.length, 1 + 2 * 10);
  assert.equal(rest[0], 2 * count * 4096);
  assert.equal(rest[1], EXTENTS_MAX * 2 * 4096);
  native.close(fd);
});

test('a file that changes under the look gives ranges in order, and none outside', async () => {
  const fd = native.createMemoryFile('extents', 4 * MIB);
  for (let round = 0; round < 20; round++) {
    writeSync(fd, data, 0, 4096, (round % 8) * 8192);
    const looking = native.dataExtents(fd, 4096, 3 * MIB);
    ftruncateSync(fd, (1 + (round % 4)) * MIB);
    const [next, ...values] = await looking;
    let end = 4096;
    for (let i = 0; i < values.length; i += 2) {
      assert.ok(values[i] >= end && values[i + 1] > 0);
      end = values[i] + values[i + 1];
    }
    assert.ok(end <= 3 * MIB && next >= end);
  }
  native.close(fd);
});

test('what is no file is an error, and what only a bug can ask for is thrown', async (context) => {
  await assert.rejects(native.dataExtents(1_000_000, 0, 4096), systemError('EBADF', 'lseek'));
  const fd = openSync(join(temporaryDirectory(context), 'image'), 'w');
  assert.throws(() => native.dataExtents(fd, 5, 4), RangeError);
  assert.throws(() => native.dataExtents(fd, -1, 4), RangeError);
  assert.throws(() => native.dataExtents(fd, 0, 2 ** 53), RangeError);
  assert.throws(() => native.dataExtents('0' as unknown as number, 0, 1), TypeError);
  closeSync(fd);
});

test('an environment that ends while it looks', async () => {
  const script = `
    const native = require(${JSON.stringify(ADDON_PATH)});
    const fd = native.createMemoryFile('extents', 1 << 20);
    for (let i = 0; i < 32; i++) native.dataExtents(fd, 0, 1 << 20);
    process.exit(0);`;
  for (let round = 0; round < 5; round++) {
    const worker = new Worker(script, { eval: true });
    await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  }
});
