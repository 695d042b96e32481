import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../../test/support/random.ts';
import { type FaultKind, faultKinds } from './kinds.ts';
import { planRounds, type Round } from './schedule.ts';

function rounds(kinds: readonly FaultKind[], seed: number, count: number): Round[] {
  const plan = planRounds(kinds, seededRandom(seed));
  return Array.from({ length: count }, () => plan.next().value);
}

const seeds = fc.integer({ min: 0, max: 2 ** 31 });
const someKinds = fc.subarray([...faultKinds], { minLength: 1 });

test('a seed gives the same rounds again', () => {
  fc.assert(
    fc.property(seeds, (seed) => {
      assert.deepEqual(rounds(faultKinds, seed, 20), rounds(faultKinds, seed, 20));
    }),
  );
});

test('no kind comes twice in a round, and of all kinds there are about as many', () => {
  fc.assert(
    fc.property(someKinds, seeds, (kinds, seed) => {
      const planned = rounds(kinds, seed, 40);
      for (const round of planned) assert.equal(new Set(round.map(({ kind }) => kind)).size, round.length);
      const counts = kinds.map((kind) => planned.flat().filter((fault) => fault.kind === kind).length);
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 3, `${counts}`);
    }),
  );
});

test('faults come alone and together', () => {
  const sizes = new Set(rounds(faultKinds, 1, 200).map((round) => round.length));
  assert.deepEqual([...sizes].toSorted(), [1, 2, 3]);
});

test('silences that only the heartbeat ends come where they may', () => {
  const longest = (longSilences: boolean) => {
    const plan = planRounds(['half-open'], seededRandom(2), { longSilences });
    return Math.max(...Array.from({ length: 100 }, () => plan.next().value[0].durationMs));
  };
  assert.ok(longest(true) > 15_000);
  assert.ok(longest(false) < 3_000);
});
