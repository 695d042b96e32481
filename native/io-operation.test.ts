import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { IoOp, native } from './index.ts';
import {
  createEngine,
  createFile,
  createRegion,
  finish,
  forbidden,
  onEachEngine,
  run,
  type Segment,
  submit,
  TIMEOUT,
} from './io-testing.ts';
import { loopDevice, nextTurn, temporaryDirectory } from './testing.ts';

const EBADF = 9;
const ENOTTY = 25;
const ENOSPC = 28;
const EOPNOTSUPP = 95;
const PAGE_BYTES = 4096;

onEachEngine((name) => {
  test('writes segments of several regions and reads them back', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const fd = createFile(context, 0);
    const [first, second] = [createRegion(context, PAGE_BYTES), createRegion(context, PAGE_BYTES)];
    new Uint8Array(native.regionWindow(first, 0, PAGE_BYTES)).fill(0x61);
    new Uint8Array(native.regionWindow(second, 0, PAGE_BYTES)).fill(0x62);
    const written = await run(engine, {
      op: IoOp.write,
      fd,
      position: 2,
      segments: [
        [first, 10, 3],
        [second, 0, 0],
        [second, 4090, 6],
        [first, 0, 1],
      ],
    });
    assert.equal(written, 10);
    assert.equal(readFileSync(`/proc/self/fd/${fd}`).toString('latin1'), '\0\0aaabbbbbba');
    const target = createRegion(context, PAGE_BYTES);
    const read = await run(engine, { op: IoOp.read, fd, position: 4, segments: [[target, 100, 4]] });
    assert.equal(read, 4);
    assert.equal(Buffer.from(native.regionWindow(target, 99, 6)).toString('latin1'), '\0abbb\0');
  });

  test('a read at the end of the file completes with the bytes so far', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const fd = createFile(context, 5000);
    const region = createRegion(context, 4 * PAGE_BYTES);
    const read = (position: number, segments: Segment[]) => run(engine, { op: IoOp.read, fd, position, segments });
    assert.equal(await read(4096, [[region, 0, 4096]]), 904);
    assert.equal(
      await read(0, [
        [region, 0, 4096],
        [region, 4096, 8192],
      ]),
      5000,
    );
    assert.equal(await read(5000, [[region, 0, 1]]), 0);
    assert.equal(await read(2 ** 40, [[region, 0, 1]]), 0);
    assert.equal(await read(0, []), 0);
  });

  test('a transfer longer than one system call moves is resumed', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const segmentBytes = 4 * 1024 * 1024;
    const count = 520; // read(2) moves 2 GiB - 4 KiB at most.
    const fd = native.createMemoryFile('sparse', count * segmentBytes);
    context.after(() => native.close(fd));
    const region = createRegion(context, segmentBytes);
    writeSync(fd, Buffer.from('end'), 0, 3, count * segmentBytes - 3);
    const segments = new Array(count).fill([region, 0, segmentBytes]) as Segment[];
    assert.equal(await run(engine, { op: IoOp.read, fd, segments }), count * segmentBytes);
    assert.equal(Buffer.from(native.regionWindow(region, segmentBytes - 3, 3)).toString(), 'end');
  });

  test('property: any batch of writes and reads does what an array does', TIMEOUT, async (context) => {
    const sizeBytes = 64 * 1024;
    const engine = createEngine(context, name, 16);
    const fd = createFile(context, sizeBytes);
    const region = createRegion(context, 2 * sizeBytes);
    const window = new Uint8Array(native.regionWindow(region, 0, 2 * sizeBytes));
    const model = new Uint8Array(sizeBytes);
    const piece = fc.record({
      position: fc.nat(sizeBytes - 1),
      lengths: fc.array(fc.nat(9000), { maxLength: 6 }),
      fill: fc.nat(255),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        for (const { position, lengths, fill } of pieces) {
          const total = Math.min(
            lengths.reduce((sum, length) => sum + length, 0),
            sizeBytes - position,
          );
          window.fill(fill, 0, total);
          const segments: Segment[] = [];
          let offset = 0;
          for (const length of lengths) {
            const part = Math.min(length, total - offset);
            segments.push([region, offset, part]);
            offset += part;
          }
          const op = fill % 2 === 0 ? IoOp.write : IoOp.writeDurable;
          assert.equal(await run(engine, { op, fd, position, segments }), total);
          model.fill(fill, position, position + total);
        }
        assert.equal(await run(engine, { op: IoOp.read, fd, segments: [[region, sizeBytes, sizeBytes]] }), sizeBytes);
        assert.ok(Buffer.from(model).equals(window.subarray(sizeBytes)));
      }),
      { numRuns: 25, seed: 2 },
    );
  });

  test('flush and durable writes', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const fd = createFile(context, 0);
    const region = createRegion(context, 512);
    assert.equal(await run(engine, { op: IoOp.writeDurable, fd, segments: [[region, 0, 512]] }), 512);
    assert.equal(await run(engine, { op: IoOp.flush, fd }), 0);
    assert.equal(statSync(`/proc/self/fd/${fd}`).size, 512);
  });

  test('punching and zeroing keep the size and leave zeroes', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const fd = createFile(context, 0);
    writeSync(fd, Buffer.alloc(16 * PAGE_BYTES, 0x7a));
    const expected = Buffer.alloc(16 * PAGE_BYTES, 0x7a);
    for (const [op, position] of [
      [IoOp.punchHole, 4 * PAGE_BYTES],
      [IoOp.zeroRange, 10 * PAGE_BYTES],
    ] as const) {
      const result = await run(engine, { op, fd, position, length: 2 * PAGE_BYTES });
      if (result === -EOPNOTSUPP) {
        context.diagnostic(`the filesystem of the temporary directory cannot do operation ${op}`);
      } else {
        assert.equal(result, 0);
        expected.fill(0, position, position + 2 * PAGE_BYTES);
      }
    }
    assert.ok(readFileSync(`/proc/self/fd/${fd}`).equals(expected));
    assert.ok((await run(engine, { op: IoOp.punchHole, fd, position: 0, length: 0 })) < 0);
    const memory = native.createMemoryFile('memory', 4 * PAGE_BYTES);
    writeSync(memory, Buffer.alloc(4 * PAGE_BYTES, 1));
    const blocks = statSync(`/proc/self/fd/${memory}`).blocks;
    assert.equal(await run(engine, { op: IoOp.punchHole, fd: memory, position: PAGE_BYTES, length: 2 * PAGE_BYTES }), 0);
    assert.ok(statSync(`/proc/self/fd/${memory}`).blocks < blocks);
    native.close(memory);
  });

  test('block devices: discard and zero out', TIMEOUT, async (context) => {
    const device = loopDevice(context, 1024 * 1024);
    if (typeof device !== 'string') return context.skip(device.skip);
    const engine = createEngine(context, name);
    const fd = openSync(device, 'r+');
    writeSync(fd, Buffer.alloc(64 * 1024, 0x7a));
    assert.equal(await run(engine, { op: IoOp.blockZeroOut, fd, position: 4096, length: 8192 }), 0);
    assert.equal(await run(engine, { op: IoOp.blockDiscard, fd, position: 16384, length: 4096 }), 0);
    assert.ok((await run(engine, { op: IoOp.blockDiscard, fd, position: 1, length: 4096 })) < 0);
    const found = Buffer.alloc(64 * 1024);
    readSync(fd, found, 0, found.length, 0);
    const expected = Buffer.alloc(64 * 1024, 0x7a)
      .fill(0, 4096, 12288)
      .fill(0, 16384, 20480);
    assert.ok(found.equals(expected));
    closeSync(fd);
  });

  test('what the world does wrong is a result', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
    const region = createRegion(context, 512);
    const segments: Segment[] = [[region, 0, 512]];
    const closed = 2 ** 31 - 1;
    const readOnly = openSync('/dev/null', 'r');
    const full = openSync('/dev/full', 'w');
    const file = createFile(context, 512);
    const operations = [
      { op: IoOp.read, fd: closed, segments, tag: 0 },
      { op: IoOp.write, fd: readOnly, segments, tag: 1 },
      { op: IoOp.write, fd: full, segments, tag: 2 },
      { op: IoOp.flush, fd: closed, tag: 3 },
      { op: IoOp.blockDiscard, fd: file, length: 512, tag: 4 },
      { op: IoOp.blockZeroOut, fd: closed, length: 512, tag: 5 },
      { op: IoOp.read, fd: file, segments, tag: 6 },
    ];
    assert.equal(submit(engine, operations), operations.length);
    const results = await finish(engine, operations.length);
    const ordered = operations.map(({ tag }) => results.get(tag));
    assert.deepEqual(ordered, [-EBADF, -EBADF, -ENOSPC, -EBADF, -ENOTTY, -EBADF, 512]);
    closeSync(readOnly);
    closeSync(full);
  });
});

