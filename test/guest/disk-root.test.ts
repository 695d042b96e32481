/** A guest whose root filesystem is a disk of another host. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { startCluster } from '../support/cluster.ts';
import { runOk } from '../support/process.ts';
import { bootAttached, exportDisk } from './attached.ts';
import { startGuest } from './guest.ts';
import { checkFilesystem, makeRootDisk } from './root-disk.ts';

const cleanup = new Cleanup();
after(() => cleanup.run());

test('a guest boots from a remote disk, works, powers off, and finds it all again', async () => {
  const cluster = await startCluster(['m1', 'm2'], { cleanup });
  const m2 = cluster.host('m2');
  const image = join(cluster.host('m1').folder, 'root.img');
  await makeRootDisk(image, 256);
  await exportDisk(cluster, 'm1', 'root', image, { allow: ['m2'] });

  const guest = await bootAttached(cluster, 'm2', 'rooted', ['m1/root'], { cleanup, root: '/dev/vda' });
  assert.match(await guest.succeed('grep " / " /proc/mounts'), /^\/dev\/vda \/ ext4 rw/m);
  const sum = await guest.succeed('dd if=/dev/urandom of=/root/file bs=1M count=8 2>/dev/null; sha256sum /root/file');
  await guest.powerOff();

  // The same attachment: the second start of a VM is nothing new to Netbus.
  const entry = await cluster.waitForAttachment('m2', 'rooted/root', ({ connected }) => !connected);
  const again = await startGuest({ name: 'rooted', cleanup, host: m2, root: '/dev/vda', arguments: entry.qemuArguments });
  assert.equal(await again.succeed('sha256sum /root/file'), sum);
  await again.powerOff();

  await cluster.waitForAttachment('m2', 'rooted/root', ({ connected }) => !connected);
  await cluster.ask('m2', 'detach', 'rooted/root');
  await checkFilesystem(image);
  const file = join(cluster.host('m1').folder, 'file');
  await runOk(['debugfs', '-R', `dump /root/file ${file}`, image]);
  assert.equal((await runOk(['sha256sum', file])).split(' ')[0], sum.split(' ')[0]);
});
