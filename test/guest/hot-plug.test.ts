/** Disks that come to a running guest and leave it again: `attach --qmp` and `detach --qmp`, on QEMU's two PC machines. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { waitFor } from '../support/wait.ts';
import { exportEmptyDisk, MIB } from './attached.ts';
import { type Guest, startGuest } from './guest.ts';

/** A guest under TCG may need a while to notice. */
const NOTICE_MS_MAX = 60_000;

const cleanup = new Cleanup();
let cluster: Cluster;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
});
after(() => cleanup.run());

/** Places of the machine: on q35 one port is in use, one is free, and one would not do; pc has its one bus. */
const PLACES = {
  q35: [
    ...['-device', 'pcie-root-port,id=port1,chassis=1', '-device', 'virtio-rng-pci,bus=port1'],
    ...['-device', 'pcie-root-port,id=port2,chassis=2,hotplug=off', '-device', 'pcie-root-port,id=port3,chassis=3'],
  ],
  pc: [],
} as const;

for (const machine of ['q35', 'pc'] as const) {
  describe(`a running guest on ${machine}`, () => {
    let guest: Guest;
    let image: string;
    let qmp: string;
    const vm = `plug-${machine}`;
    const disk = `data-${machine}`;
    const netbus = (...argv: readonly string[]) => cluster.netbus('m2', ...argv);

    before(async () => {
      const m2 = cluster.host('m2');
      qmp = join(m2.folder, `${machine}.qmp`);
      image = await exportEmptyDisk(cluster, 'm1', disk, { sizeMiB: 64, allow: ['m2'] });
      const monitor = ['-qmp', `unix:${qmp},server=on,wait=off`];
      guest = await startGuest({ name: vm, machine, host: m2, cleanup, arguments: [...PLACES[machine], ...monitor] });
    });

    const seen = () => waitFor('the disk', async () => (await guest.run('test -b /dev/vda')).status === 0, NOTICE_MS_MAX);

    test('gets a disk, writes to it, gives it back, and gets it again', async () => {
      const entry = await cluster.ask<AttachmentEntry & { plugged: { id: string; bus: string } }>(
        'm2',
        'attach',
        `m1/${disk}`,
        '--vm',
        vm,
        '--qmp',
        qmp,
      );
      assert.deepEqual([entry.plugged.id, entry.plugged.bus], [`nb-${vm}-${disk}`, machine === 'q35' ? 'port3' : 'pci.0']);
      await seen();
      assert.equal(await guest.succeed('blockdev --getsize64 /dev/vda'), String(64 * MIB));
      await guest.succeed('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt');
      const sum = await guest.succeed('dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null; sha256sum </mnt/file');
      await guest.succeed('umount /mnt');

      const detached = await netbus('detach', `${vm}/${disk}`, '--qmp', qmp, '--timeout', '120');
      assert.deepEqual([detached.status, detached.stdout, detached.stderr], [0, `${vm}/${disk} is detached\n`, '']);
      assert.notEqual((await guest.run('test -b /dev/vda')).status, 0);
      const devices = (await guest.qmp.execute('qom-list', { path: '/machine/peripheral' })) as { name: string }[];
      const chardevs = (await guest.qmp.execute('query-chardev')) as { label: string }[];
      assert.ok(
        [...devices.map(({ name }) => name), ...chardevs.map(({ label }) => label)].every((name) => !name.startsWith('nb-')),
      );
      assert.deepEqual((await cluster.client('m2').status()).attachments, []);
      assert.ok(
        readFileSync(image).some((byte) => byte !== 0),
        'what was written is in the image',
      );

      const again = await netbus('attach', `m1/${disk}`, '--vm', vm, '--qmp', qmp);
      assert.equal(again.status, 0, again.stderr);
      assert.match(again.stdout, /plugged into QEMU \d+\.\d+\.\d+ as nb-/);
      await seen();
      await guest.succeed('mount /dev/vda /mnt');
      assert.equal(await guest.succeed('sha256sum </mnt/file'), sum);
      await guest.succeed('umount /mnt');
    });

    test('that does not run keeps its disk, and gives it back when it goes on', async () => {
      await guest.qmp.execute('stop');
      const paused = await netbus('detach', `${vm}/${disk}`, '--qmp', qmp);
      assert.equal(paused.status, 1);
      assert.match(paused.stderr, /the VM does not run \(paused\).*QMP cont/);
      await guest.qmp.execute('cont');
      const detached = await netbus('detach', `${vm}/${disk}`, '--qmp', qmp, '--timeout', '120');
      assert.equal(detached.status, 0, detached.stderr);
    });

    test('gets a disk while it is paused, and sees it when it goes on', async () => {
      await guest.qmp.execute('stop');
      const attached = await netbus('attach', `m1/${disk}`, '--vm', vm, '--qmp', qmp);
      assert.equal(attached.status, 0, attached.stderr);
      assert.match(attached.stderr, /warning: the VM does not run \(paused\): its guest sees the device when it goes on/);
      await guest.qmp.execute('cont');
      await seen();
      const detached = await netbus('detach', `${vm}/${disk}`, '--qmp', qmp, '--timeout', '120');
      assert.equal(detached.status, 0, detached.stderr);
      await guest.powerOff();
    });
  });
}

test('a disk that the machine was started with leaves in the same way, also while it is mounted', async () => {
  const m2 = cluster.host('m2');
  const qmp = join(m2.folder, 'cold.qmp');
  await exportEmptyDisk(cluster, 'm1', 'cold', { sizeMiB: 16, allow: ['m2'] });
  const { qemuArguments } = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/cold', '--vm', 'cold');
  const disk = qemuArguments.map((argument) =>
    argument.startsWith('vhost-user-blk-pci') ? `${argument},bus=port1` : argument,
  );
  const machine = ['-device', 'pcie-root-port,id=port1,chassis=1', '-qmp', `unix:${qmp},server=on,wait=off`];
  const guest = await startGuest({ name: 'cold', host: m2, cleanup, arguments: [...machine, ...disk] });
  await guest.succeed('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt');
  const detached = await cluster.netbus('m2', 'detach', 'cold/cold', '--qmp', qmp, '--timeout', '120');
  assert.deepEqual([detached.status, detached.stderr], [0, '']);
  assert.notEqual((await guest.run('test -b /dev/vda')).status, 0);
  await guest.kill();
});
