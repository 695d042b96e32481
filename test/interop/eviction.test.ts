/** What eviction means to the guests of the host that is put out, with real daemons: errors, and nothing of theirs is sent ever again. */
import assert from 'node:assert/strict';
import { renameSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { AttachmentEntry, EvictResult } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import { GrowingCluster } from '../support/growing-cluster.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../support/wait.ts';

const MIB = 1024 * 1024;
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = 60_000;
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);
const cleanup = new Cleanup();
const old = new Uint8Array(4096).fill(1);
const kept = new Uint8Array(4096).fill(2);
let cluster: GrowingCluster;

before(async () => {
  cluster = await GrowingCluster.make(['m1', 'm2', 'm3', 'm4'], cleanup);
  await cluster.init('m1', 'lab');
  await cluster.start('m1');
  for (const name of ['m2', 'm3', 'm4']) await letIn(name);
  for (const name of ['data', 'late', 'own']) {
    const host = name === 'own' ? 'm3' : 'm2';
    const disk = join(cluster.host(host).folder, `${name}.img`);
    writeFileSync(disk, '');
    truncateSync(disk, MIB);
    await cluster.ask(host, 'export', name, '--disk', disk, '--allow', 'm1,m3,m4');
  }
});
after(() => cleanup.run());

async function letIn(name: string): Promise<void> {
  await cluster.invite('m1', name);
  const { status, stderr } = await cluster.join(name, cluster.token);
  assert.equal(status, 0, stderr);
  await cluster.start(name);
}

/** Attaches as soon as the hosts know of each other. */
async function attach(host: string, device: string, vm: string): Promise<string> {
  const { socket } = await waitFor(`${host} attaches ${device}`, () =>
    cluster.ask<AttachmentEntry>(host, 'attach', device, '--vm', vm).catch(() => undefined),
  );
  return cluster.host(host).path(socket);
}

async function attachment(host: string, wanted: string): Promise<AttachmentEntry> {
  const { attachments } = await cluster.client(host).status();
  return attachments.find(({ vm, name }) => `${vm}/${name}` === wanted)!;
}

const ioError = { name: 'BlockError', status: 1 };

test('what is kept when a host is evicted fails, is never sent, and so is all that comes, until it is detached', async () => {
  const guest = await VhostUserFrontend.connect(await attach('m3', 'm2/data', 'web'), { reconnects: true });
  await guest.write(0, old);
  await guest.flush();
  const local = await VhostUserFrontend.connect(await attach('m3', 'm3/own', 'web'), { reconnects: true });
  await local.write(0, old);
  await cluster.stop('m2');
  const unanswered = guest.write(0, kept);
  unanswered.catch(() => undefined);
  await waitFor('the write is kept', async () => (await attachment('m3', 'web/data')).inFlight === 1);
  const result = await cluster.ask<EvictResult>('m1', 'evict', 'm3', '--yes');
  assert.deepEqual(result.untold.includes('m2'), true);
  await assert.rejects(unanswered, ioError);
  await assert.rejects(guest.read(0, 4096), ioError);
  const { state, reason } = await attachment('m3', 'web/data');
  assert.equal(state, 'failed');
  assert.match(reason ?? '', /this host was evicted from cluster lab on [\d-]+: detach the device/);
  assert.deepEqual(await local.read(0, 4096), old, 'a device of the host itself');

  await cluster.start('m2');
  await cluster.stop('m3');
  await cluster.start('m3');
  await guest.reconnect();
  await local.reconnect();
  await assert.rejects(guest.read(0, 4096), ioError, 'after a restart');
  assert.deepEqual(await local.read(0, 4096), old);

  await cluster.stop('m3');
  const { folder, stateDir } = cluster.host('m3');
  renameSync(join(folder, 'netbus.yaml'), join(folder, 'earlier.yaml'));
  renameSync(join(folder, 'pki'), join(folder, 'earlier-pki'));
  renameSync(join(stateDir, 'directory'), join(stateDir, 'earlier-directory'));
  await letIn('m3');
  await guest.reconnect();
  await assert.rejects(guest.read(0, 4096), ioError, 'in the cluster again');
  assert.equal((await attachment('m3', 'web/data')).state, 'failed');
  guest.close();
  local.close();
  await waitFor('the guest has gone', async () => !(await attachment('m3', 'web/data')).connected);
  await waitFor('it is detached', async () => (await cluster.netbus('m3', 'detach', 'web/data')).status === 0);
  const again = await VhostUserFrontend.connect(await attach('m3', 'm2/data', 'web'));
  assert.deepEqual(await again.read(0, 4096), old, 'what was kept was not written');
  again.close();
});

test('a host that was away when it was evicted hears it from the host of the device', async () => {
  const path = await attach('m4', 'm2/late', 'web');
  await cluster.stop('m4');
  await cluster.ask('m1', 'evict', 'm4', '--yes');
  await waitFor('m2 knows', async () => {
    const { members } = await cluster.client('m2').members();
    return members.some(({ host, state }) => host === 'm4' && state === 'evicted');
  });
  await cluster.start('m4');
  const guest = await VhostUserFrontend.connect(path);
  await assert.rejects(guest.read(0, 4096), ioError);
  const { state, reason } = await attachment('m4', 'web/late');
  assert.equal(state, 'failed');
  assert.match(reason ?? '', /m2 refuses this host: host m4 was evicted on/);
  guest.close();
  // It holds without anybody to ask.
  await cluster.stop('m4');
  await cluster.stop('m2');
  await cluster.start('m4');
  assert.equal((await attachment('m4', 'web/late')).state, 'failed');
});
