/** Exports of NBD servers, with real daemons and a real nbdkit that is killed and forgets. */
import assert from 'node:assert/strict';
import { copyFileSync, truncateSync } from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { Cleanup } from '../../test/support/cleanup.ts';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { type RunningNbdServer, startNbdkit } from '../../test/support/nbd-server.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor } from '../../test/support/wait.ts';

const IMAGE_BYTES = 8 * 1024 * 1024;
const pattern = (seed: number) => Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + seed) & 0xff);

let cleanup: Cleanup;
let cluster: Cluster;
let m1: ClusterHost;
let m2: ClusterHost;
let image: string;
let server: RunningNbdServer;
let vm: VhostUserFrontend | undefined;

beforeEach(async () => {
  cleanup = new Cleanup();
  cluster = await Cluster.make('m1', 'm2');
  m1 = cluster.host('m1');
  m2 = cluster.host('m2');
  await Promise.all([m1.start('boot of m1'), m2.start('boot of m2')]);
  image = m1.image('data.img', IMAGE_BYTES);
  server = await serve();
  await m1.client.export({ name: 'data', nbd: server.uri, allow: ['m1', 'm2'] });
});
afterEach(async () => {
  vm?.close();
  await cluster.close();
  await cleanup.run();
});

function serve(): Promise<RunningNbdServer> {
  return startNbdkit({ cleanup, folder: m1.folder }, '--filter=limit', 'file', image, 'limit=1');
}

const exported = async () => (await m1.client.status()).exports[0];

/** The server's host loses its power: what was not flushed is gone. Comes back after `meanwhile`. */
async function powerLoss(meanwhile: () => Promise<void> = async () => {}): Promise<void> {
  server.process.signal('SIGKILL');
  await server.process.exited;
  copyFileSync(`${image}.flushed`, image);
  await waitFor('the export to wait', async () => (await exported()).state === 'waiting');
  await meanwhile();
  server = await serve();
}

for (const host of ['m1', 'm2']) {
  test(`a server that forgot gets again what was not flushed, from a guest on ${host}`, { timeout: 120_000 }, async () => {
    const vmHost = cluster.host(host);
    const { socket } = await vmHost.client.attach({ device: 'm1/data', vm: 'web' });
    vm = await VhostUserFrontend.connect(socket, { reconnects: true });
    await vm.write(0, pattern(1));
    await vm.flush();
    copyFileSync(image, `${image}.flushed`);
    await vm.write(8, pattern(2));
    await vm.write(0, pattern(3));
    await powerLoss(async () => {
      assert.match((await exported()).reason ?? '', /cannot be reached/);
    });
    assert.deepEqual(await vm.read(8, 4096), pattern(2));
    assert.deepEqual(await vm.read(0, 4096), pattern(3));
    const { events } = await vmHost.client.events({ type: 'write-log' });
    assert.deepEqual(
      events.map(({ type, details }) => [type, details.bytes]),
      [['write-log.sent', 8192]],
    );
    // It waits twice where the reason changes: the socket is there, and then it is not.
    const told = (await m1.client.events({ type: 'export' })).events.map(({ type }) => type);
    const once = told.filter(
      (type, i) => type !== told[i - 1] && ['export.reopened', 'export.waiting', 'export.ready'].includes(type),
    );
    assert.deepEqual(once, ['export.ready', 'export.reopened', 'export.waiting', 'export.ready']);
  });
}

test('a daemon that is started again is another instance, and sends again what its own guest had not flushed', {
  timeout: 120_000,
}, async () => {
  const { socket } = await m1.client.attach({ device: 'm1/data', vm: 'web' });
  vm = await VhostUserFrontend.connect(socket, { reconnects: true });
  await vm.flush();
  copyFileSync(image, `${image}.flushed`);
  await vm.write(8, pattern(2));
  await m1.stop();
  server.process.signal('SIGKILL');
  await server.process.exited;
  copyFileSync(`${image}.flushed`, image);
  await m1.start('boot of m1');
  server = await serve();
  await vm.reconnect();
  assert.deepEqual(await vm.read(8, 4096), pattern(2));
});

test('a size that grew is seen when the server was connected to anew', { timeout: 120_000 }, async () => {
  await m2.client.attach({ device: 'm1/data', vm: 'web' });
  truncateSync(image, 2 * IMAGE_BYTES);
  assert.equal((await m2.client.grow('web', 'data')).grown, false);
  copyFileSync(image, `${image}.flushed`);
  await powerLoss();
  await waitFor('the export to be ready', async () => (await exported()).state === 'ready');
  assert.deepEqual(await m2.client.grow('web', 'data'), { grown: true, capacityBytes: 2 * IMAGE_BYTES });
});
