/** The migration demo's story: a guest that copies files and verifies them moves over three hosts; its disk stays where it is. */

import { formatTable } from '../../src/lib/format.ts';
import { NetbusDisks } from '../../test/guest/netbus-disks.ts';
import { checkFilesystem } from '../../test/guest/root-disk.ts';
import { Traveller } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import { type Cluster, startCluster } from '../../test/support/cluster.ts';
import type { Host } from '../../test/support/hosts.ts';
import { CopyWork } from './copy-work.ts';
import { describeHosts, imagePath, makeCluster, makeImage, netbus } from './disk.ts';
import type { Story } from './story.ts';
import { type Happening, textTimeline, writePicture } from './timeline.ts';
import { CALM_MS, type Moved, moveGuest, rest, type Travel, tenth } from './travel.ts';

const VM = 'web';
const MEMORY_MIB = 256;

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

  const moves = new Moves({ story, cluster, traveller, work });
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
  readonly #travel: Travel;
  readonly #happenings: Happening[] = [];
  readonly #moved: Moved[] = [];

  constructor(travel: Travel) {
    this.#travel = travel;
  }

  async move(to: Host, what: string): Promise<void> {
    const { story, traveller } = this.#travel;
    story.step(`The guest goes from ${traveller.host.name} to ${to.name}: ${what}`);
    const { moved, happening } = await moveGuest(this.#travel, to);
    this.#moved.push(moved);
    this.#happenings.push(happening);
  }

  tell(errors: number): MigrationResult {
    const { story, work } = this.#travel;
    const timeline = { doneAtMs: work.doneAtMs, happenings: this.#happenings, endMs: work.now };
    const title = 'Files that a guest copied and verified, while it moved over three hosts and its disk stayed on m1';
    const svg = writePicture('migrate', timeline, title);
    const ms = (value: number) => `${tenth(value)} ms`;
    story.title('\nWhat the guest noticed:');
    story.say(textTimeline(timeline));
    story.say(
      `\n${formatTable(
        ['', 'IT TOOK', 'STOPPED', 'DISK ADDED', 'DRAIN', 'LONGEST GAP', 'ERRORS'],
        this.#moved.map(({ from, to, totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs }) => [
          `${from} to ${to}`,
          ...[totalMs, downtimeMs, addedStallMs, drainMs, longestGapMs].map(ms),
          '0',
        ]),
      )}`,
    );
    story.say(`\nAs a picture: ${svg}`);
    return { copies: work.copies, errors, migrations: this.#moved, svg };
  }
}
