import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FaultReport, isGood, jsonLine, percentile, table } from './report.ts';

const report: FaultReport = {
  seed: 5,
  kinds: ['cut', 'disk-full'],
  byKind: new Map([['cut', 3]]),
  lost: 0,
  stale: 0,
  guestErrors: 0,
  expectedErrors: 4,
  leaks: 0,
  recoveries: new Map([['cut', [300.4, 100, 200]]]),
  notes: [],
};

test('the last line is for programs', () => {
  assert.equal(
    jsonLine(report),
    '{"bench":"faults","seed":5,"faults":3,"byKind":{"cut":3,"disk-full":0},"lost":0,"stale":0,"guestErrors":0,"expectedErrors":4,"leaks":0,"recoveryMs":{"cut":{"p50":200,"p99":300}}}',
  );
});

test('the table has what was measured', () => {
  assert.match(table(report), /cut +3 +200 ms +300 ms +300 ms/);
});

test('errors that were expected are no fault; everything else is', () => {
  assert.ok(isGood(report));
  for (const key of ['lost', 'stale', 'guestErrors', 'leaks']) assert.ok(!isGood({ ...report, [key]: 1 }), key);
});

test('percentiles are values that were measured', () => {
  assert.equal(percentile([4, 1, 3, 2], 50), 2);
  assert.equal(percentile([7], 99), 7);
});
