import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { IO_COMPLETION_WORDS, IO_SEGMENTS_MAX, IoOp, type IoOptions, native } from './index.ts';
import { loopDevice, nextTurn, openDescriptors, systemError, temporaryDirectory, until } from './testing.ts';

const EBADF = 9;
const ENOTTY = 25;
const ENOSPC = 28;
const EOPNOTSUPP = 95;
const PAGE_BYTES = 4096;
const TIMEOUT = { timeout: 60_000 };

interface Operation {
  op: number;
  fd: number;
  tag?: number;
  position?: number;
  length?: number;
  /** Region, offset, length of each. */
  segments?: [number, number, number][];
}

/** The layout that ioSubmit takes. */
function encode(operations: readonly Operation[]): Float64Array {
  const words: number[] = [];
  for (const { op, fd, tag = 0, position = 0, length = 0, segments = [] } of operations) {
    words.push(op, fd, tag, position, length, segments.length, ...segments.flat());
  }
  return new Float64Array(words);
}

function submit(engine: number, operations: readonly Operation[]): number {
  return native.ioSubmit(engine, encode(operations), operations.length);
}

/** Waits for `count` completions and returns the results by tag. */
async function finish(engine: number, count: number): Promise<Map<number, number>> {
  const results = new Map<number, number>();
  const completions = new Float64Array(64 * IO_COMPLETION_WORDS);
  await until(() => {
    const reaped = native.ioReap(engine, completions);
    for (let each = 0; each < reaped; each++) results.set(completions[each * 2]!, completions[each * 2 + 1]!);
    return results.size === count;
  });
  return results;
}

/** Runs one operation and returns its result. */
async function run(engine: number, operation: Operation): Promise<number> {
  assert.equal(submit(engine, [{ ...operation, tag: 1 }]), 1);
  return (await finish(engine, 1)).get(1)!;
}

function forbidden(): string | false {
  try {
    native.ioDestroy(native.ioCreate({ entries: 1, engine: 'io_uring' }, () => {}));
    return false;
  } catch (error) {
    return `io_uring is not allowed here: ${(error as Error).message}`;
  }
}

