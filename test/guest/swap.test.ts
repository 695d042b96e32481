/** Hot-swaps under a real guest that writes, flushes, discards and verifies: what a user types, from end to end. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { FioGuest } from '../../bench/faults/fio-guest.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { waitFor } from '../support/wait.ts';
import { bootAttached, exportEmptyDisk, MIB } from './attached.ts';
import type { Guest } from './guest.ts';

/** fio has the beginning, the discards what comes after it. */
const DISK_MIB = 48;
const LARGER_MIB = 64;
const FIO = { disk: 'vda', sizeMiB: 16, depth: 16, blockKiBMax: 64 };
const DISCARDED_MIB = 20;
/** Generous: it ends a wait that hangs, and says nothing about speed. */
const WORK_MS_MAX = 60_000;

/**
 * In the guest, for as long as /run/discards is there: writes 2 MiB, discards the first half, and reads all of it past the cache. A discarded block
 * is zeroes on these disks.
 */
const DISCARDS = `
  while [ -e /run/discards ]; do
    dd if=/tmp/pattern of=/dev/vda bs=1M seek=${DISCARDED_MIB} oflag=direct conv=fsync 2>/dev/null &&
    /sbin/blkdiscard -o ${DISCARDED_MIB * MIB} -l ${MIB} /dev/vda &&
    dd if=/dev/vda bs=1M skip=${DISCARDED_MIB} count=2 iflag=direct 2>/dev/null | cmp -s - /tmp/expected || touch /run/wrong
  done
  touch /run/rested`;

const cleanup = new Cleanup();
let cluster: Cluster;
let guest: Guest;
let work: FioGuest;
let lastImage: string;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  const allow = ['m1', 'm2'];
  await exportEmptyDisk(cluster, 'm1', 'data', { sizeMiB: DISK_MIB, allow });
  await exportEmptyDisk(cluster, 'm2', 'near', { sizeMiB: LARGER_MIB, allow });
  await exportEmptyDisk(cluster, 'm2', 'small', { sizeMiB: DISK_MIB / 2, allow });
  lastImage = await exportEmptyDisk(cluster, 'm1', 'back', { sizeMiB: LARGER_MIB, allow });
  guest = await bootAttached(cluster, 'm2', 'web', ['m1/data'], { cleanup, fio: true });
  await guest.succeed(
    `dd if=/dev/urandom of=/tmp/pattern bs=1M count=2 2>/dev/null
    (head -c ${MIB} /dev/zero; tail -c ${MIB} /tmp/pattern) >/tmp/expected
    touch /run/discards; (${DISCARDS}) </dev/null >/dev/null 2>&1 &`,
  );
  work = await FioGuest.start(guest, [FIO], 7);
});
after(() => cleanup.run());

async function assertWorks(): Promise<void> {
  assert.deepEqual(await work.problems(WORK_MS_MAX), []);
  assert.equal((await guest.run('[ -e /run/wrong ]')).status, 1, 'the disk holds what was written and discarded');
}

const device = async () => (await cluster.client('m2').status()).attachments[0]?.device;
const sizeInGuest = async () => Number(await guest.succeed('blockdev --getsize64 /dev/vda')) / MIB;

describe('a disk under a guest that works', () => {
  test('stays where it is when the new one cannot take its place, and the guest hears nothing of it', async () => {
    const session = async () => (await cluster.client('m2').status()).attachments[0]?.epoch;
    const epoch = await session();
    const { status, stdout, stderr } = await cluster.netbus('m2', 'swap', 'web/data', '--to', 'm2/small');
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^netbus: export small cannot replace the device: it has 24 MiB, and the guest's disk 48 MiB\n$/);
    assert.equal(await session(), epoch);
    await assertWorks();
  });

  test("goes from the remote host to the guest's own, and the remote one may go", async () => {
    const { status, stdout, stderr } = await cluster.netbus('m2', 'swap', 'web/data', '--to', 'm2/near');
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^web\/data is m2\/near now: .* copied in .*, its guest stood still for .* ms\n$/);
    assert.match(stderr, /^job j\d+ swaps web\/data from m1\/data to m2\/near\n/);
    await cluster.stopDaemon(cluster.host('m1'));
    await assertWorks();
    assert.equal(await device(), 'm2/near');
  });

  test('keeps its size on a larger one until it is grown', async () => {
    assert.equal(await sizeInGuest(), DISK_MIB);
    assert.deepEqual(await cluster.ask('m2', 'grow', 'web/data'), { grown: true, capacityBytes: LARGER_MIB * MIB });
    await waitFor('the guest to see the new size', async () => (await sizeInGuest()) === LARGER_MIB, WORK_MS_MAX);
  });

  test('goes back to a remote host, whole', async () => {
    await cluster.startDaemon(cluster.host('m1'));
    const { status, stderr } = await cluster.netbus('m2', 'swap', 'web/data', '--to', 'm1/back');
    assert.equal(status, 0, stderr);
    await assertWorks();
    assert.equal(await device(), 'm1/back');
    await guest.succeed('rm /run/discards; until [ -e /run/rested ]; do usleep 20000; done');
    await work.stop();
    const sum = await guest.succeed('sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda | cut -c1-64');
    await guest.powerOff();
    assert.equal(createHash('sha256').update(readFileSync(lastImage)).digest('hex'), sum);
  });
});
