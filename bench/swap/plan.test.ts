import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../test/support/random.ts';
import { planSteps, planSwaps } from './plan.ts';

test('the disk goes on from where it is, and meets all placements alike', () => {
  const steps = planSteps(60, seededRandom(1));
  let at = 'm1';
  for (const { from, to } of steps) {
    assert.equal(from, at);
    assert.notEqual(to, at);
    at = to;
  }
  for (const placement of ['local to remote', 'remote to remote', 'remote to local']) {
    assert.equal(steps.filter((step) => step.placement === placement).length, 20);
  }
});

test('the swaps are spread over the disks, and a disk without one is left out', () => {
  const shape = (swaps: number) =>
    planSwaps(swaps, [1, 8], seededRandom(1)).map(({ sizeGiB, content, steps }) => [sizeGiB, content, steps.length]);
  assert.deepEqual(shape(10), [
    [1, 'sparse', 3],
    [1, 'full', 3],
    [8, 'sparse', 2],
    [8, 'full', 2],
  ]);
  assert.deepEqual(shape(1), [[1, 'sparse', 1]]);
});
