/** What a guest's own driver does with a remote disk: reads, writes, flushes, discards, on several queues, and a disk that grows. */

import assert from 'node:assert/strict';
import { statSync, truncateSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { waitFor } from '../support/wait.ts';
import { bootAttached, exportEmptyDisk, MIB } from './attached.ts';
import type { Guest } from './guest.ts';
import { checkFilesystem } from './root-disk.ts';

const cleanup = new Cleanup();
let cluster: Cluster;
let guest: Guest;
let raw: string;
let mounted: string;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  raw = await exportEmptyDisk(cluster, 'm1', 'raw', { sizeMiB: 128, allow: ['m2'] });
  mounted = await exportEmptyDisk(cluster, 'm1', 'mounted', { sizeMiB: 64, allow: ['m2'] });
  guest = await bootAttached(cluster, 'm2', 'io', ['m1/raw', 'm1/mounted'], { cleanup, cpus: 2, fio: true });
});
after(() => cleanup.run());

/** Allocated bytes of a file. */
const allocated = (path: string): number => statSync(path).blocks * 512;

describe('a remote disk in a guest', () => {
  test('is what was exported: size, serial number, queues, discard', async () => {
    assert.equal(await guest.succeed('blockdev --getsize64 /dev/vda'), String(128 * MIB));
    assert.equal(await guest.succeed('cat /sys/block/vda/serial'), 'raw');
    assert.equal(await guest.succeed('ls /sys/block/vda/mq | wc -l'), '2');
    assert.notEqual(await guest.succeed('cat /sys/block/vda/queue/discard_max_bytes'), '0');
    assert.notEqual(await guest.succeed('cat /sys/block/vda/queue/write_zeroes_max_bytes'), '0');
    assert.equal(await guest.succeed('cat /sys/block/vda/cache_type'), 'write back');
    assert.equal(await guest.succeed('cat /sys/block/vda/ro'), '0');
  });

  test('keeps what fio writes, with flushes, on two queues', async () => {
    await guest.succeed(
      'fio --name=verify --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --numjobs=2 --size=12M --offset_increment=32M ' +
        '--rw=randwrite --bsrange=4k-128k --fsync=64 --verify=crc32c --verify_fatal=1 --randseed=7',
    );
  });

  test('keeps what fio writes while it trims, and trimmed blocks are zeroes', async () => {
    await guest.succeed(
      'fio --name=trim --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --size=8M --rw=randtrimwrite --bs=8k --fsync=128 ' +
        '--verify=crc32c --verify_fatal=1 --trim_percentage=25 --trim_verify_zero=1 --trim_backlog=64 --randseed=9',
    );
  });

  test('writes zeroes, and gives space back where the guest discards', async () => {
    await guest.succeed(
      '/sbin/blkdiscard /dev/vda && dd if=/dev/urandom of=/dev/vda bs=1M count=16 oflag=direct 2>/dev/null; sync',
    );
    assert.ok(allocated(raw) >= 16 * MIB);
    await guest.succeed(`/sbin/blkdiscard -o 0 -l ${8 * MIB} /dev/vda`);
    assert.ok(allocated(raw) < 16 * MIB);
    // The kernel's zeroout keeps blocks allocated.
    await guest.succeed(`/sbin/blkdiscard -z -o ${8 * MIB} -l ${8 * MIB} /dev/vda`);
    assert.equal(await guest.succeed(`cmp -n ${16 * MIB} /dev/vda /dev/zero && echo zeroes`), 'zeroes');
    await guest.succeed('/sbin/blkdiscard /dev/vda');
    assert.ok(allocated(raw) < MIB);
  });

  test('goes on when the guest makes it write-through', async () => {
    await guest.succeed('echo "write through" >/sys/block/vda/cache_type');
    assert.equal(await guest.succeed('cat /sys/block/vda/cache_type'), 'write through');
    await guest.succeed(
      'fio --name=through --filename=/dev/vda --direct=1 --size=2M --rw=randwrite --bs=4k --ioengine=libaio --iodepth=8 --verify=crc32c',
    );
    await guest.succeed('echo "write back" >/sys/block/vda/cache_type');
    assert.equal(await guest.succeed('cat /sys/block/vda/cache_type'), 'write back');
  });

  test('grows while it is mounted', async () => {
    await guest.succeed('mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt');
    const sum = await guest.succeed(
      'dd if=/dev/urandom of=/mnt/file bs=1M count=16 conv=fsync 2>/dev/null; sha256sum /mnt/file',
    );
    truncateSync(mounted, 128 * MIB);
    const result = await cluster.ask('m2', 'grow', 'io/mounted');
    assert.deepEqual(result, { grown: true, capacityBytes: 128 * MIB });
    await waitFor('the guest to see the new size', async () => {
      return (await guest.succeed('blockdev --getsize64 /dev/vdb')) === String(128 * MIB);
    });
    await guest.succeed('resize2fs /dev/vdb');
    await guest.succeed('dd if=/dev/zero of=/mnt/more bs=1M count=56 conv=fsync 2>/dev/null');
    assert.equal(await guest.succeed('echo 3 >/proc/sys/vm/drop_caches; sha256sum /mnt/file'), sum);
    await guest.succeed('umount /mnt');
  });

  test('is complete on its host when the guest has powered off', async () => {
    await guest.powerOff();
    await cluster.waitForAttachment('m2', 'io/mounted', ({ connected }) => !connected);
    await checkFilesystem(mounted);
    const status = await cluster.client('m2').status();
    assert.deepEqual(
      status.attachments.map(({ inFlight, state }) => ({ inFlight, state })),
      [
        { inFlight: 0, state: 'idle' },
        { inFlight: 0, state: 'idle' },
      ],
    );
  });
});
