/** The migration demo's story: a guest that copies files and verifies them moves over three hosts; its disk stays where it is. */

import { formatTable } from '../../src/lib/format.ts';
import type { Guest } from '../../test/guest/guest.ts';
import { NetbusDisks } from '../../test/guest/netbus-disks.ts';
import { checkFilesystem } from '../../test/guest/root-disk.ts';
import { Traveller } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { type Cluster, startCluster } from '../../test/support/cluster.ts';
import { longestGapMs } from '../../test/support/gaps.ts';
import type { Host } from '../../test/support/hosts.ts';
import { waitFor } from '../../test/support/wait.ts';
import { CopyWork } from './copy-work.ts';
import { describeHosts, imagePath, makeCluster, makeImage, netbus } from './disk.ts';
import type { Story } from './story.ts';
import { type Happening, textTimeline, writePicture } from './timeline.ts';

const VM = 'web';
const MEMORY_MIB = 256;
/** Undisturbed work between two moves, in milliseconds. */
const CALM_MS = 2_500;
/** The guest's gap is looked for until so long after it has arrived, in milliseconds. */
const AFTERWARDS_MS = 1_000;
/** Generous: it ends a wait that hangs, and says nothing about speed. In milliseconds. */
const BACK_MS_MAX = 60_000;

/** What `netbus migrate --json` answers, as far as it is told here. */
interface Migrated {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly addedStallMs: number;
  readonly longestDrainMs: number;
}

/** In milliseconds. */
interface Moved {
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  /** The guest was stopped, by QEMU. */
  readonly downtimeMs: number;
  /** What its disk added, by the daemons on both sides. */
  readonly addedStallMs: number;
  readonly drainMs: number;
  /** Without a sign of the guest, on the host's clock. */
  readonly longestGapMs: number;
}

export interface MigrationResult {
  /** Files that were copied, read back and found equal. */
  copies: number;
  /** Copies that failed or came back different, and complaints of the guest's kernel. */
  errors: number;
  migrations: readonly Moved[];
  /** The picture. */
  svg: string;
}

export async function tellMigrationStory(
  story: Story,
  cleanup: Cleanup,
): Promise<{ cluster: Cluster; result: MigrationResult }> {
  story.step('Three hosts, with a daemon on each');
  const cluster = await startCluster(['m1', 'm2', 'm3'], { cleanup, start: false, configure: false });
  const [m1, m2, m3] = [cluster.host('m1'), cluster.host('m2'), cluster.host('m3')];
  story.say(`${describeHosts(cluster)}. m1 makes a cluster and lets the others in.`);
  await makeCluster(story, cluster, m1, [m2, m3]);

  story.step('m1 has a disk, and a guest on m1 copies files to it and verifies each');
  await makeImage(story, m1, 'data');
  await netbus(story, cluster, 'm1', 'export', 'data', '--disk', imagePath(m1, 'data'), '--allow', 'm1,m2,m3');
  const work = new CopyWork();
  const disks = new NetbusDisks(cluster, VM, 'm1/data', (host, ...argv) => netbus(story, cluster, host, ...argv));
  const ports = [{ place: 'serial', port: work.port }] as const;
  const traveller = await Traveller.boot(m1, { name: VM, cleanup, memoryMiB: MEMORY_MIB, disks, ports });
  await work.start(traveller.guest);
  await rest(CALM_MS);
  story.good(`${work.copies} files copied so far`);

  const moves = new Moves(story, cluster, traveller, work);
  await moves.move(m2, 'its disk stays on m1, and is remote now');
  await moves.move(m3, 'its disk stays on m1: from one remote host to another');
  await moves.move(m1, 'its disk is local again, with no network in its path');

  story.step("The guest stops, its kernel is asked, and m1 looks at the disk's filesystem");
  const errors = await work.finish(traveller.guest);
  if (errors.length > 0) throw new Error(`the guest noticed: ${errors.join('; ')}`);
  story.good(`${work.copies} files copied and verified, none was wrong, and the kernel has nothing to say of its disk`);
  await traveller.guest.succeed('umount /mnt');
  story.command('m1', `e2fsck -f -n ${imagePath(m1, 'data')}`);
  await checkFilesystem(imagePath(m1, 'data'));
  story.good('the filesystem is clean');
  return { cluster, result: moves.tell(errors.length) };
}