function suite(name: IoOptions['engine']): void {
  const create = (context: TestContext, entries = 64, onCompletion = () => {}) => {
    const engine = native.ioCreate({ entries, engine: name }, onCompletion);
    context.after(() => native.ioDestroy(engine));
    return engine;
  };
  const createRegion = (context: TestContext, length: number) => {
    const region = native.allocateRegion(length);
    context.after(() => native.unmapRegion(region));
    return region;
  };
  const createFile = (context: TestContext, length: number, flags = 'w+') => {
    const fd = openSync(join(temporaryDirectory(context), 'image'), flags);
    context.after(() => closeSync(fd));
    ftruncateSync(fd, length);
    return fd;
  };
  const contents = (fd: number) => readFileSync(`/proc/self/fd/${fd}`);

  test('writes segments of several regions and reads them back', TIMEOUT, async (context) => {
    const engine = create(context);
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
    assert.equal(contents(fd).toString('latin1'), '\0\0aaabbbbbba');
    const target = createRegion(context, PAGE_BYTES);
    const read = await run(engine, { op: IoOp.read, fd, position: 4, segments: [[target, 100, 4]] });
    assert.equal(read, 4);
    assert.equal(Buffer.from(native.regionWindow(target, 99, 6)).toString('latin1'), '\0abbb\0');
  });

  test('a read at the end of the file completes with the bytes so far', TIMEOUT, async (context) => {
    const engine = create(context);
    const fd = createFile(context, 5000);
    const region = createRegion(context, 4 * PAGE_BYTES);
    const read = (position: number, segments: [number, number, number][]) =>
      run(engine, { op: IoOp.read, fd, position, segments });
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
    const engine = create(context);
    const segmentBytes = 4 * 1024 * 1024;
    const count = 520; // read(2) moves 2 GiB - 4 KiB at most.
    const fd = native.createMemoryFile('sparse', count * segmentBytes);
    context.after(() => native.close(fd));
    const region = createRegion(context, segmentBytes);
    writeSync(fd, Buffer.from('end'), 0, 3, count * segmentBytes - 3);
    const segments = new Array(count).fill([region, 0, segmentBytes]) as [number, number, number][];
    assert.equal(await run(engine, { op: IoOp.read, fd, segments }), count * segmentBytes);
    assert.equal(Buffer.from(native.regionWindow(region, segmentBytes - 3, 3)).toString(), 'end');
  });

  test('property: any batch of writes and reads does what an array does', TIMEOUT, async (context) => {
    const sizeBytes = 64 * 1024;
    const engine = create(context, 16);
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
          const segments: [number, number, number][] = [];
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
    const engine = create(context);
    const fd = createFile(context, 0);
    const region = createRegion(context, 512);
    assert.equal(await run(engine, { op: IoOp.writeDurable, fd, segments: [[region, 0, 512]] }), 512);
    assert.equal(await run(engine, { op: IoOp.flush, fd }), 0);
    assert.equal(statSync(`/proc/self/fd/${fd}`).size, 512);
  });

  test('punching and zeroing keep the size and leave zeroes', TIMEOUT, async (context) => {
    const engine = create(context);
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
    assert.ok(contents(fd).equals(expected));
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
    const engine = create(context);
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
    const engine = create(context);
    const region = createRegion(context, 512);
    const segments: [number, number, number][] = [[region, 0, 512]];
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

  test('what only a bug can ask for throws, and nothing of the batch is started', TIMEOUT, async (context) => {
    const engine = create(context);
    const fd = createFile(context, 0);
    const region = createRegion(context, 512);
    const stale = native.allocateRegion(512);
    native.unmapRegion(stale);
    const good: Operation = { op: IoOp.write, fd, segments: [[region, 0, 512]] };
    const bad: Operation[] = [
      { ...good, op: 0 },
      { ...good, op: 9 },
      { ...good, op: 1.5 },
      { ...good, fd: -1 },
      { ...good, fd: 2 ** 31 },
      { ...good, fd: Number.NaN },
      { ...good, position: -1 },
      { ...good, position: 2 ** 53 },
      { ...good, position: 2 ** 53 - 512 },
      { ...good, position: 0.5 },
      { ...good, segments: [[stale, 0, 512]] },
      { ...good, segments: [[0, 0, 512]] },
      { ...good, segments: [[region, 0, 513]] },
      { ...good, segments: [[region, 512, 1]] },
      { ...good, segments: [[region, -1, 1]] },
      { ...good, segments: [[region, 1, -1]] },
      { ...good, segments: [[region, 2 ** 53 - 1, 2 ** 53 - 1]] },
      {
        ...good,
        segments: [
          [region, 0, 512],
          [region, Number.POSITIVE_INFINITY, 1],
        ],
      },
      { ...good, segments: new Array(IO_SEGMENTS_MAX + 1).fill([region, 0, 0]) as [number, number, number][] },
      { op: IoOp.flush, fd, segments: [[region, 0, 1]] },
      { op: IoOp.punchHole, fd, length: -1 },
      { op: IoOp.punchHole, fd, position: 2 ** 52, length: 2 ** 52 + 2 ** 51 },
    ];
    for (const operation of bad)
      assert.throws(() => submit(engine, [good, operation, good]), RangeError, JSON.stringify(operation));
    const whole = encode([good]);
    assert.throws(() => native.ioSubmit(engine, whole.subarray(0, 5), 1), RangeError);
    assert.throws(() => native.ioSubmit(engine, whole.subarray(0, 8), 1), RangeError);
    assert.throws(() => native.ioSubmit(engine, whole, 2), RangeError);
    assert.throws(() => native.ioSubmit(engine, whole, -1), RangeError);
    assert.throws(() => native.ioSubmit(engine, [1] as unknown as Float64Array, 1), TypeError);
    assert.throws(() => native.ioSubmit(engine, new Float32Array(20) as unknown as Float64Array, 1), TypeError);
    assert.throws(() => native.ioReap(engine, new Uint8Array(20) as unknown as Float64Array), TypeError);
    assert.throws(() => native.ioSubmit(engine + 1, whole, 1), RangeError);
    await nextTurn();
    assert.equal(native.ioPending(engine), 0);
    assert.equal(native.ioReap(engine, new Float64Array(64)), 0);
    assert.equal(contents(fd).length, 0);
  });

  test('takes as many as there are entries, and the rest later', TIMEOUT, async (context) => {
    const engine = create(context, 5);
    const fd = createFile(context, 8 * PAGE_BYTES);
    const region = createRegion(context, 8 * PAGE_BYTES);
    const operations = Array.from({ length: 8 }, (_, index) => ({
      op: IoOp.read,
      fd,
      tag: 100 + index,
      position: index * PAGE_BYTES,
      segments: [[region, index * PAGE_BYTES, PAGE_BYTES]] as [number, number, number][],
    }));
    assert.equal(submit(engine, operations), 5);
    assert.equal(native.ioPending(engine), 5);
    assert.equal(submit(engine, operations.slice(5)), 0);
    assert.throws(() => native.ioDestroy(engine), systemError('EBUSY', 'ioDestroy'));
    const first = await finish(engine, 5);
    assert.deepEqual([...first.keys()].sort(), [100, 101, 102, 103, 104]);
    assert.equal(submit(engine, operations.slice(5)), 3);
    const second = await finish(engine, 3);
    assert.deepEqual([...second.entries()].sort(), [
      [105, PAGE_BYTES],
      [106, PAGE_BYTES],
      [107, PAGE_BYTES],
    ]);
    assert.equal(native.ioPending(engine), 0);
    assert.equal(submit(engine, []), 0);
  });

  test('announces completions until they are reaped, never within submit or reap', TIMEOUT, async (context) => {
    let calls = 0;
    let inside = false;
    const engine = create(context, 64, () => {
      assert.equal(inside, false);
      calls++;
    });
    const fd = createFile(context, PAGE_BYTES);
    const region = createRegion(context, PAGE_BYTES);
    const operations = Array.from({ length: 10 }, (_, tag) => ({
      op: IoOp.read,
      fd,
      tag,
      segments: [[region, 0, PAGE_BYTES]] as [number, number, number][],
    }));
    inside = true;
    assert.equal(submit(engine, operations), 10);
    inside = false;
    await until(() => calls >= 2);
    const one = new Float64Array(IO_COMPLETION_WORDS + 1);
    for (let left = 10; left > 0; left--) {
      assert.equal(native.ioPending(engine), left);
      const before = calls;
      await until(() => calls > before);
      inside = true;
      assert.equal(native.ioReap(engine, one), 1);
      inside = false;
    }
    const after = calls;
    for (let turn = 0; turn < 5; turn++) await nextTurn();
    assert.equal(calls, after);
  });

  test('an engine may be destroyed in its own callback', TIMEOUT, async (context) => {
    const fd = createFile(context, PAGE_BYTES);
    let destroyed = false;
    const engine = native.ioCreate({ entries: 1, engine: name }, () => {
      assert.equal(native.ioReap(engine, new Float64Array(2)), 1);
      native.ioDestroy(engine);
      destroyed = true;
    });
    assert.equal(submit(engine, [{ op: IoOp.flush, fd }]), 1);
    await until(() => destroyed);
    assert.throws(() => native.ioPending(engine), RangeError);
  });

  test('a region that is unmapped while I/O uses it goes when the I/O is done', TIMEOUT, async (context) => {
    const engine = create(context);
    const fd = createFile(context, 64 * PAGE_BYTES);
    const before = native.regionCount();
    const region = native.allocateRegion(64 * PAGE_BYTES);
    const segments = Array.from(
      { length: 64 },
      (_, page) => [region, page * PAGE_BYTES, PAGE_BYTES] as [number, number, number],
    );
    assert.equal(
      submit(engine, [
        { op: IoOp.read, fd, tag: 1, segments },
        { op: IoOp.write, fd, tag: 2, segments },
      ]),
      2,
    );
    native.unmapRegion(region);
    assert.equal(native.regionCount(), before + 1);
    assert.throws(() => submit(engine, [{ op: IoOp.read, fd, segments }]), RangeError);
    const results = await finish(engine, 2);
    assert.deepEqual([results.get(1), results.get(2)], [64 * PAGE_BYTES, 64 * PAGE_BYTES]);
    assert.equal(native.regionCount(), before);
  });

  test('the submission may be reused at once, and many operations share few descriptors', TIMEOUT, async (context) => {
    const engine = create(context, 256);
    const fd = createFile(context, 256 * 512);
    const region = createRegion(context, 256 * 512);
    const window = new Uint8Array(native.regionWindow(region, 0, 256 * 512));
    const descriptors = openDescriptors();
    for (let round = 0; round < 20; round++) {
      for (let block = 0; block < 256; block++) window.fill((block + round) % 256, block * 512, block * 512 + 512);
      const words = encode(
        Array.from({ length: 256 }, (_, tag) => ({
          op: IoOp.write,
          fd,
          tag,
          position: tag * 512,
          segments: [[region, tag * 512, 512]] as [number, number, number][],
        })),
      );
      assert.equal(native.ioSubmit(engine, words, 256), 256);
      words.fill(-1);
      const results = await finish(engine, 256);
      assert.ok([...results.values()].every((result) => result === 512));
    }
    assert.ok(contents(fd).equals(window));
    assert.equal(openDescriptors(), descriptors);
  });

  test('an engine that was destroyed leaves no descriptor', TIMEOUT, async () => {
    const before = openDescriptors();
    for (let count = 0; count < 20; count++) native.ioDestroy(native.ioCreate({ entries: 8, engine: name }, () => {}));
    await nextTurn();
    assert.equal(openDescriptors(), before);
  });
}

describe('io_uring', { skip: forbidden() }, () => {
  suite('io_uring');

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

describe('threads', () => {
  suite('threads');
});

test('ioCreate refuses what it cannot be', () => {
  const create = (options: object, callback: unknown = () => {}) =>
    native.ioCreate(options as IoOptions, callback as () => void);
  for (const entries of [0, 4097, 1.5, -1]) assert.throws(() => create({ entries, engine: 'threads' }), RangeError);
  assert.throws(() => create({ entries: 1, engine: 'aio' }), RangeError);
  assert.throws(() => create({ entries: 1 }), TypeError);
  assert.throws(() => create({ entries: 1, engine: 'threads' }, 5), TypeError);
});
