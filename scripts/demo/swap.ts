/** The hot-swap demo's story: a guest has moved, its disk follows it while it works, and the host that the disk was on is switched off. */

import type { JobEntry } from '../../src/api/jobs.ts';
import { formatTable } from '../../src/lib/format.ts';
import { NetbusDisks } from '../../test/guest/netbus-disks.ts';
import { checkFilesystem } from '../../test/guest/root-disk.ts';
import { Traveller } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { type Cluster, startCluster } from '../../test/support/cluster.ts';
import { CopyWork } from './copy-work.ts';
import { describeHosts, imagePath, makeCluster, makeImage, netbus } from './disk.ts';
import type { Story } from './story.ts';
import { type Happening, pauseMs, textTimeline, writePicture } from './timeline.ts';
import { moveGuest, tenth, worksOn } from './travel.ts';

const VM = 'web';
const MEMORY_MIB = 256;
/** What is on the disk beside the files that are copied all the time, each as large as one of those together. */
const BALLAST_FILES = 40;
/** So slow that there is something to see of it. */
const SPEED = '16M';

/** Of a part of the time: what the guest got done in it. */
interface Phase {
  readonly what: string;
  readonly filesPerSecond: number;
  /** For one file, in milliseconds. */
  readonly p50Ms: number;
  readonly maxMs: number;
}

export interface SwapResult {
  /** Files that were copied, read back and found equal. */
  copies: number;
  /** Copies that failed or came back different, and complaints of the guest's kernel. */
  errors: number;
  copiedBytes: number;
  /** How long the guest's requests stood still at the switch, and the longest time for a file around it, in milliseconds. */
  stallMs: number;
  slowestFileMs: number;
  phases: readonly Phase[];
  /** The picture. */
  svg: string;
}

