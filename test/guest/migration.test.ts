/**
 * A live migration under QEMU between two of our frontends, before a disk in memory: QEMU's messages in its order, under load. That every page is
 * noted is for the tests of the dirty log: here nearly all of them are written by the guest, too.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createDiskFrontend } from '../../src/frontends/vhost-user/disk-frontend.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Cleanup } from '../support/cleanup.ts';
import { MemoryDisk } from '../support/memory-disk.ts';
import { waitFor } from '../support/wait.ts';
import { vhostUserDisk } from './disks.ts';
import { startGuest } from './guest.ts';

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

test('a guest that writes and verifies goes to another QEMU and back', async (t) => {
  const disk = new MemoryDisk({ capacityBytes: 64 * MIB }, 128);
  const complaints: string[] = [];
  const start = async (name: string, incoming: boolean) => {
    const socket = join(folder, name);
    const complain = (_fields: object, message: string) => void complaints.push(message);
    const frontend = createDiskFrontend({
      path: socket,
      inflightPath: `${socket}.inflight`,
      source: disk,
      depth: 256,
      clock: systemClock,
      log: { debug() {}, info() {}, warn: complain, error: complain },
      migratable: true,
    });
    cleanup.add(socket, () => frontend.close());
    const disk0 = vhostUserDisk({ id: 'disk0', socket });
    return { frontend, guest: await startGuest({ name, cleanup, fio: true, memoryMiB: 384, incoming, arguments: disk0 }) };
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
    here = there;
  }
  await here.guest.succeed('killall -INT fio; while [ ! -e /tmp/fio.status ]; do usleep 10000; done');
  const report = await here.guest.succeed('cat /tmp/fio.txt');
  assert.match(report, /err= 0/);
  assert.doesNotMatch(await here.guest.succeed('dmesg'), /I\/O error|hung|BUG/);
  await here.guest.powerOff();
  assert.deepEqual(complaints, []);
});
