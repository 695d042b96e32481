/** What two daemons say of an outage, from both sides: events, waits, sessions, rates, and the list of devices. */
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Cluster, type ClusterHost } from '../../test/support/daemon/cluster.ts';
import { VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor } from '../../test/support/wait.ts';

const IMAGE_BYTES = 8 * 1024 * 1024;

describe('an outage as both hosts tell it', () => {
  let cluster: Cluster;
  let m1: ClusterHost;
  let m2: ClusterHost;

  beforeEach(async () => {
    cluster = await Cluster.make('m1', 'm2');
    m1 = cluster.host('m1');
    m2 = cluster.host('m2');
    await m1.start();
    await m2.start();
    await m1.client.export({ name: 'data', disk: m1.image('data.img', IMAGE_BYTES), allow: ['m2'] });
  });
  afterEach(() => cluster.close());

  const types = async (host: ClusterHost) => (await host.client.events()).events.map(({ type }) => type);
  const waitForType = (host: ClusterHost, type: string) =>
    waitFor(`${type} on ${host.name}`, async () => (await types(host)).includes(type));

  test('the device’s host goes and comes back', { timeout: 180_000 }, async () => {
    const { socket } = await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const vm = await VhostUserFrontend.connect(socket);
    await vm.write(0, new Uint8Array(4096));
    const status = await m2.client.status();
    assert.deepEqual(status.waits, []);
    assert.deepEqual(
      status.sessions.map(({ role, peer, device, attachment, state, epoch }) => [role, peer, device, attachment, state, epoch]),
      [['vm', 'm1', 'm1/data', 'web/data', 'active', 1]],
    );
    await waitFor('a round trip', async () => (await m2.client.status()).links[0].rttMs !== undefined);
    const there = await m1.client.status();
    assert.deepEqual(
      there.sessions.map(({ role, peer, device, attachment, state, epoch }) => [role, peer, device, attachment, state, epoch]),
      [['device', 'm2', 'm1/data', 'web/data', 'active', 1]],
    );
    const { devices } = await m2.client.devices({ details: true });
    const { users, ...details } = devices[0].details!;
    assert.deepEqual([details.path, details.kind, details.blockBytes, details.allow], [undefined, 'file', 512, ['m2']]);
    assert.deepEqual(
      users.map(({ host, vm: name, active }) => [host, name, active]),
      [['m2', 'web', true]],
    );
    assert.equal((await m1.client.devices({ details: true })).devices[0].details!.path, join(m1.folder, 'data.img'));

    await m1.stop();
    const late = vm.read(0, 4096);
    await waitForType(m2, 'session.lost');
    await waitForType(m2, 'link.down');
    const waits = (await m2.client.status()).waits.map(({ subject, waitsFor }) => `${subject} waits for ${waitsFor}`);
    assert.ok(waits.includes('web/data waits for m1'), waits.join());
    const { devices: none, away } = await m2.client.devices();
    assert.deepEqual(none, []);
    assert.equal(away[0].host, 'm1');
    assert.ok(Date.parse(away[0].lastSeen!) <= Date.now());

    await m1.start();
    await late;
    await waitForType(m2, 'session.reopened');
    assert.deepEqual((await m2.client.status()).sessions[0].epoch, 2);
    vm.close();
    await waitForType(m2, 'vmm.disconnected');
    await m2.client.detach('web', 'data');
    await m1.client.unexport('data');

    const own = (await m2.client.events({ type: 'session' })).events;
    const reopened = own.find(({ type }) => type === 'session.reopened')!;
    assert.match(reopened.message, /^its guest has the device \(epoch 2\), after .* without it$/);
    assert.ok(Number(reopened.details.waitedMs) > 0);
    const seen = await types(m2);
    const expected = [
      'attachment.added',
      'link.up',
      'vmm.connected',
      'session.opened',
      'session.lost',
      'session.reopened',
      'session.closed',
    ];
    for (const type of [...expected, 'attachment.removed']) assert.ok(seen.includes(type), type);
    const far = await types(m1);
    const others = [
      'export.added',
      'export.attached',
      'export.granted',
      'export.session-lost',
      'daemon.stopped',
      'export.ready',
    ];
    for (const type of [...others, 'export.returned', 'export.detached', 'export.removed']) assert.ok(far.includes(type), type);
  });

  test('a daemon that cannot start leaves the reason for the next one', { timeout: 180_000 }, async () => {
    await m2.stop();
    const certificate = join(m2.folder, 'host.crt');
    renameSync(certificate, `${certificate}.away`);
    await assert.rejects(m2.start());
    renameSync(`${certificate}.away`, certificate);
    await m2.start();
    const { events } = await m2.client.events({ type: 'daemon' });
    assert.deepEqual(
      events.slice(-3).map(({ type, severity }) => `${type} ${severity}`),
      ['daemon.started info', 'daemon.failed error', 'daemon.started info'],
    );
    assert.match(events.at(-2)!.message, /could not start: .*host\.crt/);
  });

  test('events that cannot be stored are said in the status, and nothing else suffers', { timeout: 180_000 }, async () => {
    await m2.stop();
    const file = join(m2.folder, 'state', 'events.ndjson');
    renameSync(file, `${file}.away`);
    symlinkSync('/dev/full', file);
    await m2.start();
    await m2.client.attach({ device: 'm1/data', vm: 'web' });
    await waitFor('the warning', async () => (await m2.client.status()).warnings.length > 0);
    assert.match((await m2.client.status()).warnings[0], /^events are not stored and end with this daemon: ENOSPC/);
    assert.ok((await types(m2)).includes('attachment.added'));
    await m2.client.detach('web', 'data');
  });

  test('a restart keeps what happened, a damaged end of the file too', { timeout: 180_000 }, async () => {
    await m2.client.attach({ device: 'm1/data', vm: 'web' });
    const before = (await m2.client.events()).events;
    await m2.stop();
    const file = join(m2.folder, 'state', 'events.ndjson');
    assert.match(readFileSync(file, 'utf8'), /"attachment.added"/);
    appendFileSync(file, '{"sequence":99,"id":');
    await m2.start();
    const { events } = await m2.client.events();
    assert.deepEqual(events.slice(0, before.length), before);
    assert.ok(events.slice(before.length).some(({ type }) => type === 'daemon.stopped'));
    assert.equal(events.filter(({ type }) => type === 'daemon.started').length, 2);
  });
});
