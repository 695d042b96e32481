/** `netbus migrate` with real daemons, a real guest that writes, and its disk on a third host: what a user types, from end to end. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { JobEntry } from '../../src/api/jobs.ts';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import type { RunningProcess } from '../support/process.ts';
import { assertFails } from '../support/program.ts';
import { waitFor } from '../support/wait.ts';
import { bootAttached, exportEmptyDisk } from './attached.ts';
import { type Guest, startGuest } from './guest.ts';
import { keepMemory } from './migrate.ts';

/** So slow that a migration is still copying when the test does something. */
const SLOW_BYTES_PER_SECOND = 1024 * 1024;
const FAST_BYTES_PER_SECOND = 1024 * 1024 * 1024;

const cleanup = new Cleanup();
let cluster: Cluster;
let guest: Guest;
let monitor: string;
let memoryFile: string;

before(async () => {
  cluster = await startCluster(['m1', 'm2', 'm3'], { cleanup });
  const m2 = cluster.host('m2');
  await exportEmptyDisk(cluster, 'm1', 'data', { sizeMiB: 32, allow: ['m2', 'm3'] });
  monitor = join(m2.folder, 'web.qmp');
  memoryFile = join(m2.folder, 'web.memory');
  const more = ['-qmp', `unix:${monitor},server=on,wait=off`];
  guest = await bootAttached(cluster, 'm2', 'web', ['m1/data'], { cleanup, arguments: more, memoryFile });
  await guest.succeed('mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo before > /mnt/before && sync');
  // Counts for ever, and each number is on stable storage before the next one.
  await guest.succeed('(i=0; while echo $i > /mnt/number && sync; do i=$((i + 1)); done) </dev/null >/dev/null 2>&1 &');
});
after(() => cleanup.run());

const verb = (to: string) => ['migrate', 'web', '--to', to, '--qmp', monitor];
const migrate = (...more: readonly string[]) => cluster.netbus('m2', ...verb('m3'), ...more);
const attachments = async (host: string) => (await cluster.client(host).status()).attachments;
const slowDown = (bytes: number) => guest.qmp.execute('migrate-set-parameters', { 'max-bandwidth': bytes });

/** The guest's count goes on. */
async function assertWorks(where: Guest): Promise<void> {
  const number = async () => Number(await where.succeed('cat /mnt/number'));
  const first = await waitFor('a number', async () => (await number()) || undefined, 60_000);
  await waitFor('the next number', async () => (await number()) > first, 60_000);
  assert.equal(await where.succeed('cat /mnt/before'), 'before');
}

/** Once it has ended. */
function jobOf(jobs: readonly JobEntry[], id: string): JobEntry | undefined {
  return jobs.find((job) => job.id === id && job.endedAt !== undefined);
}

/** The devices stand ready at m3 as soon as a QEMU waits there; with the guest's own memory where that is not to be copied. */
async function startDestination(more: { memoryFile?: string } = {}): Promise<Guest> {
  const { attachments: ready } = await cluster.ask<{ attachments: AttachmentEntry[] }>('m3', 'prepare', 'web', '--from', 'm2');
  const there = await startGuest({
    ...{ name: 'web', cleanup, host: cluster.host('m3'), incoming: true, ...more },
    arguments: ready.flatMap(({ qemuArguments }) => qemuArguments),
  });
  await there.qmp.execute('migrate-incoming', { uri: 'tcp:0:4444' });
  return there;
}

/** Until the memory is on its way. */
async function startCopying(): Promise<RunningProcess> {
  const program = cluster.host('m2').spawn([...netbusProgram(), ...verb('m3')], {
    env: { NETBUS_RUN_DIR: cluster.host('m2').runDir },
  });
  await program.waitForLine(/copying the memory/);
  return program;
}

describe('migrate', () => {
  test('is refused to a host that is no member', async () => {
    assertFails(await cluster.netbus('m2', ...verb('m9')), 3, /no host m9 in the cluster/);
  });

  test('undoes what it prepared where the destination does not start', async () => {
    const result = await migrate('--start', 'echo no room; exit 3');
    assert.equal(result.status, 1);
    assert.match(result.stderr, /^netbus: the command of --start ended with status 3: no room; .*here$/m);
    assert.deepEqual(await attachments('m3'), []);
    await assertWorks(guest);
  });

  for (const [how, status, cancel] of [
    ['interrupted', 130, async (program: RunningProcess) => program.signal('SIGINT')],
    ['cancelled from another terminal', 1, async () => void (await cluster.ask('m2', 'migrate', 'web', '--cancel'))],
  ] as const) {
    test(`${how} while it copies: the guest goes on, and what a person prepared stays`, async () => {
      const there = await startDestination();
      await slowDown(SLOW_BYTES_PER_SECOND);
      const program = await startCopying();
      await cancel(program);
      assert.equal((await program.exited).status, status);
      assert.match(program.stderr, /the migration was cancelled; the VM goes on here\n$/);
      await there.qemu.exited;
      await assertWorks(guest);
      assert.deepEqual(
        (await attachments('m3')).map(({ state }) => state),
        ['standby'],
      );
    });
  }

  test('moves a guest that writes; its disk goes along, and follows it to the host itself', async () => {
    // An emulated guest's memory does not survive being copied each time: see Traveller.
    const there = await startDestination({ memoryFile });
    await keepMemory(guest, there);
    await slowDown(FAST_BYTES_PER_SECOND);
    await exportEmptyDisk(cluster, 'm3', 'data', { sizeMiB: 32, allow: ['m3'] });
    const { status, stdout, stderr } = await migrate('--json', '--follow', 'data=m3/data');
    assert.deepEqual([status, stderr], [0, '']);
    const answer = JSON.parse(stdout);
    assert.deepEqual([answer.vm, answer.to, answer.sourceEnded, answer.warnings], ['web', 'm3', true, []]);
    assert.deepEqual([answer.devices.length, answer.devices[0].outcome], [1, 'clean'], stdout);
    assert.ok(answer.devices[0].startStallMs >= 0 && answer.devices[0].stopStallMs >= 0, stdout);
    await guest.qemu.exited;
    await assertWorks(there);
    const [{ job }] = answer.follows;
    const client = cluster.client('m3');
    const swap = await waitFor('the end of the job', async () => jobOf((await client.jobs()).jobs, job), 120_000);
    assert.deepEqual([swap.state, swap.from, swap.to], ['done', 'm1/data', 'm3/data'], JSON.stringify(swap));
    await assertWorks(there);
    const [entry] = await attachments('m3');
    assert.deepEqual([entry!.state, entry!.device], ['active', 'm3/data']);
  });
});
