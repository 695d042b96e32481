/**
 * The daemon on the VM's host is killed, again and again, while its guest writes to a disk of another host and to one of its own host. What was in
 * flight goes again, once, in order: fio's checksums and the filesystem say whether it did. NETBUS_KILL_SEED sets when.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { run } from '../support/process.ts';
import { seededRandom } from '../support/random.ts';
import { bootAttached, exportEmptyDisk } from './attached.ts';
import type { Guest } from './guest.ts';
import { checkFilesystem } from './root-disk.ts';

const seed = Number(process.env.NETBUS_KILL_SEED ?? Date.now() % 2 ** 31);
/** Bounds that end a test that hangs; they say nothing about speed. */
const WAIT_MS_MAX = 60_000;
const WORK_MS_MAX = 300_000;
const ROUNDS = 3;
/** Kills in each round: the later ones meet what the one before had put back. */
const KILLS = 2;

const cleanup = new Cleanup();
let cluster: Cluster;
let guest: Guest;
let remote: string;
let local: string;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  remote = await exportEmptyDisk(cluster, 'm1', 'remote', { sizeMiB: 96, allow: ['m2'] });
  local = await exportEmptyDisk(cluster, 'm2', 'local', { sizeMiB: 96, allow: ['m2'] });
  guest = await bootAttached(cluster, 'm2', 'io', ['m1/remote', 'm2/local'], { cleanup, cpus: 2, fio: true });
});
after(() => cleanup.run());

async function killDaemon(): Promise<void> {
  const daemon = cluster.daemon('m2');
  daemon.signal('SIGKILL');
  await daemon.exited;
  await cluster.startDaemon(cluster.host('m2'));
}

/**
 * Both disks serve the guest again. A kill before that may meet QEMU 7.2 in its first question on the new connection, after which it never comes
 * back: an error of its own (docs/vmm.md).
 */
async function reconnected(): Promise<void> {
  for (const name of ['io/remote', 'io/local']) {
    await cluster.waitForAttachment('m2', name, ({ state }) => state === 'active', WAIT_MS_MAX);
  }
}

function fio(folder: string, randseed: number): string {
  return (
    `fio --name=work --directory=${folder} --direct=1 --ioengine=libaio --iodepth=16 --numjobs=2 --size=12M ` +
    `--rw=randwrite --bsrange=4k-64k --fsync=32 --verify=crc32c --verify_fatal=1 --randseed=${randseed} --output=/dev/null`
  );
}

test(`a guest goes on when the daemon of its host is killed (seed ${seed})`, async (t) => {
  const random = seededRandom(seed);
  await guest.succeed('mkdir -p /mnt/a /mnt/b && mkfs.ext4 -q /dev/vda && mkfs.ext4 -q /dev/vdb');
  await guest.succeed('mount /dev/vda /mnt/a && mount /dev/vdb /mnt/b');
  let inFlight = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const work = guest.succeed(`${fio('/mnt/a', round + 1)} & ${fio('/mnt/b', round + 9)} && wait $!`, {
      timeoutMs: WORK_MS_MAX,
    });
    // Told by `await work`; here it must only not count as nobody's.
    work.catch(() => undefined);
    const least = 1 + random.below(3);
    const found = await cluster.waitForAttachment('m2', 'io/remote', (entry) => entry.inFlight >= least, WAIT_MS_MAX);
    inFlight += found.inFlight;
    await killDaemon();
    for (let kills = 1; kills < KILLS; kills++) {
      await reconnected();
      await killDaemon();
    }
    await work;
    await reconnected();
  }
  t.diagnostic(`${ROUNDS * KILLS} kills, ${inFlight} requests in flight before the first of each round`);
  for (const entry of (await cluster.client('m2').status()).attachments) {
    assert.equal(entry.state, 'active');
    assert.equal(entry.reason, undefined);
  }
  const errors = await guest.succeed("dmesg | grep -iE 'error|fail|abort|timed out|hung|blocked for|corrupt' || true");
  assert.deepEqual(
    errors.split('\n').filter((line) => /vd[ab]|virtio|blk|ext4|jbd2|hung|blocked/i.test(line)),
    [],
  );
  await guest.succeed('umount /mnt/a /mnt/b');
  await guest.powerOff();
  await cluster.waitForAttachment('m2', 'io/local', ({ connected }) => !connected);
  await checkFilesystem(remote);
  await checkFilesystem(local);
});

test('the region of requests in flight stays with its attachment, and goes with it', async () => {
  const host = cluster.host('m2');
  const files = async () =>
    (await run(host.command(['find', host.runDir, '-name', '*.inflight', '-printf', '%f %m\\n']))).stdout;
  assert.deepEqual((await files()).split('\n').sort(), ['', 'local.inflight 600', 'remote.inflight 600']);
  await cluster.ask('m2', 'detach', 'io/remote');
  await cluster.ask('m2', 'detach', 'io/local');
  assert.equal(await files(), '');
});
