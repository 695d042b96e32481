/** The disk of a guest that works is swapped between hosts, again and again: what is lost, how long the guest waits, and how fast that is beside QEMU's mirror. */
import { Cleanup } from '../test/support/cleanup.ts';
import { startCluster } from '../test/support/cluster.ts';
import { seededRandom } from '../test/support/random.ts';
import { beginWithHosts } from './beginning.ts';
import type { SwapBenchOptions } from './options.ts';
import { NetbusSwapper } from './swap/netbus-swapper.ts';
import { HOSTS, planSwaps } from './swap/plan.ts';
import { QemuSwapper } from './swap/qemu-swapper.ts';
import { isGood, jsonLine, type SwapReport, table } from './swap/report.ts';
import { type Outcome, runSwaps } from './swap/run.ts';
import { Images } from './swap/swapper.ts';

/** QEMU's mirror does each kind of swap once. */
const COMPARED_MAX = 3;

/** Runs the swaps. Returns whether none failed and nothing was lost; throws where it could not be run. */
export async function benchSwap(options: SwapBenchOptions): Promise<boolean> {
  const { swaps, sizesGiB } = options;
  const { seed, say } = await beginWithHosts(options);
  const cleanup = new Cleanup();
  try {
    const random = seededRandom(seed);
    const groups = planSwaps(swaps, sizesGiB, random);
    const cluster = await startCluster(HOSTS, { cleanup });
    const ours: Outcome[] = [];
    const theirs: Outcome[] = [];
    for (const [i, group] of groups.entries()) {
      const common = { cluster, cleanup, random, say };
      const what = `a disk of ${group.sizeGiB} GiB, ${group.content}`;
      say(`${what}, by Netbus`);
      const images = new Images(cluster, `disk${i}`, group.sizeGiB);
      const vm = `guest${i}`;
      ours.push(await runSwaps({ ...common, vm, group, images, swapper: new NetbusSwapper(cluster, vm, images) }));

      say(`${what}, by QEMU's mirror`);
      const compared = { ...group, steps: group.steps.slice(0, COMPARED_MAX) };
      const peers = new Images(cluster, `peer${i}`, group.sizeGiB);
      const swapper = new QemuSwapper(cluster, peers);
      theirs.push(await runSwaps({ ...common, vm: `peer${i}`, group: compared, images: peers, swapper }));
    }
    const report = reportOf(seed, ours, theirs);
    say(`\n${table(report)}\n`);
    process.stdout.write(`${jsonLine(report)}\n`);
    return isGood(report);
  } finally {
    await cleanup.run();
  }
}

function reportOf(seed: number, ours: readonly Outcome[], theirs: readonly Outcome[]): SwapReport {
  const sum = (what: 'swaps' | 'failed' | 'corruptions' | 'lostWrites') =>
    ours.reduce((all, outcome) => all + outcome[what], 0);
  return {
    seed,
    swaps: sum('swaps'),
    failed: sum('failed'),
    corruptions: sum('corruptions'),
    lostWrites: sum('lostWrites'),
    samples: ours.flatMap(({ samples }) => samples),
    qemu: theirs.flatMap(({ samples }) => samples),
  };
}
