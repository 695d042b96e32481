import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../../test/support/random.ts';
import { planMoves } from './plan.ts';

test('the guest goes on from where it is, and meets all placements alike', () => {
  const moves = planMoves(60, seededRandom(1));
  let at = 'm1';
  for (const { from, to } of moves) {
    assert.equal(from, at);
    assert.notEqual(to, at);
    at = to;
  }
  for (const placement of ['local to remote', 'remote to remote', 'remote to local']) {
    assert.equal(moves.filter((move) => move.placement === placement).length, 20);
  }
  assert.equal(new Set(moves.map(({ from, to }) => `${from} ${to}`)).size, 6);
});

test('the same seed gives the same moves', () => {
  assert.deepEqual(planMoves(7, seededRandom(3)), planMoves(7, seededRandom(3)));
  assert.equal(planMoves(7, seededRandom(3)).length, 7);
});
