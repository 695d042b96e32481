/**
 * A guest that works live-migrates between three hosts, again and again, while its disk stays where it is: what is lost, how long everything stands
 * still, and what of it is ours.
 */
import { join } from 'node:path';
import { exportEmptyDisk } from '../test/guest/attached.ts';
import { NetbusDisks } from '../test/guest/netbus-disks.ts';
import { makeEmptyDisk } from '../test/guest/root-disk.ts';
import { Cleanup } from '../test/support/cleanup.ts';
import { startCluster } from '../test/support/cluster.ts';
import { seededRandom } from '../test/support/random.ts';
import { beginWithHosts } from './beginning.ts';
import { NoDisks, StorageDaemonDisks } from './migration/disks.ts';
import { DEVICE_HOST, HOSTS, planMoves } from './migration/plan.ts';
import { isGood, jsonLine, type MigrationReport, table } from './migration/report.ts';
import { DISK_MIB, runMoves } from './migration/run.ts';
import type { MigrationBenchOptions } from './options.ts';

const VM = 'guest';
/** Of the migrations with Netbus, so many are done again with each of those that it is compared with; at least one round over the hosts. */
const COMPARED_SHARE = 0.3;

/** Runs the migrations. Returns whether none failed and nothing was lost; throws where it could not be run. */
export async function benchMigration(options: MigrationBenchOptions): Promise<boolean> {
  const { migrations } = options;
  const { seed, say } = await beginWithHosts(options);
  const cleanup = new Cleanup();
  try {
    const random = seededRandom(seed);
    const moves = planMoves(migrations, random);
    const compared = planMoves(Math.max(HOSTS.length, Math.ceil(migrations * COMPARED_SHARE)), random);
    const cluster = await startCluster(HOSTS, { cleanup });
    const common = { cluster, cleanup, seed, say };

    say(`hosts ${HOSTS.join(', ')}; a guest with no disk, ${compared.length} times`);
    const without = await runMoves({ ...common, vm: 'none', disks: new NoDisks(), moves: compared });

    say(`the disk behind two qemu-storage-daemons on one file, ${compared.length} times`);
    const peerImage = join(cluster.host(DEVICE_HOST).folder, 'peer.img');
    makeEmptyDisk(peerImage, DISK_MIB);
    const peerDisks = new StorageDaemonDisks(cleanup, peerImage);
    const peers = await runMoves({ ...common, vm: 'peer', disks: peerDisks, imagePath: peerImage, moves: compared });

    say(`the disk of ${DEVICE_HOST} by Netbus, ${moves.length} times`);
    const imagePath = await exportEmptyDisk(cluster, DEVICE_HOST, 'disk', { sizeMiB: DISK_MIB, allow: HOSTS });
    const disks = new NetbusDisks(cluster, VM, `${DEVICE_HOST}/disk`);
    const netbus = await runMoves({ ...common, vm: VM, disks, imagePath, moves });

    const report: MigrationReport = { seed, ...netbus, withoutDisk: without.samples, storageDaemons: peers.samples };
    say(`\n${table(report)}\n`);
    for (const note of report.notes) say(note);
    process.stdout.write(`${jsonLine(report)}\n`);
    return isGood(report);
  } finally {
    await cleanup.run();
  }
}
