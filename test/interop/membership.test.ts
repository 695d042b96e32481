/** A cluster that grows and shrinks, with real daemons: init, invite, join, evict, as people type them. */
import assert from 'node:assert/strict';
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { AttachmentEntry, EvictResult, Invitation, Members, Status } from '../../src/api/types.ts';
import { LIST_FILE } from '../../src/directory/signed-directory.ts';
import { decodeToken, encodeToken } from '../../src/directory/token.ts';
import { Cleanup } from '../support/cleanup.ts';
import { GrowingCluster } from '../support/growing-cluster.ts';
import type { RunResult } from '../support/process.ts';
import { assertFails as assertProgramFails } from '../support/program.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../support/wait.ts';

const MIB = 1024 * 1024;
/** Generous: it ends a test that hangs and says nothing about speed. */
const WAIT_MS_MAX = 60_000;
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);
const cleanup = new Cleanup();
let cluster: GrowingCluster;

before(async () => {
  cluster = await GrowingCluster.make(['m1', 'm2', 'm3', 'm4'], cleanup);
});
after(() => cleanup.run());

/** `join` says before what it does. */
function assertFails(result: RunResult, expected: number, message: RegExp): void {
  const [last] = /[^\n]+\n$/.exec(result.stderr) ?? [''];
  assertProgramFails({ ...result, stderr: last }, expected, message);
}

const namesOf = ({ members }: Members) => members.filter(({ state }) => state === 'member').map(({ host }) => host);
const knows = (host: string, names: string[]) =>
  waitFor(
    `${host} knows ${names.join(', ')}`,
    async () => JSON.stringify(namesOf(await cluster.client(host).members())) === JSON.stringify(names),
  );

test('init, invite, join: a third host learns of the second by itself', async () => {
  await cluster.init('m1', 'lab');
  await cluster.start('m1');
  await cluster.invite('m1', 'm2');
  const joined = await cluster.join('m2', cluster.token);
  assert.equal(joined.status, 0, joined.stderr);
  assert.match(joined.stdout, /^host m2 is a member of cluster lab, at 127\.[\d.]+:\d+, with m1$/m);
  assert.match(joined.stderr, /^asking .* to let this host into cluster lab as m2$/m);
  const { folder, stateDir } = cluster.host('m2');
  assert.equal(statSync(join(folder, 'pki/host.key')).mode & 0o777, 0o600);
  assert.equal(statSync(join(folder, 'pki')).mode & 0o777, 0o700);
  assert.ok(existsSync(join(stateDir, 'directory', LIST_FILE)));
  await cluster.start('m2');
  await knows('m2', ['m1', 'm2']);

  await cluster.invite('m1', 'm3');
  assert.equal((await cluster.join('m3', cluster.token)).status, 0);
  await knows('m2', ['m1', 'm2', 'm3']);
  await cluster.start('m3');
  const up = (members: Members) => members.members.filter(({ link, version }) => link === 'up' && version !== undefined);
  await waitFor('m3 has links to both', async () => up(await cluster.client('m3').members()).length === 2);
  await waitFor('m2 has links to both', async () => up(await cluster.client('m2').members()).length === 2);
  const text = await cluster.netbus('m2', 'members');
  assert.match(text.stdout, /^cluster lab: member list 3, issued by m1$/m);
  assert.match(text.stdout, /^m1 +\S+ +issuer +\d+\.\d+\.\d+ +now +up *$/m);
});

test('a token is used once, and by the host that it was made for', async () => {
  assertFails(await cluster.join('m4', cluster.token), 6, /it was used already/);
  const { token } = await cluster.invite('m1', 'm4');
  const parts = decodeToken(token);
  assertFails(await cluster.join('m4', token.slice(0, -9)), 2, /cut short or mistyped/);
  assertFails(await cluster.join('m4', 'netbus'), 2, /this is not a token/);
  const forged = encodeToken({ ...parts, secret: new Uint8Array(32) });
  assertFails(await cluster.join('m4', forged), 6, /the invitation is refused: it is not known here/);
  const otherCluster = encodeToken({ ...parts, caFingerprint: new Uint8Array(32) });
  assertFails(await cluster.join('m4', otherCluster), 6, /its CA is not the one of the token/);
  const renamed = encodeToken({ ...parts, host: 'm9' });
  assertFails(await cluster.join('m4', renamed), 6, /it is for another host than "m9"/);
  const nowhere = encodeToken({ ...parts, address: cluster.address('m4') });
  assertFails(await cluster.join('m4', nowhere), 5, /refused the connection: is netbusd running there\?/);
  assert.equal(existsSync(join(cluster.host('m4').folder, 'pki')), false);
  assert.equal(existsSync(join(cluster.host('m4').folder, 'netbus.yaml')), false);
});

test('who is in already is neither invited nor joined again', async () => {
  assertFails(await cluster.netbus('m1', 'invite', 'm2'), 4, /m2/);
  assertFails(
    await cluster.netbus('m1', 'invite', 'm1'),
    4,
    /host m1 is this host itself, which invites: give the name of the host/,
  );
  assertFails(await cluster.netbus('m2', 'invite', 'm5'), 6, /host m2 is not the one that invites: do it on host m1/);
  assertFails(await cluster.join('m2', cluster.token), 4, /this host is in a cluster already/);
});

