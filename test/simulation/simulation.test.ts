/** Whole hosts under seeded faults. What to do with a seed that fails: CONTRIBUTING.md, The simulation. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { brokenHosts } from './broken.ts';
import { type Run, Simulator } from './simulation.ts';

const FIXED_SEEDS = 90;
/** Of VMs whose disks are swapped. */
const SWAP_SEEDS = 25;
const REPEATED_SEEDS = 5;
/** Within which each broken host is found out. */
const BROKEN_SEEDS_MAX = 400;

const simulator = await Simulator.make();
after(() => simulator.close());

function check({ violation, seed }: Run, mode = ''): void {
  const again = `node --import tsx test/simulation/run.ts${mode} --seed ${seed}`;
  assert.equal(violation, undefined, `seed ${seed}: ${violation?.message}; all that happens: ${again}`);
}

test(`${FIXED_SEEDS} seeds`, async (t) => {
  let [events, answered] = [0, 0];
  for (let seed = 0; seed < FIXED_SEEDS; seed++) {
    const run = await simulator.run(seed);
    check(run);
    events += run.events;
    answered += run.answered;
  }
  t.diagnostic(`seeds 0 to ${FIXED_SEEDS - 1}: ${events} events, ${answered} answers`);
  // A simulation in which nothing happens finds nothing.
  assert.ok(answered > FIXED_SEEDS * 20);
});

test(`${SWAP_SEEDS} seeds with swaps`, async (t) => {
  let decided = 0;
  for (let seed = 0; seed < SWAP_SEEDS; seed++) {
    const run = await simulator.run(seed, { wrappers: { swaps: true } });
    check(run, ' --swaps');
    decided += run.counts.get('swaps that were decided') ?? 0;
  }
  t.diagnostic(`seeds 0 to ${SWAP_SEEDS - 1}: ${decided} swaps`);
  assert.ok(decided > SWAP_SEEDS / 2);
});

test('a seed is one run: the same again, event by event', async () => {
  const hashes = new Set<string>();
  for (let seed = 0; seed < REPEATED_SEEDS; seed++) {
    const wrappers = { swaps: seed % 2 === 1 };
    const [first, second] = [await simulator.run(seed, { wrappers }), await simulator.run(seed, { wrappers })];
    assert.deepEqual([second.hash, second.events, second.answered], [first.hash, first.events, first.answered]);
    hashes.add(first.hash);
  }
  assert.equal(hashes.size, REPEATED_SEEDS);
});

for (const { what, invariants, wrappers, from = 0 } of brokenHosts) {
  test(`found out: ${what}`, async (t) => {
    for (let seed = from; seed < from + BROKEN_SEEDS_MAX; seed++) {
      const { violation } = await simulator.run(seed, { wrappers });
      if (violation === undefined) continue;
      t.diagnostic(`${seed - from + 1} seeds, the last one ${seed}: ${violation.message}`);
      assert.ok(invariants.includes(violation.invariant), violation.message);
      return;
    }
    assert.fail(`not found out within ${BROKEN_SEEDS_MAX} seeds from ${from}`);
  });
}