/** The moves, one after the other, and what came of them. */
class Moves {
  readonly #story: Story;
  readonly #cluster: Cluster;
  readonly #traveller: Traveller;
  readonly #work: CopyWork;
  readonly #happenings: Happening[] = [];
  readonly #moved: Moved[] = [];

  constructor(story: Story, cluster: Cluster, traveller: Traveller, work: CopyWork) {
    this.#story = story;
    this.#cluster = cluster;
    this.#traveller = traveller;
    this.#work = work;
  }

  async move(to: Host, what: string): Promise<void> {
    const from = this.#traveller.host;
    this.#story.step(`The guest goes from ${from.name} to ${to.name}: ${what}`);
    const there = await this.#traveller.expect(to);
    this.#story.say(`A QEMU waits for it on ${to.name}, with the same command line and -incoming.`);
    const fromMs = performance.now();
    const migrated = await this.#traveller.moveBy((_, there, { uri }) => this.#migrate(to, there, uri), to, { there });
    const toMs = performance.now();
    const before = this.#work.copies;
    await waitFor('the guest to go on', () => this.#work.copies > before + 1, BACK_MS_MAX);
    await rest(CALM_MS);
    const gapMs = longestGapMs(this.#traveller.ticks.timesMs, { fromMs, toMs: toMs + AFTERWARDS_MS });
    const { totalMs, downtimeMs, addedStallMs, longestDrainMs: drainMs } = migrated;
    const moved = { from: from.name, to: to.name, totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs: tenth(gapMs) };
    this.#moved.push(moved);
    const stalls = `stopped for ${downtimeMs} ms, its disk added ${tenth(addedStallMs)} ms, longest gap ${moved.longestGapMs} ms`;
    const [begins, ends] = [this.#work.at(fromMs), this.#work.at(toMs)];
    this.#happenings.push({ what: `${from.name} to ${to.name}: ${stalls}`, fromMs: begins, toMs: ends });
    this.#story.good(`the guest works on ${to.name}: ${stalls}`);
  }

  tell(errors: number): MigrationResult {
    const timeline = { doneAtMs: this.#work.doneAtMs, happenings: this.#happenings, endMs: this.#work.now };
    const title = 'Files that a guest copied and verified, while it moved over three hosts and its disk stayed on m1';
    const svg = writePicture('migrate', timeline, title);
    const ms = (value: number) => `${tenth(value)} ms`;
    this.#story.title('\nWhat the guest noticed:');
    this.#story.say(textTimeline(timeline));
    this.#story.say(
      `\n${formatTable(
        ['', 'IT TOOK', 'STOPPED', 'DISK ADDED', 'DRAIN', 'LONGEST GAP', 'ERRORS'],
        this.#moved.map(({ from, to, totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs }) => [
          `${from} to ${to}`,
          ...[totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs].map(ms),
          '0',
        ]),
      )}`,
    );
    this.#story.say(`\nAs a picture: ${svg}`);
    return { copies: this.#work.copies, errors, migrations: this.#moved, svg };
  }

  /** On the host where the guest is, as a user types it. */
  async #migrate(to: Host, there: Guest, uri: string): Promise<Migrated> {
    await there.qmp.execute('migrate-incoming', { uri });
    const from = this.#traveller.host.name;
    const argv = ['migrate', VM, '--to', to.name, '--qmp', this.#traveller.monitorPath, '--uri', uri];
    this.#story.command(from, `netbus ${argv.join(' ')}`);
    return await this.#cluster.ask<Migrated>(from, ...argv);
  }
}

function tenth(value: number): number {
  return Math.round(value * 10) / 10;
}

function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
