/**
 * Daemons that end and come back while a guest works: a pause, and nothing that was acknowledged is lost. NETBUS_KILL_SEED sets when its own
 * daemon is killed.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { bootAttached, exportEmptyDisk } from './attached.ts';
import type { Guest } from './guest.ts';

const cleanup = new Cleanup();
let cluster: Cluster;
let guest: Guest;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  await exportEmptyDisk(cluster, 'm1', 'raw', { sizeMiB: 128, allow: ['m2'] });
  guest = await bootAttached(cluster, 'm2', 'io', ['m1/raw'], { cleanup, cpus: 2, fio: true });
});
after(() => cleanup.run());

/** Writes and checks for some seconds, longer than what happens meanwhile. */
async function whileWorking(happens: () => Promise<void>): Promise<void> {
  const fio =
    'fio --name=work --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --numjobs=2 --size=16M --offset_increment=64M ' +
    '--rw=randwrite --bsrange=4k-64k --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=3';
  const work = guest.succeed(fio);
  // Told by `await work`; here it must only not count as nobody's.
  work.catch(() => undefined);
  await cluster.waitForAttachment('m2', 'io/raw', ({ inFlight }) => inFlight > 0, 60_000);
  await happens();
  await work;
}

async function epoch(): Promise<number> {
  return (await cluster.waitForAttachment('m2', 'io/raw', ({ state }) => state === 'active')).epoch!;
}

describe('a guest goes on', () => {
  test("when the daemon of the device's host is restarted", async () => {
    const before = await epoch();
    await whileWorking(async () => {
      const m1 = cluster.host('m1');
      await cluster.stopDaemon(m1);
      await cluster.startDaemon(m1);
    });
    assert.ok((await epoch()) > before);
  });

  test("when the daemon of the device's host is killed", async () => {
    const before = await epoch();
    await whileWorking(async () => {
      const daemon = cluster.daemon('m1');
      daemon.signal('SIGKILL');
      await daemon.exited;
      await cluster.startDaemon(cluster.host('m1'));
    });
    assert.ok((await epoch()) > before);
  });

  test('when the daemon of its own host is restarted', async () => {
    const before = await epoch();
    await whileWorking(async () => {
      const m2 = cluster.host('m2');
      await cluster.stopDaemon(m2);
      await cluster.startDaemon(m2);
    });
    assert.ok((await epoch()) > before);
  });
});
