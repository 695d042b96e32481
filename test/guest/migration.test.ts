/** Real guests that live-migrate between real QEMUs on three hosts, while their disks stay where they are. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FioGuest } from '../../bench/faults/fio-guest.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { waitFor } from '../support/wait.ts';
import { exportDisk, exportEmptyDisk } from './attached.ts';
import { COUNTED, COUNTING_PORT, makeCountingDisk, readCount } from './counting-disk.ts';
import { DebugPort } from './debug-port.ts';
import type { Guest } from './guest.ts';
import { MigrationFailed } from './migrate.ts';
import { NetbusDisks } from './netbus-disks.ts';
import { type Disks, Traveller } from './traveller.ts';

/** Bounds that end a test that hangs; they say nothing about speed. In milliseconds. */
const WORK_MS_MAX = 60_000;
const HOSTS = ['m1', 'm2', 'm3'];
const SIZE_MIB = 16;
const WORK = { disk: 'vda', sizeMiB: SIZE_MIB, depth: 16, blockKiBMax: 64 };

const cleanup = new Cleanup();
let cluster: Cluster;
let m1: Host;
let m2: Host;
let m3: Host;

before(async () => {
  cluster = await startCluster(HOSTS, { cleanup });
  m1 = cluster.host('m1');
  m2 = cluster.host('m2');
  m3 = cluster.host('m3');
});
after(() => cleanup.run());

/** An empty disk of m1 for a VM of this name. */
async function emptyDisk(vm: string): Promise<Disks> {
  await exportEmptyDisk(cluster, 'm1', vm, { sizeMiB: SIZE_MIB, allow: HOSTS });
  return new NetbusDisks(cluster, vm, `m1/${vm}`);
}

/** A guest that writes, flushes and verifies without end. */
class WorkingGuest {
  readonly traveller: Traveller;
  readonly #fio: FioGuest;

  static async boot(vm: string, host: Host, seed: number): Promise<WorkingGuest> {
    const traveller = await Traveller.boot(host, { name: vm, cleanup, fio: true, memoryMiB: 384, disks: await emptyDisk(vm) });
    return new WorkingGuest(traveller, await FioGuest.start(traveller.guest, [WORK], seed));
  }

  private constructor(traveller: Traveller, fio: FioGuest) {
    this.traveller = traveller;
    this.#fio = fio;
  }

  async move(to: Host): Promise<void> {
    await this.traveller.move(to);
    await this.assertWorks(to);
  }

  /** It is here, its disk goes on, and neither fio nor its kernel has found anything. */
  async assertWorks(host: Host): Promise<void> {
    assert.equal(this.traveller.host, host);
    this.#fio.guest = this.traveller.guest;
    assert.deepEqual(await this.#fio.problems(WORK_MS_MAX), []);
  }

  /** A migration that does not happen. */
  async assertStays(to: Host, atSwitchover: (there: Guest) => Promise<boolean>): Promise<void> {
    const host = this.traveller.host;
    await assert.rejects(this.traveller.move(to, { atSwitchover }), MigrationFailed);
    await this.assertWorks(host);
  }
}

describe('a guest that migrates while it writes and verifies', () => {
  let one: WorkingGuest;
  let two: WorkingGuest;

  test('goes over three hosts, with its disk local, remote, remote and local again; its write cache is as it chose', async () => {
    one = await WorkingGuest.boot('one', m1, 1);
    const cacheType = () => one.traveller.guest.succeed('cat /sys/block/vda/cache_type');
    await one.traveller.guest.succeed('echo "write through" >/sys/block/vda/cache_type');
    for (const host of [m2, m3, m1]) {
      await one.move(host);
      assert.equal(await cacheType(), 'write through');
    }
    await one.traveller.guest.succeed('echo "write back" >/sys/block/vda/cache_type');
    await one.move(m2);
    assert.equal(await cacheType(), 'write back');
  });

  test('stays where it is when the migration is cancelled after its queues were stopped', async () => {
    await one.assertStays(m1, async () => false);
  });

  test('stays where it is when the QEMU that waits for it is killed before it has anything', async () => {
    await one.assertStays(m1, async (there) => {
      await there.kill();
      return true;
    });
  });

  test('goes on where it was when the QEMU that waits for it is killed after it was let go', async () => {
    const host = one.traveller.host;
    const there = await one.traveller.expect(m3);
    const here = one.traveller.guest;
    // It takes what is sent no more, so that the source is anywhere between the last byte and the end when it is killed.
    const atSwitchover = async () => {
      there.qemu.signal('SIGSTOP');
      return true;
    };
    const events = here.qmp.events();
    const moving = one.traveller.move(m3, { there, atSwitchover });
    moving.catch(() => undefined);
    await events.find(({ name, data }) => name === 'MIGRATION' && data.status === 'device', { timeoutMs: WORK_MS_MAX });
    events.close();
    there.qemu.signal('SIGKILL');
    await assert.rejects(moving);
    // A source that had sent everything takes the guest for gone; whoever knows that it is not lets it go on.
    const { status } = (await here.qmp.execute('query-status')) as { status: string };
    if (status === 'postmigrate') await here.qmp.execute('cont');
    await one.assertWorks(host);
  });

  test('meets another one that goes the opposite way', async () => {
    two = await WorkingGuest.boot('two', m3, 2);
    await Promise.all([one.move(m3), two.move(m2)]);
  });

  test('starts again, with all that it had flushed, after its QEMU was killed at the switch-over', async () => {
    const { traveller } = two;
    await traveller.guest.succeed(
      'killall -KILL fio; rm /run/fio-*; dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null',
    );
    const sum = await traveller.guest.succeed('dd if=/tmp/data of=/dev/vda bs=1M conv=fsync 2>/dev/null; sha256sum </tmp/data');
    const here = traveller.guest;
    const killed = traveller.move(m1, {
      atSwitchover: async () => {
        await here.kill();
        return true;
      },
    });
    await assert.rejects(killed);
    const again = await traveller.restart();
    assert.equal(await again.succeed('dd if=/dev/vda bs=1M count=4 2>/dev/null | sha256sum'), sum);
    await again.kill();
    await one.assertWorks(m3);
    await one.traveller.guest.kill();
  });
});

describe('a guest whose firmware drives its disk', () => {
  test('goes over three hosts, and what it counted is counted once', async () => {
    const image = join(m1.folder, 'counting.img');
    makeCountingDisk(image, 1);
    await exportDisk(cluster, 'm1', 'counting', image, { allow: HOSTS });
    let said = '';
    const port = new DebugPort((data) => {
      said += data.toString('latin1');
    });
    const disks = new NetbusDisks(cluster, 'firmware', 'm1/counting');
    const ports = [{ place: COUNTING_PORT, port }];
    const traveller = await Traveller.boot(m1, { name: 'firmware', cleanup, boot: 'disk', disks, ports });
    const counts = () => {
      const until = said.length + 100;
      return waitFor('the guest to count', () => said.length >= until, WORK_MS_MAX);
    };
    await counts();
    for (const host of [m2, m3, m1]) {
      await traveller.move(host);
      await counts();
    }
    await traveller.guest.kill();
    assert.deepEqual(new Set(said), new Set([COUNTED]));
    // The last round may have been written and not told.
    await waitFor('the last of its rounds', () => readCount(image) >= said.length);
    assert.ok(readCount(image) <= said.length + 1, `${readCount(image)} on the disk, ${said.length} told`);
  });
});
