import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor } from '../../test/support/wait.ts';

const IMAGE_BYTES = 8 * 1024 * 1024;
const pattern = (seed: number) => Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + seed) & 0xff);

describe('the write log of a device of another host', () => {
  let cluster: Cluster;
  let m1: ClusterHost;
  let m2: ClusterHost;
  let image: string;
  let vm: VhostUserFrontend;

  beforeEach(async () => {
    cluster = await Cluster.make('m1', 'm2');
    m1 = cluster.host('m1');
    m2 = cluster.host('m2');
    await m1.start('first boot');
    await m2.start();
    image = m1.image('data.img', IMAGE_BYTES);
    await m1.client.export({ name: 'data', disk: image, allow: ['m2'] });
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    vm = await VhostUserFrontend.connect(socket, { reconnects: true });
    await vm.write(0, pattern(1));
    await vm.flush();
    copyFileSync(image, `${image}.flushed`);
  });
  afterEach(async () => {
    vm.close();
    await cluster.close();
  });

  const logPath = () => join(m2.folder, 'run', 'web', 'data.log');
  const entry = async () => (await m2.client.status()).attachments[0];

  /** The device's host loses its power: what was not flushed is gone. */
  async function reboot(): Promise<void> {
    await m1.stop();
    copyFileSync(`${image}.flushed`, image);
    await m1.start('second boot');
  }

  test('what the device’s host forgot is sent again, and the guest sees a pause', { timeout: 180_000 }, async () => {
    await vm.write(8, pattern(2));
    await vm.write(0, pattern(3));
    const { writeLog } = await entry();
    assert.deepEqual([writeLog?.state, writeLog?.usedBytes, writeLog?.boundBytes], ['logging', 8192, 256 * 1024 * 1024]);
    assert.ok(writeLog?.oldestUnflushed);
    assert.equal(statSync(logPath()).mode & 0o777, 0o600);
    await reboot();
    assert.deepEqual(await vm.read(8, 4096), pattern(2));
    assert.deepEqual(await vm.read(0, 4096), pattern(3));
    assert.deepEqual([...readFileSync(image).subarray(4096, 8192)], [...pattern(2)]);
    const { events } = await m2.client.events({ type: 'write-log' });
    assert.deepEqual(
      events.map(({ type, details }) => [type, details.bytes]),
      [['write-log.sent', 8192]],
    );
    assert.equal((await entry()).writeLog?.usedBytes, 0);
    vm.close();
    await waitFor('the VMM to be gone', async () => ((await entry()).connected ? undefined : true));
    await m2.client.detach('web', 'data');
    assert.equal(existsSync(logPath()), false);
    assert.equal(existsSync(join(m2.folder, 'run', 'web')), false);
  });

  test('also where the daemon of the VM’s host was away meanwhile', { timeout: 180_000 }, async () => {
    await vm.write(8, pattern(2));
    await m2.stop();
    await reboot();
    await m2.start();
    await vm.reconnect();
    assert.deepEqual(await vm.read(8, 4096), pattern(2));
  });

  test('a log that is gone: errors, and the next start of the VM goes on', { timeout: 180_000 }, async () => {
    await vm.write(8, pattern(2));
    await m2.stop();
    rmSync(logPath());
    await reboot();
    await m2.start();
    await vm.reconnect();
    await waitFor('the errors', async () => ((await entry()).state === 'failed' ? true : undefined));
    await assert.rejects(vm.read(8, 4096));
    const { reason } = await entry();
    assert.match(reason ?? '', /may be lost .*until the VM is started again/);
  });

  test('an export that is opened anew is another instance, and gets what was not flushed', { timeout: 180_000 }, async () => {
    await vm.write(8, pattern(2));
    // Somebody replaced what is in the image.
    copyFileSync(`${image}.flushed`, image);
    const { state } = await m1.client.reopen('data');
    assert.equal(state, 'ready');
    assert.deepEqual(await vm.read(8, 4096), pattern(2));
    assert.equal((await m2.client.events({ type: 'write-log' })).events.length, 1);
    assert.equal((await m1.client.events({ type: 'export.reopened' })).events.length, 1);
    await assert.rejects(m1.client.reopen('none'), { code: 'not_found' });
  });
});