test('an evicted host loses its session at once, and what it had is free', async () => {
  const { folder } = cluster.host('m2');
  const disk = join(folder, 'data.img');
  writeFileSync(disk, '');
  truncateSync(disk, 8 * MIB);
  await cluster.ask('m2', 'export', 'data', '--disk', disk, '--allow', 'm1,m3');
  const attached = await cluster.ask<AttachmentEntry>('m3', 'attach', 'm2/data', '--vm', 'web');
  const guest = await VhostUserFrontend.connect(cluster.host('m3').path(attached.socket));
  await guest.write(0, new Uint8Array(4096).fill(7));
  await guest.flush();
  assertFails(await cluster.netbus('m1', 'attach', 'm2/data', '--vm', 'other'), 4, /is attached to m3:web\/data/);

  assertFails(await cluster.netbus('m1', 'evict', 'm3'), 2, /type "netbus evict m3 --yes"/);
  assertFails(await cluster.netbus('m1', 'evict', 'm9', '--yes'), 3, /m9/);
  assertFails(await cluster.netbus('m1', 'evict', 'm9'), 3, /host m9 is not a member of cluster lab/);
  assertFails(await cluster.netbus('m2', 'evict', 'm3'), 6, /host m2 is not the one that evicts: do it on host m1/);
  const result = await cluster.ask<EvictResult>('m1', 'evict', 'm3', '--yes');
  assert.deepEqual(result, { host: 'm3', told: ['m2'], untold: [] });
  await waitFor('m2 has freed it', async () => (await cluster.client('m2').status()).exports[0].attachments.length === 0);
  await waitFor('the session of m3 has ended, for good', async () => {
    const [entry] = (await cluster.client('m3').status()).attachments;
    return entry.state === 'failed' && entry.reason !== undefined;
  });
  const elsewhere = await cluster.ask<AttachmentEntry>('m1', 'attach', 'm2/data', '--vm', 'other');
  const other = await VhostUserFrontend.connect(cluster.host('m1').path(elsewhere.socket));
  assert.deepEqual(await other.read(0, 4096), new Uint8Array(4096).fill(7));
  other.close();
  guest.close();
  await knows('m2', ['m1', 'm2']);
  const { warnings } = await cluster.ask<Status>('m3', 'status');
  assert.match(warnings.join('\n'), /this host was evicted from cluster lab/);
});

test('an evicted host that comes back is refused, and both sides say why', async () => {
  await cluster.stop('m3');
  await cluster.start('m3');
  assertFails(
    await cluster.netbus('m3', 'attach', 'm2/data', '--vm', 'again'),
    6,
    /m2 refuses this host: host m3 was evicted on/,
  );
  await waitFor('m2 says so, too', () => /host m3 was evicted on/.test(cluster.log('m2')));
  assertFails(await cluster.netbus('m3', 'invite', 'm5'), 6, /do it on host m1/);
});

test('a host that was away learns of an eviction when it is back, and ends what is left', async () => {
  await cluster.invite('m1', 'm4');
  assert.equal((await cluster.join('m4', cluster.token)).status, 0);
  await cluster.start('m4');
  await knows('m2', ['m1', 'm2', 'm4']);
  const disk = join(cluster.host('m2').folder, 'late.img');
  writeFileSync(disk, '');
  truncateSync(disk, 8 * MIB);
  await cluster.ask('m2', 'export', 'late', '--disk', disk, '--allow', 'm4');
  await waitFor('m4 reaches m2', async () => (await cluster.netbus('m4', 'attach', 'm2/late', '--vm', 'web')).status === 0);
  await cluster.stop('m2');
  const result = await cluster.ask<EvictResult>('m1', 'evict', 'm4', '--yes');
  assert.deepEqual([result.told, result.untold], [[], ['m2']]);
  await cluster.start('m2');
  await knows('m2', ['m1', 'm2']);
  await waitFor('its attachment is gone', async () => {
    const late = (await cluster.client('m2').status()).exports.find(({ name }) => name === 'late');
    return late?.attachments.length === 0;
  });
});

test('two daemons on one state folder; a join while the daemon runs', async () => {
  const second = await cluster.tryDaemon('m2');
  assert.equal(second.status, 4);
  assert.match(second.stderr, /state folder .* is in use by another daemon/);
});

test('SIGHUP takes the certificate anew, and ends nothing', async () => {
  cluster.daemon('m1').signal('SIGHUP');
  await waitFor('it was taken', () => /certificate and key were taken anew from their files/.test(cluster.log('m1')));
  assert.equal(cluster.daemon('m1').ended, false);
  writeFileSync(join(cluster.host('m2').folder, 'pki/host.crt'), 'nonsense');
  cluster.daemon('m2').signal('SIGHUP');
  await waitFor('it was refused', () => /were not taken anew/.test(cluster.log('m2')));
  assert.equal((await cluster.netbus('m2', 'status')).status, 0);
});

test('the token is on stdout alone, and all of it in JSON', async () => {
  const text = await cluster.netbus('m1', 'invite', 'm6');
  assert.match(text.stdout, /^netbus-[\w-]+\n$/);
  assert.match(text.stderr, /^ {2}netbus join netbus-/m);
  const invitation = await cluster.ask<Invitation>('m1', 'invite', 'm6', '--address', '192.0.2.9:9999');
  assert.equal(decodeToken(invitation.token).address, '192.0.2.9:9999');
  assert.equal(invitation.command, `netbus join ${invitation.token}`);
});
