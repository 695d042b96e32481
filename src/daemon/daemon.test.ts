import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { native } from '../../native/index.ts';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../test/support/vhost-user/handshake.ts';
import { waitFor } from '../../test/support/wait.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { featureBits, ProtocolFeature } from '../protocols/vhost-user/numbers.ts';
import { loadConfig } from './config.ts';
import { startDaemon } from './daemon.ts';

const IMAGE_BYTES = 8 * 1024 * 1024;
const pattern = (seed: number) => Uint8Array.from({ length: 4096 }, (_, i) => (i * 7 + seed) & 0xff);

describe('two daemons', () => {
  let cluster: Cluster;
  let m1: ClusterHost;
  let m2: ClusterHost;
  let image: string;

  beforeEach(async () => {
    cluster = await Cluster.make('m1', 'm2', 'm3');
    m1 = cluster.host('m1');
    m2 = cluster.host('m2');
    await m1.start();
    await m2.start();
    image = m1.image('data.img', IMAGE_BYTES);
    await m1.client.export({ name: 'data', disk: image, allow: ['m1', 'm2'] });
  });
  afterEach(() => cluster.close());

  test('a disk of one is used on the other', { timeout: 180_000 }, async () => {
    const entry = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    assert.equal(entry.capacityBytes, IMAGE_BYTES);
    assert.equal(entry.local, false);
    const vm = await VhostUserFrontend.connect(entry.socket);
    await vm.write(8, pattern(1));
    await vm.flush();
    assert.deepEqual(await vm.read(8, 4096), pattern(1));
    assert.equal(await vm.getId(), 'data');
    const status = await m2.client.status();
    assert.deepEqual(
      status.attachments.map(({ state, connected, epoch }) => [state, connected, epoch]),
      [['active', true, 1]],
    );
    assert.deepEqual(
      status.links.map(({ host, state }) => [host, state]),
      [
        ['m1', 'up'],
        ['m3', 'idle'],
      ],
    );
    const exported = (await m1.client.status()).exports[0];
    const [{ since, ...user }] = exported.attachments;
    assert.ok(since !== undefined);
    assert.deepEqual(user, { host: 'm2', vm: 'web', name: 'data', epoch: 1, active: true, state: 'active' });
    assert.match(await get(m2, '/metrics'), /netbus_block_requests_total\{attachment="web\/data",op="write"\} 1/);
    assert.match(
      await get(m2, '/metrics'),
      /netbus_block_request_duration_seconds_count\{attachment="web\/data",op="read"\} 1/,
    );
    await assert.rejects(m2.client.detach('web', 'data'), { code: 'in_use' });
    await vm.stopRing(0);
    vm.close();
    await disconnected(m2);
    await m2.client.detach('web', 'data');
    await m1.client.unexport('data');
    assert.deepEqual([...readFileSync(image).subarray(4096, 8192)], [...pattern(1)]);
  });

  test('a local attachment needs no network and passes the same gate', { timeout: 180_000 }, async () => {
    await m2.stop();
    const entry = await m1.client.attach({ device: 'm1/data', vm: 'web' });
    assert.equal(entry.local, true);
    const vm = await VhostUserFrontend.connect(entry.socket, { queues: 2 });
    await vm.write(0, pattern(2));
    assert.deepEqual(await vm.read(0, 4096), pattern(2));
    vm.close();
    assert.equal((await m1.client.status()).exports[0].attachments[0].epoch, 1);
  });

  test('what is wrong gets its code', { timeout: 180_000 }, async () => {
    await assert.rejects(m2.client.attach({ device: 'm1/none', vm: 'web' }), { code: 'not_found' });
    await assert.rejects(m2.client.attach({ device: 'm9/data', vm: 'web' }), { code: 'not_found' });
    await assert.rejects(m2.client.attach({ device: 'm3/data', vm: 'web' }), { code: 'unreachable' });
    await assert.rejects(m2.client.attach({ device: 'm1/data', vm: 'we b' }), { code: 'usage', message: /^vm: a name has/ });
    await cluster.host('m3').start();
    await assert.rejects(cluster.host('m3').client.attach({ device: 'm1/data', vm: 'web' }), { code: 'denied' });
    await m2.client.attach({ device: 'm1/data', vm: 'web' });
    await assert.rejects(m1.client.attach({ device: 'm1/data', vm: 'db' }), { code: 'in_use', message: /m2:web\/data/ });
    await assert.rejects(m1.client.unexport('data'), { code: 'in_use' });
    await assert.rejects(m1.client.export({ name: 'again', disk: image }), { code: 'in_use' });
    await assert.rejects(m1.client.export({ name: 'none', disk: '/none' }), { code: 'not_found' });
    const { devices, warnings } = await m2.client.devices();
    assert.deepEqual(
      devices.map(({ host, name, usedBy }) => [host, name, usedBy]),
      [['m1', 'data', ['m2:web/data']]],
    );
    assert.deepEqual(warnings, []);
    assert.deepEqual((await cluster.host('m3').client.devices()).devices, []);
  });

  test('the guest’s requests wait while the device’s host restarts', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket);
    await vm.write(0, pattern(3));
    await m1.stop();
    const late = vm.read(0, 4096);
    await waitFor('the loss to be noticed', async () => (await m2.client.status()).attachments[0].state === 'connecting');
    assert.match((await m2.client.devices()).warnings.join(), /m1/);
    await m1.start();
    assert.deepEqual(await late, pattern(3));
    assert.equal((await m2.client.status()).attachments[0].epoch, 2);
    vm.close();
  });

  test('the VM’s host restarts, with the device’s host away, and its guest goes on', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket, { reconnects: true });
    await vm.write(0, pattern(4));
    await m1.stop();
    // Unanswered when this daemon ends, and asked again by the next one.
    const late = [vm.read(0, 4096), vm.write(8, pattern(5)), vm.read(0, 4096)];
    await waitFor('the requests', async () => (await m2.client.status()).attachments[0].inFlight === 3);
    await m2.stop();
    assert.equal(existsSync(socket), false);
    await m2.start();
    await vm.reconnect();
    await m1.start();
    assert.deepEqual(await late[0], pattern(4));
    await Promise.all(late);
    assert.deepEqual(await vm.read(8, 4096), pattern(5));
    vm.close();
  });

  for (const tracked of [true, false]) {
    const what = tracked ? 'goes on where its VMM keeps an in-flight region' : 'is not served until its driver starts anew';
    test(`a guest whose daemon died in the middle ${what}`, { timeout: 180_000 }, async () => {
      const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
      const vm = await VhostUserFrontend.connect(socket, {
        reconnects: true,
        ...(!tracked && { protocolFeatures: FRONTEND_PROTOCOL_FEATURES & ~featureBits(ProtocolFeature.inflightShmfd) }),
      });
      await vm.write(0, pattern(6));
      const record = join(m2.folder, 'state', 'virtual-devices', 'web~data.json');
      const atItsDeath = readFileSync(record);
      const restart = async () => {
        await m2.stop();
        writeFileSync(record, atItsDeath);
        await m2.start();
      };
      await restart();
      await vm.reconnect();
      // Nothing is unanswered, so it goes on.
      await waitFor('the ring', async () => (await m2.client.status()).attachments[0].state === 'active');
      assert.deepEqual(await vm.read(0, 4096), pattern(6));
      await restart();
      const late = vm.read(0, 4096).catch((error: Error) => error);
      await vm.reconnect();
      if (!tracked) {
        await waitFor('the refusal', () =>
          m2.lines.some(({ message }) => /ring 0 cannot start: requests of this guest/.test(message)),
        );
        await vm.restart();
        assert.ok((await late) instanceof Error);
      }
      assert.deepEqual(await vm.read(0, 4096), pattern(6));
      if (tracked) assert.deepEqual(await late, pattern(6));
      vm.close();
    });
  }

  test('growing reaches the guest', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket);
    assert.deepEqual(await m2.client.grow('web', 'data'), { grown: false, capacityBytes: IMAGE_BYTES });
    truncateSync(image, 2 * IMAGE_BYTES);
    const told = new Promise<void>((resolve) => vm.events.once('configChange', () => resolve()));
    assert.deepEqual(await m2.client.grow('web', 'data'), { grown: true, capacityBytes: 2 * IMAGE_BYTES });
    await told;
    assert.equal((await vm.config()).capacitySectors, (2 * IMAGE_BYTES) / 512);
    const sector = IMAGE_BYTES / 512;
    await vm.write(sector, pattern(5));
    assert.deepEqual(await vm.read(sector, 4096), pattern(5));
    vm.close();
  });

  test('a forced detach takes the device from a running guest', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket);
    const gone = new Promise((resolve) => vm.events.once('closed', resolve));
    await m2.client.detach('web', 'data', { force: true });
    await gone;
    vm.close();
    assert.deepEqual((await m1.client.status()).exports[0].attachments, []);
    await m1.client.attach({ device: 'm1/data', vm: 'db' });
  });

  test('a missing image and one that is in use are told, and come back', { timeout: 180_000 }, async () => {
    await m2.client.attach({ device: 'm1/data', vm: 'web' });
    await m1.stop();
    rmSync(image);
    await m1.start();
    const entry = async () => (await m1.client.status()).exports[0];
    await waitFor('the failure', async () => (await entry()).state === 'failed');
    assert.match((await entry()).reason!, /data\.img/);
    assert.equal(await get(m1, '/readyz'), 'ready\n');
    m1.image('data.img', IMAGE_BYTES);
    await waitFor('the export', async () => (await entry()).state === 'ready');
  });

  test('two daemons on one folder are refused, and the first goes on', { timeout: 180_000 }, async () => {
    const second = new (m1.constructor as typeof ClusterHost)('m1', m1.folder);
    await assert.rejects(second.start(), {
      code: 'in_use',
      message: /state folder .* in use by another daemon \(process \d+\)/,
    });
    assert.equal((await m1.client.status()).host, 'm1');
    // The run folder alone is in use: nothing is left in a state folder that is nobody's yet, whether it is there or not.
    const [absent, empty] = [join(m1.folder, 'new/state'), join(m1.folder, 'empty')];
    mkdirSync(empty);
    for (const stateDir of [absent, empty]) {
      const config = { ...loadConfig(m1.config), stateDir };
      const starting = startDaemon({ config, log: silentLog, clock: systemClock, release: '0.0.0' });
      await assert.rejects(starting, { code: 'in_use', message: /run folder .* in use by another daemon/ });
    }
    assert.deepEqual([existsSync(join(m1.folder, 'new')), readdirSync(empty)], [false, []]);
  });

  test('everything closed leaves nothing', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket);
    await vm.write(0, pattern(6));
    vm.close();
    await m2.stop();
    await m1.stop();
    const before = openFiles();
    const regions = native.regionCount();
    for (let i = 0; i < 2; i++) {
      await m1.start();
      await m2.start();
      await m2.stop();
      await m1.stop();
    }
    assert.deepEqual(without(openFiles(), before), []);
    assert.equal(native.regionCount(), regions);
    // What the VM had not flushed, and what was in flight, stays for the next daemon, until the attachment goes.
    assert.deepEqual(readdirSync(join(m2.folder, 'run')).sort(), ['lock', 'web']);
    assert.deepEqual(readdirSync(join(m2.folder, 'run', 'web')).sort(), ['data.inflight', 'data.log']);
  });
});

/** What the descriptors of this process name, without numbers that differ each time. */
function openFiles(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, 'N')];
      } catch {
        // The one that this very look had open.
        return [];
      }
    })
    .sort();
}

/** What is there more often than before. */
function without(present: readonly string[], before: readonly string[]): string[] {
  const left = [...before];
  return present.filter((name) => {
    const at = left.indexOf(name);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}

function disconnected(host: ClusterHost): Promise<true> {
  return waitFor(
    'the VMM to be gone',
    async () => !(await host.client.status()).attachments[0].connected || undefined,
  ) as Promise<true>;
}

function get(host: ClusterHost, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath: join(host.folder, 'run', 'netbus.sock'), path }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
}
