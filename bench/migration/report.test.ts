import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isGood, jsonLine, type MigrationReport, type Sample, spread, table } from './report.ts';

const sample: Sample = {
  placement: 'local to remote',
  totalMs: 900,
  downtimeMs: 12,
  gapMs: 21.26,
  addedMs: 1.5,
  drainMs: 0.25,
};
const report: MigrationReport = {
  seed: 5,
  migrations: 3,
  failed: 1,
  corruptions: 0,
  lostWrites: 0,
  samples: [sample, { ...sample, placement: 'remote to local', addedMs: 4, gapMs: 30 }],
  withoutDisk: [{ placement: 'local to remote', totalMs: 800, downtimeMs: 10, gapMs: 14 }],
  storageDaemons: [],
  notes: [],
};

test('the last line is for programs', () => {
  assert.equal(
    jsonLine(report),
    '{"bench":"migration","migrations":3,"failed":1,"corruptions":0,"lostWrites":0,"addedStallMs":{"p50":1.5,"max":4},"drainMs":{"p50":0.3,"max":0.3},"downtimeMs":{"p50":12,"max":12},"guestLongestGapMs":{"p50":21.3,"max":30},"guestLongestGapWithoutDiskMs":{"p50":14,"max":14}}',
  );
});

test('what was not measured is null', () => {
  const { addedStallMs, downtimeMs } = JSON.parse(jsonLine({ ...report, samples: [] })) as Record<string, unknown>;
  assert.deepEqual([addedStallMs, downtimeMs], [null, null]);
});

test('the table has a row for each placement, and what it is compared with', () => {
  const text = table(report);
  assert.match(text, /local to remote +1 +900 \/ 900 +12 \/ 12 +1\.5 \/ 1\.5 +0\.3 \/ 0\.3 +21\.3 \/ 21\.3/);
  assert.match(text, /remote to remote +0 +- +- +- +- +-/);
  assert.match(text, /without a disk +1 +800 \/ 800 +10 \/ 10 +- +- +14 \/ 14/);
});

test('anything that is wrong is a bad run', () => {
  const good = { ...report, failed: 0 };
  assert.ok(isGood(good));
  for (const key of ['failed', 'corruptions', 'lostWrites']) assert.ok(!isGood({ ...good, [key]: 1 }), key);
});

test('a median is a value that was measured', () => {
  assert.deepEqual(spread([4, 1, 3, 2]), { p50: 2, max: 4 });
  assert.deepEqual(spread([7]), { p50: 7, max: 7 });
  assert.equal(spread([]), undefined);
});
