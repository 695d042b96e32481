/**
 * The fault campaign: hosts, guests and the network between them, and everything that can befall them, drawn from a seed. Afterwards
 * every acknowledged write has to be there, no old one may be back, and nobody may have noticed more than a pause.
 */
import { Cleanup } from '../test/support/cleanup.ts';
import { seededRandom } from '../test/support/random.ts';
import { beginWithHosts, PROGRAM } from './beginning.ts';
import { Campaign } from './faults/campaign.ts';
import { compareWithNbd } from './faults/nbd-comparison.ts';
import { isGood, jsonLine, table } from './faults/report.ts';
import { planRounds } from './faults/schedule.ts';
import { Stage } from './faults/stage.ts';
import type { FaultBenchOptions } from './options.ts';

const BACK_MS_MAX = 30_000;

/** Runs the campaign. Returns whether nothing was lost, stale, failed or left over; throws where it could not be run. */
export async function benchFaults(options: FaultBenchOptions): Promise<boolean> {
  const { seed, say } = await beginWithHosts(options);
  const { kinds, faults, minutes } = options;
  const cleanup = new Cleanup();
  try {
    const stage = await Stage.set({ cleanup, kinds, seed, guest: true, program: PROGRAM }, say);
    const rounds = planRounds(kinds, seededRandom(seed), { longSilences: true });
    const untilMs = performance.now() + minutes * 60_000;
    const report = await new Campaign(stage, { seed, kinds, rounds, faults, untilMs, backMsMax: BACK_MS_MAX }, say).run();
    const comparison = await compareWithNbd(stage, cleanup, say);
    say(`\n${table(report)}\n`);
    for (const note of report.notes) say(note);
    process.stdout.write(`${jsonLine(report, { outage: comparison })}\n`);
    return isGood(report);
  } finally {
    await cleanup.run();
  }
}
