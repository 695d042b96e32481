/** The harness itself on real guests, with disks that have no Netbus in them. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { createHosts } from '../support/hosts.ts';
import { runOk } from '../support/process.ts';
import { waitForListener } from '../support/wait.ts';
import { fileDisk, vhostUserDisk } from './disks.ts';
import { startGuest } from './guest.ts';
import { checkFilesystem, makeEmptyDisk, makeRootDisk } from './root-disk.ts';

const cleanup = new Cleanup();
let folder: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-test-'));
  cleanup.add(folder, () => rmSync(folder, { recursive: true, force: true }));
});
after(() => cleanup.run());

describe('a real guest', () => {
  test('makes a filesystem on a disk, reads back what it wrote and powers off', async (t) => {
    const path = join(folder, 'local.raw');
    makeEmptyDisk(path, 64);
    const guest = await startGuest({ name: 'local', cleanup, arguments: fileDisk({ id: 'disk0', path }) });
    t.diagnostic(`booted in ${Math.round(guest.bootMs)} ms`);
    assert.equal(await guest.succeed('hostname'), 'local');
    assert.equal(await guest.succeed('blockdev --getsize64 /dev/vda'), String(64 * 1024 * 1024));

    await guest.succeed('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt');
    const sum = await guest.succeed('dd if=/dev/urandom of=/mnt/file bs=1M count=4 2>/dev/null; sha256sum </mnt/file');
    await guest.succeed('umount /mnt && mount /dev/vda /mnt');
    assert.equal(await guest.succeed('sha256sum </mnt/file'), sum);
    await guest.powerOff();

    await checkFilesystem(path);
    const content = join(folder, 'file');
    await runOk(['debugfs', '-R', `dump file ${content}`, path]);
    assert.equal((await runOk(['sh', '-c', `sha256sum <${content}`])).trim(), sum);
  });

  test('gives status and output of commands that fail, that say much, and that run side by side; and starts again after a reset', async () => {
    const guest = await startGuest({ name: 'commands', cleanup, resettable: true });
    assert.deepEqual(await guest.run('echo out; echo error >&2; exit 3'), { status: 3, output: 'out\nerror\n' });
    await assert.rejects(guest.succeed('false'), /guest commands: "false" ended with 1/);
    const slow = guest.run('until [ -e /tmp/go ]; do usleep 1000; done; echo late');
    assert.equal((await guest.succeed('seq 1 100000')).length, 588_894);
    await guest.succeed('touch /tmp/go');
    assert.equal((await slow).output, 'late\n');
    await assert.rejects(guest.run('sleep 60', { timeoutMs: 50 }), /waited 50 ms for "sleep 60"/);
    await guest.reset();
    assert.equal((await guest.run('test -e /tmp/go')).status, 1);
    const lost = assert.rejects(guest.run('sleep 60'), /the guest ended/);
    await guest.kill();
    await lost;
  });

  test('boots from a root filesystem on its disk and leaves it clean', async () => {
    const path = join(folder, 'root.raw');
    await makeRootDisk(path, 256);
    const guest = await startGuest({ name: 'rooted', cleanup, root: '/dev/vda', arguments: fileDisk({ id: 'disk0', path }) });
    assert.match(await guest.succeed('grep " / " /proc/mounts'), /^\/dev\/vda \/ ext4 rw/m);
    await guest.succeed('echo kept >/root/note && sync');
    assert.match(await guest.succeed('fio --version'), /^fio-/);
    await guest.powerOff();
    await checkFilesystem(path);
    assert.equal(await runOk(['debugfs', '-R', 'cat /root/note', path]), 'kept\n');
  });

  test('uses a disk behind vhost-user on its host, with fio and several queues', async () => {
    const hosts = await createHosts(['m2'], cleanup);
    const host = hosts.get('m2');
    const path = join(host.folder, 'disk.raw');
    const socket = join(host.runDir, 'disk.sock');
    makeEmptyDisk(path, 64);
    const backend = host.spawn([
      ...['qemu-storage-daemon', '--blockdev', `driver=file,node-name=file,filename=${path},discard=unmap`],
      ...['--export', `type=vhost-user-blk,id=disk,node-name=file,writable=on,num-queues=2,addr.type=unix,addr.path=${socket}`],
    ]);
    await waitForListener(socket, backend.pid);
    const guest = await startGuest({
      name: 'vhost',
      cleanup,
      host,
      cpus: 2,
      fio: true,
      arguments: vhostUserDisk({ id: 'disk0', socket, queues: 2 }),
    });
    assert.equal(await guest.succeed('ls /sys/block/vda/mq | wc -l'), '2');
    await guest.succeed(
      'fio --name=verify --filename=/dev/vda --direct=1 --rw=randwrite --bs=4k --size=8M --numjobs=2 --offset_increment=16M ' +
        '--ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1',
    );
    await guest.powerOff();
    await hosts.remove();
    assert.equal(backend.ended, true);
  });
});
