/** A real guest on the vhost-user frontend, before a disk in memory: what QEMU and Linux's driver make of it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { DiskFlag, DiskKind } from '../../src/device/disk.ts';
import { createDiskFrontend, type DiskFrontend } from '../../src/frontends/vhost-user/disk-frontend.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Cleanup } from '../support/cleanup.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { waitFor } from '../support/wait.ts';
import { vhostUserDisk } from './disks.ts';
import { startGuest } from './guest.ts';
import { keepMemory } from './migrate.ts';
import { checkFilesystem } from './root-disk.ts';

const MIB = 1024 * 1024;
/** fio alone takes seconds to start under emulation. */
const WORK_MS_MAX = 60_000;
const MIGRATION_MS_MAX = 120_000;
const cleanup = new Cleanup();
let folder: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-test-'));
  cleanup.add(folder, () => rmSync(folder, { recursive: true, force: true }));
});
after(() => cleanup.run());

function serve(
  name: string,
  disk: MemoryDisk,
  migratable = false,
): { frontend: DiskFrontend; socket: string; complaints: string[] } {
  const socket = join(folder, name);
  const complaints: string[] = [];
  const complain = (_fields: object, message: string) => void complaints.push(message);
  const log = { debug() {}, info() {}, warn: complain, error: complain };
  const frontend = createDiskFrontend({
    path: socket,
    inflightPath: `${socket}.inflight`,
    source: disk,
    depth: 256,
    clock: systemClock,
    log,
    migratable,
  });
  cleanup.add(socket, () => frontend.close());
  return { frontend, socket, complaints };
}