describe('io_uring alone', { skip: forbidden() }, () => {
  test('a short read of a stream is resumed until the stream ends', TIMEOUT, async (context) => {
    const path = join(temporaryDirectory(context), 'stream');
    execFileSync('mkfifo', [path]);
    const both = openSync(path, 'r+'); // Opening one end alone would wait for the other.
    const [left, right] = [openSync(path, 'r'), openSync(path, 'w')];
    closeSync(both);
    const engine = native.ioCreate({ entries: 4, engine: 'io_uring' }, () => {});
    const region = native.allocateRegion(10);
    submit(engine, [
      {
        op: IoOp.read,
        fd: left,
        tag: 7,
        segments: [
          [region, 0, 3],
          [region, 3, 7],
        ],
      },
    ]);
    const completions = new Float64Array(2);
    for (const part of ['ab', 'cde', 'f']) {
      writeSync(right, part);
      for (let turn = 0; turn < 3; turn++) await nextTurn();
      assert.equal(native.ioReap(engine, completions), 0);
    }
    closeSync(right);
    const results = await finish(engine, 1);
    assert.equal(results.get(7), 6);
    assert.equal(Buffer.from(native.regionWindow(region, 0, 6)).toString(), 'abcdef');
    native.unmapRegion(region);
    native.ioDestroy(engine);
    closeSync(left);
  });
});
