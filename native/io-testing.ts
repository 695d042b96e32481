/** What the tests of the I/O engines share. */

import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext } from 'node:test';
import { IO_COMPLETION_WORDS, type IoOptions, native } from './index.ts';
import { temporaryDirectory, until } from './testing.ts';

export const TIMEOUT = { timeout: 60_000 };

export type Segment = [region: number, offset: number, length: number];

/** One operation of a submission. */
export interface Operation {
  op: number;
  fd: number;
  tag?: number;
  position?: number;
  length?: number;
  /** Region, offset, length of each. */
  segments?: Segment[];
}

/** The layout that ioSubmit takes. */
export function encode(operations: readonly Operation[]): Float64Array {
  const words: number[] = [];
  for (const { op, fd, tag = 0, position = 0, length = 0, segments = [] } of operations) {
    words.push(op, fd, tag, position, length, segments.length, ...segments.flat());
  }
  return new Float64Array(words);
}

/** Submits operations; returns what ioSubmit does. */
export function submit(engine: number, operations: readonly Operation[]): number {
  return native.ioSubmit(engine, encode(operations), operations.length);
}

/** Waits for `count` completions and returns the results by tag. */
export async function finish(engine: number, count: number): Promise<Map<number, number>> {
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
export async function run(engine: number, operation: Operation): Promise<number> {
  assert.equal(submit(engine, [{ ...operation, tag: 1 }]), 1);
  return (await finish(engine, 1)).get(1)!;
}

/** Why there is no io_uring here, or false. */
export function forbidden(): string | false {
  try {
    native.ioDestroy(native.ioCreate({ entries: 1, engine: 'io_uring' }, () => {}));
    return false;
  } catch (error) {
    return `io_uring is not allowed here: ${(error as Error).message}`;
  }
}

/** An engine of the test's own, destroyed after it. */
export function createEngine(context: TestContext, engine: IoOptions['engine'], entries = 64, onCompletion = () => {}): number {
  const handle = native.ioCreate({ entries, engine }, onCompletion);
  context.after(() => native.ioDestroy(handle));
  return handle;
}

/** A region of the test's own, unmapped after it. */
export function createRegion(context: TestContext, length: number): number {
  const region = native.allocateRegion(length);
  context.after(() => native.unmapRegion(region));
  return region;
}

/** A file of the test's own, `length` zeroes long, closed after it. */
export function createFile(context: TestContext, length: number): number {
  const fd = openSync(join(temporaryDirectory(context), 'image'), 'w+');
  context.after(() => closeSync(fd));
  ftruncateSync(fd, length);
  return fd;
}

/** Runs the same suite on each engine. */
export function onEachEngine(suite: (engine: IoOptions['engine']) => void): void {
  describe('io_uring', { skip: forbidden() }, () => suite('io_uring'));
  describe('threads', () => suite('threads'));
}
