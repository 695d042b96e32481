/** One guest whose disk is swapped again and again while it works, and what came of each. */
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import type { SeededRandom } from '../../test/support/random.ts';
import { type Group, HOSTS, VM_HOST } from './plan.ts';
import { longest, type Sample } from './report.ts';
import type { Images, Swapper } from './swapper.ts';
import { WORK_MIB, WorkGuest } from './work-guest.ts';

/** The guest works undisturbed for so long before each swap, and that is what the swap is compared with. In milliseconds. */
const CALM_MS = 3_000;

export interface RunOptions {
  readonly cluster: Cluster;
  readonly cleanup: Cleanup;
  readonly vm: string;
  readonly group: Group;
  readonly images: Images;
  readonly swapper: Swapper;
  readonly random: SeededRandom;
  readonly say: (text: string) => void;
}

/** How one disk came through all of it. */
export interface Outcome {
  readonly samples: readonly Sample[];
  readonly swaps: number;
  readonly failed: number;
  readonly corruptions: number;
  readonly lostWrites: number;
  readonly notes: readonly string[];
}

/** The first swap that fails, and the first thing that is wrong with the disk, end it. */
export async function runSwaps(options: RunOptions): Promise<Outcome> {
  const { cluster, cleanup, vm, group, images, swapper, random, say } = options;
  const { sizeGiB, content } = group;
  let at = HOSTS[0] as Group['steps'][number]['from'];
  await images.make(at, content, WORK_MIB, random);
  const disk = await swapper.begin(at);
  const working = await WorkGuest.boot(vm, cluster.host(VM_HOST), disk, 1 + random.below(2 ** 20), cleanup);
  const samples: Sample[] = [];
  const problems: string[] = [];
  let swaps = 0;
  let failed = 0;
  for (const step of group.steps) {
    const { from, to, placement } = step;
    swaps++;
    const what = `${sizeGiB} GiB ${content}, ${swaps}. ${from} to ${to}, ${placement}`;
    try {
      images.makeEmpty(to);
      await working.begin();
      await new Promise((resolve) => setTimeout(resolve, CALM_MS));
      const before = await working.done();
      const swapped = await swapper.swap(working.guest, step);
      const during = await working.done();
      at = to;
      await images.remove(from);
      samples.push({ sizeGiB, content, placement, ...swapped, before, during });
      const stall = swapped.stallMs === undefined ? '' : `, stall ${swapped.stallMs.toFixed(1)} ms`;
      const share = Math.round((100 * during.bytesPerSecond) / before.bytesPerSecond);
      const gaps = `longest gap ${Math.round(longest(during))} ms, ${Math.round(longest(before))} before`;
      say(`${what}: ${Math.round(swapped.wholeMs)} ms${stall}, the guest at ${share} %, ${gaps}`);
    } catch (thrown) {
      failed++;
      problems.push(`${what}: ${(thrown as Error).message}`);
      break;
    }
    const wrong = await working.problems();
    problems.push(...wrong.map((problem) => `${what}: guest: ${problem}`));
    if (wrong.length > 0) break;
  }
  const found = await endAndCheck(working, options, at);
  const notes = [...problems, ...found.notes];
  for (const note of notes) say(`  ✗ ${note}`);
  const corruptions = problems.length - failed + found.corruptions;
  return { samples, swaps, failed, corruptions, lostWrites: found.lostWrites, notes };
}

/** Ends the guest and looks at the image that counts. */
async function endAndCheck(working: WorkGuest, { swapper, images }: RunOptions, at: Group['steps'][number]['from']) {
  try {
    await working.end();
    await swapper.end(at);
  } catch (thrown) {
    await working.guest.kill().catch(() => undefined);
    return { corruptions: 1, lostWrites: 0, notes: [`the guest could not be ended: ${(thrown as Error).message}`] };
  }
  const found = working.check(images.path(at));
  for (const host of HOSTS) await images.remove(host);
  return found;
}
