/**
 * Long searches: `node --import tsx test/simulation/run.ts --seeds N [--from S]` runs seeds S to S + N - 1 and ends with 1 where one fails;
 * `--seed S` runs one and prints all that happens in it; `--broken TEXT` says which seed
 * finds each host that is broken in a way that has this in its name (`all`: each).
 */
import { parseArgs } from 'node:util';
import { brokenHosts } from './broken.ts';
import { Simulator } from './simulation.ts';

const REPORT_EVERY_MS = 10_000;

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '0' },
    seed: { type: 'string' },
    broken: { type: 'string' },
    swaps: { type: 'boolean', default: false },
    keepGoing: { type: 'boolean', default: false },
  },
});
const wrappers = { swaps: values.swaps };
const simulator = await Simulator.make();
const [from, count] = [Number(values.from), Number(values.seeds)];
if (values.broken !== undefined) process.exitCode = await findBroken(values.broken, from, count);
else process.exitCode = await (values.seed === undefined ? search(from, count) : replay(Number(values.seed)));
simulator.close();

async function search(from: number, count: number): Promise<number> {
  const begunMs = performance.now();
  let reportedMs = begunMs;
  const failed: number[] = [];
  const total = { events: 0, answered: 0, seconds: 0 };
  const counts = new Map<string, number>();
  for (let seed = from; seed < from + count; seed++) {
    const run = await simulator.run(seed, { wrappers });
    total.events += run.events;
    total.answered += run.answered;
    total.seconds += run.seconds;
    for (const [what, count] of run.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    if (run.violation !== undefined) {
      console.log(`seed ${seed}: ${run.violation.message}`);
      failed.push(seed);
      if (!values.keepGoing && failed.length >= 10) break;
    }
    if (performance.now() - reportedMs < REPORT_EVERY_MS) continue;
    reportedMs = performance.now();
    console.log(`${seed - from + 1} of ${count} seeds, ${failed.length} failed`);
  }
  const seconds = ((performance.now() - begunMs) / 1000).toFixed(1);
  const { events, answered } = total;
  console.log(
    `seeds ${from} to ${from + count - 1} in ${seconds} s: ${events} events, ${answered} answers, ${(total.seconds / 3600).toFixed(1)} simulated hours; ${failed.length} failed`,
  );
  console.log([...counts].map(([what, count]) => `${count} ${what}`).join(', '));
  return failed.length === 0 ? 0 : 1;
}

/** The first seed that finds each. */
async function findBroken(name: string, from: number, count: number): Promise<number> {
  let found = 0;
  const chosen = brokenHosts.filter(({ what }) => name === 'all' || what.includes(name));
  for (const { what, wrappers, invariants } of chosen) {
    let text = `not found in ${count} seeds`;
    for (let seed = from; seed < from + count; seed++) {
      const { violation } = await simulator.run(seed, { wrappers });
      if (violation === undefined) continue;
      text = `seed ${seed}, the ${seed - from + 1}th: ${violation.message}`;
      if (invariants.includes(violation.invariant)) found++;
      else text = `${text} (which is another invariant)`;
      break;
    }
    console.log(`${what}: ${text}`);
  }
  return found === chosen.length ? 0 : 1;
}

async function replay(seed: number): Promise<number> {
  const { violation, trace = [], hash } = await simulator.run(seed, { wrappers, keepTrace: true });
  for (const line of trace) console.log(line);
  console.log(`seed ${seed}: ${violation === undefined ? 'no violation' : violation.message}; hash ${hash}`);
  return violation === undefined ? 0 : 1;
}
