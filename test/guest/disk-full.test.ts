/** No space left where the image is: the guest gets an I/O error, the operator the reason, and everything else goes on. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { startCluster } from '../support/cluster.ts';
import { hostKind } from '../support/hosts.ts';
import { runOk } from '../support/process.ts';
import { NOT_POSSIBLE_HERE } from '../support/skip.ts';
import { waitFor } from '../support/wait.ts';
import { bootAttached, exportDisk, exportEmptyDisk } from './attached.ts';

const cleanup = new Cleanup();
after(() => cleanup.run());

const { kind, reason } = await hostKind();
const skip = kind === 'namespace' ? false : `${NOT_POSSIBLE_HERE}${reason}`;

test('a full disk at the device host', { skip }, async () => {
  const cluster = await startCluster(['m1', 'm2'], { cleanup });
  const m1 = cluster.host('m1');
  // In the mount namespace of m1, so it goes away with the host.
  await runOk(m1.command(['sh', '-c', 'mkdir /run/small && mount -t tmpfs -o size=16m small /run/small']));
  await runOk(m1.command(['truncate', '-s', '64M', '/run/small/full.img']));
  await exportDisk(cluster, 'm1', 'full', '/run/small/full.img', { allow: ['m2'] });
  await exportEmptyDisk(cluster, 'm1', 'roomy', { sizeMiB: 64, allow: ['m2'] });
  const guest = await bootAttached(cluster, 'm2', 'web', ['m1/full', 'm1/roomy'], { cleanup });

  await guest.succeed('dd if=/dev/zero of=/dev/vda bs=1M count=8 oflag=direct');
  const failed = await guest.run('dd if=/dev/zero of=/dev/vda bs=1M seek=8 count=40 oflag=direct');
  assert.notEqual(failed.status, 0);
  assert.match(failed.output, /I\/O error|Input\/output error/);
  await waitFor('the word of its kernel', () => /I\/O error, dev vda/.test(guest.consoleTail(200)));

  const full = /ENOSPC: the filesystem is full/;
  await waitFor('the reason', async () => {
    const { exports } = await cluster.client('m1').status();
    return full.test(exports.find(({ name }) => name === 'full')?.reason ?? '');
  });
  await waitFor('the reason in the log', () => full.test(readFileSync(cluster.logPath(m1), 'utf8')));

  // The other disk, and what the full one has room for.
  await guest.succeed(
    'dd if=/dev/urandom of=/dev/vdb bs=1M count=32 oflag=direct && dd if=/dev/vda of=/dev/null bs=1M count=8',
  );
  await guest.succeed('dd if=/dev/zero of=/dev/vda bs=1M count=4 oflag=direct');
  // Space is made: the disk works as if nothing had been.
  await runOk(m1.command(['mount', '-o', 'remount,size=128m', '/run/small']));
  await guest.succeed('dd if=/dev/zero of=/dev/vda bs=1M count=64 oflag=direct');
  await guest.powerOff();
});
