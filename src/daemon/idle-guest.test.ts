/** A guest that asks nothing of one of its disks moves, and moves on at once, between real daemons. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../../test/support/wait.ts';

/** Generous: they end a test that hangs and say nothing about speed. */
const WAIT_MS_MAX = 60_000;
const TEST = { timeout: 180_000 };
const BYTES = new Uint8Array(4096).fill(7);

let cluster: Cluster;
let device: ClusterHost;
let source: ClusterHost;
let second: ClusterHost;
const guests = new Map<string, VhostUserFrontend>();

beforeEach(async () => {
  cluster = await Cluster.make('m1', 'm2', 'm3');
  [device, source, second] = ['m1', 'm2', 'm3'].map((name) => cluster.host(name));
  for (const host of [device, source, second]) await host.start();
  for (const name of ['data', 'log']) {
    await device.client.export({ name, disk: device.image(`${name}.img`, 1024 * 1024), allow: ['m1', 'm2', 'm3'] });
    const { socket } = await source.client.attach({ device: `m1/${name}`, vm: 'web' });
    const guest = await VhostUserFrontend.connect(socket);
    guests.set(name, guest);
    await guest.write(0, BYTES);
    await guest.flush();
  }
});
afterEach(async () => {
  for (const guest of guests.values()) guest.close();
  await cluster.close();
});

async function move(from: ClusterHost, to: ClusterHost): Promise<void> {
  const { attachments } = await to.client.prepare('web', { from: from.name });
  assert.deepEqual(attachments.map(({ name }) => name).sort(), ['data', 'log'], 'all of the VM or nothing');
  for (const guest of guests.values()) await guest.stopRing(0);
  for (const { name, socket } of attachments) await guests.get(name)!.moveTo(socket);
  await waitForWithin(
    `the VM on host ${to.name}`,
    async () => (await to.client.status()).attachments.every(({ state }) => state === 'active'),
    WAIT_MS_MAX,
  );
}

const rowOf = async (wanted: string) => (await device.client.busAttachments()).attachments.find(({ name }) => name === wanted)!;

test('both of its disks go on to a third host, and nothing stays where it was', TEST, async () => {
  await move(source, second);
  await guests.get('log')!.write(0, BYTES);
  assert.equal((await rowOf('data')).previous, 'm2');
  await move(second, device);
  assert.equal((await rowOf('data')).previous, 'm3');
  for (const guest of guests.values()) assert.deepEqual(await guest.read(0, BYTES.length), BYTES);
  await waitForWithin(
    'nothing is left at the other hosts',
    async () => {
      const left = await Promise.all([source, second].map(({ client }) => client.status()));
      return left.every(({ attachments }) => attachments.length === 0);
    },
    WAIT_MS_MAX,
  );
  assert.deepEqual([(await rowOf('data')).previous, (await rowOf('data')).standby], [undefined, undefined]);
});
