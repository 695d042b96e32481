import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { IO_COMPLETION_WORDS, IO_SEGMENTS_MAX, IoOp, type IoOptions, native } from './index.ts';
import {
  createEngine,
  createFile,
  createRegion,
  encode,
  finish,
  type Operation,
  onEachEngine,
  type Segment,
  submit,
  TIMEOUT,
} from './io-testing.ts';
import { nextTurn, openDescriptors, systemError, until } from './testing.ts';

const PAGE_BYTES = 4096;

onEachEngine((name) => {
  test('what only a bug can ask for throws, and nothing of the batch is started', TIMEOUT, async (context) => {
    const engine = createEngine(context, name);
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
      { ...good, segments: new Array(IO_SEGMENTS_MAX + 1).fill([region, 0, 0]) as Segment[] },
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
    assert.equal(readFileSync(`/proc/self/fd/${fd}`).length, 0);
  });

  test('takes as many as there are entries, and the rest later', TIMEOUT, async (context) => {
    const engine = createEngine(context, name, 5);
    const fd = createFile(context, 8 * PAGE_BYTES);
    const region = createRegion(context, 8 * PAGE_BYTES);
    const operations = Array.from({ length: 8 }, (_, index) => ({
      op: IoOp.read,
      fd,
      tag: 100 + index,
      position: index * PAGE_BYTES,
      segments: [[region, index * PAGE_BYTES, PAGE_BYTES]] as Segment[],
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
    const engine = createEngine(context, name, 64, () => {
      assert.equal(inside, false);
      calls++;
    });
    const fd = createFile(context, PAGE_BYTES);
    const region = createRegion(context, PAGE_BYTES);
    const operations = Array.from({ length: 10 }, (_, tag) => ({
      op: IoOp.read,
      fd,
      tag,
      segments: [[region, 0, PAGE_BYTES]] as Segment[],
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
    const engine = createEngine(context, name);
    const fd = createFile(context, 64 * PAGE_BYTES);
    const before = native.regionCount();
    const region = native.allocateRegion(64 * PAGE_BYTES);
    const segments = Array.from({ length: 64 }, (_, page) => [region, page * PAGE_BYTES, PAGE_BYTES] as Segment);
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
    const engine = createEngine(context, name, 256);
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
          segments: [[region, tag * 512, 512]] as Segment[],
        })),
      );
      assert.equal(native.ioSubmit(engine, words, 256), 256);
      words.fill(-1);
      const results = await finish(engine, 256);
      assert.ok([...results.values()].every((result) => result === 512));
    }
    assert.ok(readFileSync(`/proc/self/fd/${fd}`).equals(window));
    assert.ok(openDescriptors() <= descriptors);
  });

  test('an engine that was destroyed leaves no descriptor', TIMEOUT, async () => {
    const before = openDescriptors();
    for (let count = 0; count < 20; count++) native.ioDestroy(native.ioCreate({ entries: 8, engine: name }, () => {}));
    await nextTurn();
    assert.ok(openDescriptors() <= before);
  });
});

test('ioCreate refuses what it cannot be', () => {
  const create = (options: object, callback: unknown = () => {}) =>
    native.ioCreate(options as IoOptions, callback as () => void);
  for (const entries of [0, 4097, 1.5, -1]) assert.throws(() => create({ entries, engine: 'threads' }), RangeError);
  assert.throws(() => create({ entries: 1, engine: 'aio' }), RangeError);
  assert.throws(() => create({ entries: 1 }), TypeError);
  assert.throws(() => create({ entries: 1, engine: 'threads' }, 5), TypeError);
});