describe('a real guest on the vhost-user frontend', () => {
  test('filesystem, fio with several queues, discard, write cache, growing while mounted', async (t) => {
    const disk = new MemoryDisk({ capacityBytes: 128 * MIB, queues: 2 }, 128);
    const { frontend, socket, complaints } = serve('disk0', disk);
    const disk0 = vhostUserDisk({ id: 'disk0', socket, queues: 2 });
    const guest = await startGuest({ name: 'vhost', cleanup, cpus: 2, fio: true, memoryMiB: 384, arguments: disk0 });
    t.diagnostic(`booted in ${Math.round(guest.bootMs)} ms`);
    assert.equal(await guest.succeed('blockdev --getsize64 /dev/vda'), String(128 * MIB));
    assert.equal(await guest.succeed('cat /sys/block/vda/serial'), 'netbus-test');
    assert.equal(await guest.succeed('cat /sys/block/vda/queue/physical_block_size'), '4096');
    assert.equal(await guest.succeed('ls /sys/block/vda/mq | wc -l'), '2');
    assert.equal(await guest.succeed('cat /sys/block/vda/queue/write_cache'), 'write back');

    await guest.succeed('mkfs.ext4 -q /dev/vda && mount -o discard /dev/vda /mnt');
    const sum = await guest.succeed('dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null; sha256sum </mnt/file');
    await guest.succeed('umount /mnt && mount -o discard /dev/vda /mnt');
    assert.equal(await guest.succeed('sha256sum </mnt/file'), sum);
    await guest.succeed(
      'fio --name=v --directory=/mnt --size=16m --rw=randrw --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --verify=crc32c --do_verify=1 --numjobs=2 --fdatasync=64 >/dev/null',
      { timeoutMs: 60_000 },
    );
    await guest.succeed('rm /mnt/v.* && sync');

    disk.grow(160 * MIB);
    frontend.profileChanged();
    await waitFor('the new size', async () => (await guest.succeed('blockdev --getsize64 /dev/vda')) === String(160 * MIB));
    await guest.succeed('dd if=/dev/zero of=/dev/vda bs=1M seek=159 count=1 oflag=direct 2>/dev/null');

    await guest.succeed('echo "write through" >/sys/block/vda/cache_type && echo hello >/mnt/note && sync');
    assert.equal(frontend.status().writeCache, false);
    assert.ok(disk.seen.some(({ flags }) => (flags & DiskFlag.durable) !== 0));
    assert.ok(
      disk.seen.some(({ kind }) => kind === DiskKind.discard),
      'mounted with discard',
    );
    assert.ok(disk.seen.some(({ kind }) => kind === DiskKind.flush));
    await guest.powerOff();

    assert.deepEqual(complaints, []);
    t.diagnostic(JSON.stringify(frontend.statistics.counters()));
    const image = join(folder, 'image');
    writeFileSync(image, disk.storage);
    await checkFilesystem(image);
  });

  test('a reset of the machine, and a backend that starts anew under a running guest', async () => {
    const disk = new MemoryDisk({ capacityBytes: 64 * MIB }, 128);
    const { frontend, socket, complaints } = serve('disk1', disk);
    const disk1 = vhostUserDisk({ id: 'disk1', socket });
    const guest = await startGuest({ name: 'again', cleanup, resettable: true, arguments: disk1 });
    await guest.succeed('dd if=/dev/urandom of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null');
    const sum = await guest.succeed('dd if=/dev/vda bs=64k count=16 2>/dev/null | sha256sum');
    await guest.reset();
    assert.equal(await guest.succeed('dd if=/dev/vda bs=64k count=16 2>/dev/null | sha256sum'), sum);
    assert.equal(frontend.status().inFlight, 0);
    assert.deepEqual(complaints, []);
    await frontend.close();
    const again = serve('disk1', disk);
    await waitFor('QEMU to come back', () => again.frontend.status().connected);
    assert.equal(await guest.succeed('dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | sha256sum'), sum);
    await guest.powerOff();
    assert.deepEqual(again.complaints, []);
  });

  // Every page that the disk wrote is noted: see the tests of the dirty log. Here memory is not copied (see Traveller): the log is set and used all the same.
  test('a guest that writes and verifies migrates to another QEMU, and on to a third', async (t) => {
    const disk = new MemoryDisk({ capacityBytes: 64 * MIB }, 128);
    const start = async (name: string, incoming: boolean) => {
      const { socket, complaints } = serve(name, disk, true);
      const disk0 = vhostUserDisk({ id: 'disk0', socket });
      const more = { cleanup, fio: true, memoryMiB: 384, memoryFile: join(folder, 'memory'), incoming, arguments: disk0 };
      return { complaints, guest: await startGuest({ name, ...more }) };
    };

    let here = await start('first', false);
    await here.guest.succeed(
      '(fio --name=v --filename=/dev/vda --size=32m --rw=randrw --bsrange=4k-64k --iodepth=16 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=3600 >/tmp/fio.txt 2>&1; echo $? >/tmp/fio.status) & echo started',
    );
    for (const name of ['second', 'third']) {
      const writes = async () => Number(await here.guest.succeed("awk '{print $5}' /sys/block/vda/stat"));
      await waitFor('reads and writes', async () => (await writes()) > 200, WORK_MS_MAX);
      const there = await start(name, true);
      const uri = `unix:${join(folder, `${name}.migration`)}`;
      await keepMemory(here.guest, there.guest);
      await there.guest.qmp.execute('migrate-incoming', { uri });
      await here.guest.qmp.execute('migrate', { uri });
      const status = await waitFor(
        'the migration',
        async () => {
          const answer = (await here.guest.qmp.execute('query-migrate')) as { status: string; downtime?: number };
          return ['completed', 'failed', 'cancelled'].includes(answer.status) ? answer : undefined;
        },
        MIGRATION_MS_MAX,
      );
      assert.equal(status.status, 'completed', JSON.stringify(status));
      t.diagnostic(`downtime ${status.downtime} ms`);
      await here.guest.kill();
      await there.guest.waitUntilReady();
      assert.equal(await there.guest.succeed('cat /tmp/fio.status 2>/dev/null || echo running'), 'running');
      assert.deepEqual(here.complaints, []);
      here = there;
    }
    await here.guest.succeed('killall -INT fio; while [ ! -e /tmp/fio.status ]; do usleep 10000; done');
    const report = await here.guest.succeed('cat /tmp/fio.txt');
    assert.match(report, /err= 0/);
    assert.doesNotMatch(await here.guest.succeed('dmesg'), /I\/O error|hung|BUG/);
    await here.guest.powerOff();
    assert.deepEqual(here.complaints, []);
  });
});
