import assert from 'node:assert/strict';
import { test } from 'node:test';
import { copyRatio, isGood, jsonLine, type Sample, table } from './report.ts';

const done = (bytesPerSecond: number, gapMs: number) => ({ bytesPerSecond, gapsMs: [1, gapMs, 1] });
const sample = (sizeGiB: number, wholeMs: number, stallMs?: number): Sample => ({
  sizeGiB,
  content: 'full',
  placement: 'remote to local',
  wholeMs,
  ...(stallMs !== undefined && { stallMs }),
  before: done(100, 5),
  during: done(50, 20),
});
const report = {
  ...{ seed: 1, swaps: 3, failed: 0, corruptions: 0, lostWrites: 0 },
  samples: [sample(1, 1000, 8), sample(1, 3000, 12), sample(8, 9000, 10)],
  qemu: [sample(1, 2000), sample(8, 27_000)],
};

test('the line for programs', () => {
  assert.deepEqual(JSON.parse(jsonLine(report)), {
    ...{ bench: 'swap', swaps: 3, failed: 0, corruptions: 0, lostWrites: 0 },
    stallMs: { p50: 10, max: 12 },
    stallMsBySizeGiB: { 1: 8, 8: 10 },
    copyRatioToQemuMirror: 2,
    guestThroughputRatioDuring: 0.5,
    guestThroughputRatioDuringQemuMirror: 0.5,
    guestLongestGapMs: { p50: 20, max: 20 },
    guestLongestGapBeforeMs: { p50: 5, max: 5 },
    guestLongestGapQemuMirrorMs: { p50: 20, max: 20 },
    guestP99RatioDuring: 4,
    guestP99RatioDuringQemuMirror: 4,
  });
});

test('what was not measured is null, and only what both did is compared', () => {
  assert.equal(copyRatio([sample(1, 1000)], [sample(8, 1000)]), undefined);
  const nothing = JSON.parse(jsonLine({ ...report, samples: [], qemu: [] })) as Record<string, unknown>;
  assert.deepEqual([nothing.stallMs, nothing.copyRatioToQemuMirror, nothing.guestThroughputRatioDuring], [null, null, null]);
  assert.deepEqual(nothing.stallMsBySizeGiB, {});
});

test('the table has a row for each kind of swap', () => {
  const [, one, eight] = table(report).split('\n');
  assert.match(
    one!,
    /^1 GiB full, remote to local +2 +1000 \/ 3000 +2000 \/ 2000 +8 \/ 12 +20 \/ 20 +20 \/ 20 +5 \/ 5 +50 % +50 %$/,
  );
  assert.match(eight!, /^8 GiB full/);
});

test('good is a run with nothing lost, nothing wrong and nothing that failed', () => {
  assert.equal(isGood(report), true);
  for (const what of ['failed', 'corruptions', 'lostWrites'] as const) assert.equal(isGood({ ...report, [what]: 1 }), false);
});
