/** Several guests: each with a disk of its own at once, and all with one that nobody may write. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { runOk } from '../support/process.ts';
import { bootAttached, exportDisk, exportEmptyDisk } from './attached.ts';
import type { Guest } from './guest.ts';
import { checkFilesystem, makeRootDisk } from './root-disk.ts';

const cleanup = new Cleanup();
let cluster: Cluster;
let guests: Guest[];
let images: string[];
let tools: string;
let toolsSum: string;

before(async () => {
  cluster = await startCluster(['m1', 'm2', 'm3'], { cleanup });
  tools = join(cluster.host('m1').folder, 'tools.img');
  await makeRootDisk(tools, 256);
  toolsSum = await runOk(['sha256sum', tools]);
  await exportDisk(cluster, 'm1', 'tools', tools, { allow: ['m2', 'm3'], more: ['--read-only'] });
  images = [
    await exportEmptyDisk(cluster, 'm1', 'one', { sizeMiB: 64, allow: ['m2'] }),
    await exportEmptyDisk(cluster, 'm1', 'two', { sizeMiB: 64, allow: ['m3'] }),
  ];
  guests = await Promise.all([
    bootAttached(cluster, 'm2', 'first', ['m1/one', 'm1/tools'], { cleanup }),
    bootAttached(cluster, 'm3', 'second', ['m1/two', 'm1/tools'], { cleanup }),
  ]);
});
after(() => cleanup.run());

describe('two guests on two hosts', () => {
  test('work at once, each on its own disk', async () => {
    await Promise.all(
      guests.map(async (guest) => {
        await guest.succeed('mkfs.ext4 -q /dev/vda && mkdir -p /mnt/own /mnt/tools && mount /dev/vda /mnt/own');
        const sum = await guest.succeed(
          'dd if=/dev/urandom of=/mnt/own/file bs=1M count=24 2>/dev/null; sha256sum /mnt/own/file',
        );
        await guest.succeed('umount /mnt/own && mount /dev/vda /mnt/own');
        assert.equal(await guest.succeed('sha256sum /mnt/own/file'), sum);
      }),
    );
  });

  test('read one disk that neither may write', async () => {
    const sums = await Promise.all(
      guests.map(async (guest) => {
        assert.equal(await guest.succeed('cat /sys/block/vdb/ro'), '1');
        await guest.succeed('mount -o ro /dev/vdb /mnt/tools');
        assert.notEqual((await guest.run('dd if=/dev/zero of=/dev/vdb bs=4k count=1')).status, 0);
        return guest.succeed('sha256sum /mnt/tools/bin/busybox');
      }),
    );
    assert.equal(sums[0], sums[1]);
  });

  test('a third VM is refused on a disk that has its one user, and nobody notices', async () => {
    const refused = await cluster.netbus('m2', 'attach', 'm1/one', '--vm', 'third');
    assert.equal(refused.status, 4);
    assert.match(refused.stderr, /one is attached to m2:first\/one/);
    assert.equal((await cluster.netbus('m3', 'attach', 'm1/one', '--vm', 'third')).status, 6);
    await guests[0]!.succeed('echo more >/mnt/own/more && sync');
  });

  test('a disk is not taken from a running guest by mistake', async () => {
    const refused = await cluster.netbus('m2', 'detach', 'first/one');
    assert.equal(refused.status, 4);
    assert.equal((await cluster.netbus('m1', 'unexport', 'one')).status, 4);
    await guests[0]!.succeed('echo again >/mnt/own/again && sync');
  });

  test('power off and leave their disks clean, and the shared one as it was', async () => {
    await Promise.all(guests.map((guest) => guest.powerOff()));
    await cluster.waitForAttachment('m2', 'first/one', ({ connected }) => !connected);
    await cluster.waitForAttachment('m3', 'second/two', ({ connected }) => !connected);
    for (const image of images) await checkFilesystem(image);
    assert.equal(await runOk(['sha256sum', tools]), toolsSum);
  });
});