export async function tellSwapStory(story: Story, cleanup: Cleanup): Promise<{ cluster: Cluster; result: SwapResult }> {
  story.step('Two hosts, with a daemon on each');
  const cluster = await startCluster(['m1', 'm2'], { cleanup, start: false, configure: false });
  const [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
  story.say(`${describeHosts(cluster)}. m1 makes a cluster and lets m2 in.`);
  await makeCluster(story, cluster, m1, [m2]);

  story.step('m1 has a disk, and a guest on m1 copies files to it and verifies each');
  await makeImage(story, m1, 'data');
  await netbus(story, cluster, 'm1', 'export', 'data', '--disk', imagePath(m1, 'data'), '--allow', 'm1,m2');
  const work = new CopyWork();
  const disks = new NetbusDisks(cluster, VM, 'm1/data', (host, ...argv) => netbus(story, cluster, host, ...argv));
  const ports = [{ place: 'serial', port: work.port }] as const;
  const traveller = await Traveller.boot(m1, { name: VM, cleanup, memoryMiB: MEMORY_MIB, disks, ports });
  await work.start(traveller.guest);
  await traveller.guest.succeed(`for i in $(seq ${BALLAST_FILES}); do cat /tmp/source-* >/mnt/more-$i; done; sync`);
  story.good(`${work.copies} files copied so far`);

  story.step('The guest goes from m1 to m2: its disk stays on m1, and is remote now');
  const { happening: move } = await moveGuest({ story, cluster, traveller, work }, m2);

  story.step('m2 has room for the disk: it follows the guest, which works on');
  await makeImage(story, m2, 'data');
  await netbus(story, cluster, 'm2', 'export', 'data', '--disk', imagePath(m2, 'data'), '--allow', 'm2');
  story.say(`It is copied with at most ${SPEED} bytes a second, so that there is something to see of it.`);
  const beganAt = work.now;
  await netbus(story, cluster, 'm2', 'swap', `${VM}/data`, '--to', 'm2/data', '--speed', SPEED);
  const endedAt = work.now;
  await worksOn(work);
  const job = (await cluster.client('m2').jobs()).jobs.at(-1)!;
  const [from, to] = await switched(cluster, job, work);
  story.good(`the disk is on m2, with no network in its path; the guest's requests stood still for ${stallOf(job)} ms`);

  story.step('m1 is not needed any more: its daemon is stopped');
  await netbus(story, cluster, 'm1', 'status');
  const stoppedAt = work.now;
  await cluster.stopDaemon(m1);
  story.say('The daemon of m1 has ended, and nothing serves its disk any more.');
  const goneAt = work.now;
  await worksOn(work);
  await netbus(story, cluster, 'm2', 'status');
  story.good('the guest works on');

  story.step("The guest stops, its kernel is asked, and m2 looks at the disk's filesystem");
  const endMs = work.now;
  const errors = await work.finish(traveller.guest);
  if (errors.length > 0) throw new Error(`the guest noticed: ${errors.join('; ')}`);
  story.good(`${work.copies} files copied and verified, none was wrong, and the kernel has nothing to say of its disk`);
  await traveller.guest.succeed('umount /mnt');
  story.command('m2', `e2fsck -f -n ${imagePath(m2, 'data')}`);
  await checkFilesystem(imagePath(m2, 'data'));
  story.good('the filesystem is clean');

  const swap = { what: 'the disk is copied to m2', fromMs: beganAt, toMs: endedAt };
  const change = { what: `the switch: ${stallOf(job)} ms without an answer`, fromMs: from, toMs: to };
  const stop = { what: "m1's daemon is stopped", fromMs: stoppedAt, toMs: goneAt };
  const timeline = { doneAtMs: work.doneAtMs, happenings: [move, swap, change, stop], endMs, showsSlowest: true } as const;
  const svg = writePicture(
    'swap',
    timeline,
    'Files that a guest copied and verified, while its disk followed it from m1 to m2',
  );
  const phases = [
    phase('before: the disk is on m1', work, { fromMs: move.toMs, toMs: beganAt }),
    phase('during: it is copied', work, { fromMs: beganAt, toMs: endedAt }),
    phase('after: it is on m2', work, { fromMs: endedAt, toMs: endMs }),
  ];
  story.title('\nWhat the guest noticed:');
  story.say(textTimeline(timeline));
  story.say(`\n${table(phases)}`);
  story.say(`\nAs a picture: ${svg}`);
  const { copies } = work;
  const copiedBytes = job.progress!.doneBytes;
  const slowestFileMs = tenth(pauseMs(timeline, change));
  return { cluster, result: { copies, errors: 0, copiedBytes, stallMs: stallOf(job), slowestFileMs, phases, svg } };
}

const stallOf = ({ progress }: JobEntry): number => tenth(progress?.stallMs ?? 0);

/** When the guest's requests stood still, on the work's clock: until the new disk's host said that it has the guest from now on. */
async function switched(cluster: Cluster, job: JobEntry, work: CopyWork): Promise<[number, number]> {
  const { events } = await cluster.client('m2').events({ type: 'export.swap-decided' });
  const decided = events.at(-1);
  if (decided === undefined) throw new Error('m2 does not say when it took the disk over');
  const at = work.at(Date.parse(decided.time) - performance.timeOrigin);
  return [at - stallOf(job), at];
}

/** Of the files that were begun and done in that time. */
function phase(what: string, { doneAtMs }: CopyWork, { fromMs, toMs }: Omit<Happening, 'what'>): Phase {
  const times = doneAtMs.filter((at) => at >= fromMs && at < toMs);
  const inside = times.slice(1).map((at, i) => at - times[i]!);
  const sorted = inside.sort((a, b) => a - b);
  const p50Ms = tenth(sorted[Math.floor(sorted.length / 2)] ?? 0);
  return { what, filesPerSecond: tenth((1000 * sorted.length) / (toMs - fromMs)), p50Ms, maxMs: tenth(sorted.at(-1) ?? 0) };
}

function table(phases: readonly Phase[]): string {
  return formatTable(
    ['', 'FILES', 'HALF OF THEM WITHIN', 'THE SLOWEST'],
    phases.map(({ what, filesPerSecond, p50Ms, maxMs }) => [what, `${filesPerSecond}/s`, `${p50Ms} ms`, `${maxMs} ms`]),
  );
}
