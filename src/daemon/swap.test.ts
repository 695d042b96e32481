/** Hot-swaps between the daemons of several hosts: the guest writes all the time, and is told of nothing. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { DiskWriter } from '../../test/support/daemon/disk-writer.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../../test/support/wait.ts';
import type { JobEntry } from '../api/jobs.ts';
import type { AttachmentEntry } from '../api/types.ts';

const BYTES = 8 * 1024 * 1024;
const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = Number(process.env.W ?? 60_000);
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);

describe(`a hot-swap (SEED=${SEED})`, () => {
  let cluster: Cluster;
  let [m1, m2, m3] = [] as ClusterHost[];
  let writer: DiskWriter | undefined;

  beforeEach(async () => {
    cluster = await Cluster.make('m1', 'm2', 'm3');
    [m1, m2, m3] = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
    for (const host of [m1, m2, m3]) {
      await host.start();
      await host.client.export({ name: 'data', disk: host.image('data.img', BYTES), allow: ['m1', 'm2', 'm3'] });
    }
  });
  afterEach(async () => {
    await writer?.stop();
    writer = undefined;
    await cluster.close();
  });

  const content = (host: ClusterHost) => readFileSync(join(host.folder, 'data.img'));
  const attachment = async (host: ClusterHost): Promise<AttachmentEntry> => (await host.client.status()).attachments[0];

  async function begin(host: ClusterHost, device: string): Promise<DiskWriter> {
    const { socket } = await host.client.attach({ device, vm: 'web', name: 'disk' });
    writer = new DiskWriter(await VhostUserFrontend.connect(socket, { reconnects: true }), { bytes: BYTES, seed: SEED });
    await writer.write(50);
    return writer;
  }

  async function done(host: ClusterHost, id: string): Promise<JobEntry> {
    let entry: JobEntry | undefined;
    const job = await waitFor(`job ${id} is over`, async () => {
      entry = await host.client.job(id);
      return entry.state !== 'running' && entry;
    }).catch((thrown: unknown) => assert.fail(`${thrown}: ${JSON.stringify(entry)}`));
    assert.equal(job.state, 'done', JSON.stringify(job));
    return job;
  }

  for (const [from, to] of [
    ['m1', 'm2'],
    ['m2', 'm1'],
    ['m1', 'm3'],
  ] as const) {
    test(`${from} → ${to} under a guest of m2`, { timeout: 120_000 }, async () => {
      const guest = await begin(m2, `${from}/data`);
      guest.run();
      const { id } = await m2.client.swap('web', 'disk', { to: `${to}/data` });
      const job = await done(m2, id);
      assert.ok(job.progress!.stallMs! >= 0);
      const entry = await attachment(m2);
      assert.deepEqual([entry.device, entry.state, entry.local], [`${to}/data`, 'active', to === 'm2']);
      await guest.write(50);
      await guest.stop();
      assert.deepEqual(content(cluster.host(to)), guest.model, 'what the guest was told is written is on the new disk');
      // The old one is stale, and nobody gets it by mistake.
      const old = cluster.host(from);
      await assert.rejects(m3.client.attach({ device: `${from}/data`, vm: 'other', name: 'disk' }), {
        code: 'in_use',
        message: /--force-stale/,
      });
      assert.notDeepEqual(content(old), guest.model);
    });
  }

  test('there and back again, and the daemon of the old disk may go', { timeout: 120_000 }, async () => {
    const guest = await begin(m2, 'm1/data');
    guest.run();
    await done(m2, (await m2.client.swap('web', 'disk', { to: 'm2/data' })).id);
    await m1.stop();
    await guest.write(20);
    await m1.start();
    await assert.rejects(m2.client.swap('web', 'disk', { to: 'm1/data' }), { message: /--overwrite/ });
    await done(m2, (await m2.client.swap('web', 'disk', { to: 'm1/data', overwrite: true })).id);
    await guest.write(20);
    await guest.stop();
    assert.deepEqual(content(m1), guest.model);
    await m2.client.detach('web', 'disk', { force: true });
    await m2.client.unexport('data');
  });

  test('cancelled: the guest stays where it is, and the next one begins anew', { timeout: 120_000 }, async () => {
    const guest = await begin(m2, 'm1/data');
    guest.run();
    const { id } = await m2.client.swap('web', 'disk', { to: 'm3/data', bytesPerSecondMax: 64 * 1024 });
    await assert.rejects(m2.client.swap('web', 'disk', { to: 'm2/data' }), { code: 'in_use' });
    await assert.rejects(m2.client.detach('web', 'disk', { force: true }), { code: 'in_use', message: /--cancel/ });
    await assert.rejects(m3.client.prepare('web', { from: 'm2' }), { message: /m3\/data/ });
    assert.equal((await m2.client.cancelJob(id)).state, 'cancelled');
    assert.equal((await attachment(m2)).device, 'm1/data');
    await guest.write(20);
    await done(m2, (await m2.client.swap('web', 'disk', { to: 'm3/data', overwrite: true })).id);
    await guest.stop();
    assert.deepEqual(content(m3), guest.model);
  });

  test('the VM’s daemon is started anew while it copies: the job goes on', { timeout: 120_000 }, async () => {
    const guest = await begin(m2, 'm1/data');
    const { id } = await m2.client.swap('web', 'disk', { to: 'm3/data', bytesPerSecondMax: 1024 * 1024 });
    await guest.write(50);
    await m2.stop();
    await m2.start();
    await guest.reconnect();
    await guest.write(50);
    await m2.client.changeJob(id, { bytesPerSecondMax: null });
    await done(m2, id);
    await guest.write(10);
    await guest.stop();
    assert.deepEqual(content(m3), guest.model);
  });

  test('the new disk’s daemon is started anew while it is filled', { timeout: 120_000 }, async () => {
    const guest = await begin(m2, 'm1/data');
    const { id } = await m2.client.swap('web', 'disk', { to: 'm3/data', bytesPerSecondMax: 1024 * 1024 });
    guest.run();
    await waitFor('some of it is copied', async () => (await m2.client.job(id)).progress!.doneBytes > 0);
    await m3.stop();
    await guest.settle();
    await m3.start();
    await m2.client.changeJob(id, { bytesPerSecondMax: null });
    await done(m2, id);
    await guest.stop();
    assert.deepEqual(content(m3), guest.model);
  });
});
