/** The member list and the certificates between real daemons: lost, forged, old; renewed and expired; and a host that moves. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { AddressResult, AttachmentEntry, Members, Status } from '../../src/api/types.ts';
import { Endpoint } from '../../src/bus/endpoint.ts';
import { Links } from '../../src/bus/links.ts';
import { issueForRequest } from '../../src/directory/identity-issue.ts';
import { createRequest } from '../../src/directory/identity-request.ts';
import type { MemberList } from '../../src/directory/member-list.ts';
import { COPY_FILE, LIST_FILE } from '../../src/directory/signed-directory.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { listText } from '../../src/protocols/netbus/member-messages.ts';
import { TestLog } from '../support/bus-host.ts';
import { Cleanup } from '../support/cleanup.ts';
import { GrowingCluster } from '../support/growing-cluster.ts';
import { freePort } from '../support/port.ts';
import { VhostUserFrontend } from '../support/vhost-user/frontend.ts';
import { waitFor as waitForWithin } from '../support/wait.ts';

const MIB = 1024 * 1024;
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** Generous: it ends a test that hangs and says nothing about speed. A renewal that fails is tried again after a minute, and then after two. */
const WAIT_MS_MAX = 5 * MINUTE_MS;
const waitFor = <T>(what: string, probe: () => T | undefined | false | Promise<T | undefined | false>) =>
  waitForWithin(what, probe, WAIT_MS_MAX);
const cleanup = new Cleanup();
let cluster: GrowingCluster;

const pki = (host: string, file: string) => join(cluster.host(host).folder, 'pki', file);
const read = (host: string, file: string) => readFileSync(pki(host, file), 'utf8');
const listFile = (host: string, file = LIST_FILE) => join(cluster.host(host).stateDir, 'directory', file);
const members = (host: string): Promise<Members> => cluster.client(host).members();
const linkUp = (host: string, peer: string) =>
  waitFor(`${host} has a link with ${peer}`, async () =>
    (await members(host)).members.some(({ host: name, link }) => name === peer && link === 'up'),
  );

before(async () => {
  cluster = await GrowingCluster.make(['m1', 'm2', 'm3'], cleanup);
  await cluster.init('m1', 'lab');
  await cluster.start('m1');
  for (const name of ['m2', 'm3']) {
    await cluster.invite('m1', name);
    const { status, stderr } = await cluster.join(name, cluster.token);
    assert.equal(status, 0, stderr);
    await cluster.start(name);
  }
  const disk = join(cluster.host('m2').folder, 'own.img');
  writeFileSync(disk, '');
  truncateSync(disk, MIB);
  await cluster.ask('m2', 'export', 'own', '--disk', disk, '--allow', 'm2,m3');
});
after(() => cleanup.run());

/** A certificate for the key that a host has, of its present membership, made `agoMs` before now. */
async function issue(host: string, validMs: number, agoMs = 0): Promise<string> {
  const { list } = JSON.parse(readFileSync(listFile('m1'), 'utf8')) as { list: string };
  const entry = (JSON.parse(Buffer.from(list, 'base64').toString()) as MemberList).members.find((each) => each.host === host)!;
  const authority = { certificate: read('m1', 'issuing.crt'), key: read('m1', 'issuing.key') };
  const { request } = await createRequest(read(host, 'host.key'));
  const { admission } = entry;
  const clock = { ...systemClock, wallTime: () => Date.now() - agoMs };
  return issueForRequest({ authority, request, cluster: 'lab', host, admission, clock, validDays: (agoMs + validMs) / DAY_MS });
}

test('a certificate that is nearly over is renewed by the issuing host, and a new session goes by the new one', async () => {
  await linkUp('m3', 'm2');
  await cluster.stop('m3');
  // Two thirds of its life are over.
  writeFileSync(pki('m3', 'host.crt'), await issue('m3', 20 * MINUTE_MS, 60 * MINUTE_MS));
  await cluster.start('m3');
  const { certificateExpiresAt } = await waitFor('it is renewed', async () => {
    const status = await cluster.client('m3').status();
    return Date.parse(status.certificateExpiresAt) > Date.now() + 25 * DAY_MS && status;
  });
  assert.match(cluster.log('m3'), /the certificate was renewed/);
  assert.equal(read('m3', 'host.crt').match(/BEGIN CERTIFICATE/g)?.length, 2);
  const { socket } = await waitFor('m3 attaches', () =>
    cluster.ask<AttachmentEntry>('m3', 'attach', 'm2/own', '--vm', 'web').catch(() => undefined),
  );
  const guest = await VhostUserFrontend.connect(cluster.host('m3').path(socket));
  await guest.flush();
  guest.close();
  await cluster.stop('m3');
  await cluster.start('m3');
  assert.equal((await cluster.client('m3').status()).certificateExpiresAt, certificateExpiresAt, 'it is in its file');
});

test('an expired certificate opens no session, and the one that is up goes on', async () => {
  await waitFor('it is free', async () => !(await cluster.client('m3').status()).attachments[0].connected);
  // Nobody renews meanwhile.
  await cluster.stop('m1');
  const { socket } = (await cluster.client('m3').status()).attachments[0];
  let guest: VhostUserFrontend;
  let expiresAt: number;
  const timesLogged = (pattern: RegExp) => cluster.log('m3').match(pattern)?.length ?? 0;
  // As long as it takes this machine to open a session with a certificate that soon ends.
  for (let seconds = 4; ; seconds *= 2) {
    writeFileSync(pki('m3', 'host.crt'), await issue('m3', seconds * 1000));
    const before = { taken: timesLogged(/were taken anew/g), refused: timesLogged(/were not taken anew/g) };
    cluster.daemon('m3').signal('SIGHUP');
    const answer = await waitFor('SIGHUP was answered', () => {
      if (timesLogged(/were taken anew/g) > before.taken) return 'taken';
      return timesLogged(/were not taken anew/g) > before.refused && 'refused';
    });
    expiresAt = Date.parse((await cluster.client('m3').status()).certificateExpiresAt);
    if (answer === 'refused') continue;
    guest = await VhostUserFrontend.connect(cluster.host('m3').path(socket));
    await guest.flush();
    if (Date.now() < expiresAt) break;
    guest.close();
    await waitFor('it is free', async () => !(await cluster.client('m3').status()).attachments[0].connected);
  }
  await waitFor('the certificate expires', () => Date.now() > expiresAt + 1000);
  await guest.write(0, new Uint8Array(512).fill(5));
  await guest.flush();
  assert.equal(
    (await cluster.client('m3').status()).attachments[0].epoch,
    (await cluster.client('m2').status()).sessions[0].epoch,
  );
  const { warnings } = await cluster.client('m3').status();
  assert.match(
    warnings.join('\n'),
    /this host's certificate expired on .*: other hosts refuse new sessions; it was not renewed/,
  );
  guest.close();
  await waitFor('it is free', async () => !(await cluster.client('m3').status()).attachments[0].connected);
  const late = await VhostUserFrontend.connect(cluster.host('m3').path(socket));
  const entry = await waitFor('a new session is refused', async () => {
    const [attachment] = (await cluster.client('m3').status()).attachments;
    return attachment.state === 'connecting' && attachment.reason !== undefined && attachment;
  });
  assert.match(entry.reason!, /m2 refuses this host: the certificate \(or its CA\) has expired/);
  // With a good one it goes on, and the guest with it.
  writeFileSync(pki('m3', 'host.crt'), await issue('m3', 30 * DAY_MS));
  cluster.daemon('m3').signal('SIGHUP');
  assert.deepEqual(await late.read(0, 512), new Uint8Array(512).fill(5));
  late.close();
  await cluster.start('m1');
});

test('a list that a member forges, or takes from long ago, is refused and changes nothing', async () => {
  const old = readFileSync(listFile('m2'));
  await cluster.invite('m1', 'm9');
  await cluster.ask('m1', 'set-address', 'm3', cluster.address('m3').replace(/:\d+$/, ':1'));
  await cluster.ask('m1', 'set-address', 'm3', cluster.address('m3'));
  const { serial } = await members('m1');
  const identity = {
    ...{ cluster: 'lab', host: 'm2', ca: read('m2', 'ca.crt'), certificate: read('m2', 'host.crt') },
    key: read('m2', 'host.key'),
  };
  await cluster.stop('m2');
  const endpoint = new Endpoint({
    ...{ identity, bootId: 'boot', release: '0', clock: systemClock, log: new TestLog() },
    admits: () => undefined,
  });
  const [address, port] = cluster.address('m1').split(':');
  const links = new Links({ endpoint, handlers: {}, targetOf: (host) => ({ host, address, port: Number(port) }) });
  const put = (bytes: Uint8Array) => links.call('m1', 'members.put', { list: listText(bytes) });
  const newest = JSON.parse(readFileSync(listFile('m1'), 'utf8')) as { list: string };
  const forged = Buffer.from(newest.list, 'base64')
    .toString()
    .replace(`"serial":${serial}`, `"serial":${serial! + 1}`);
  const text = JSON.stringify({ ...newest, list: Buffer.from(forged).toString('base64') });
  await assert.rejects(put(Buffer.from(text)), { code: 'denied', message: /signature/ });
  await assert.rejects(put(old), { code: 'denied', message: /it is older than the one that is known/ });
  links.close();
  endpoint.close();
  assert.deepEqual((await members('m1')).serial, serial);
  assert.match(cluster.log('m1'), /the member list that host m2 gave was refused/);
  await cluster.start('m2');
});

test('both copies of the list damaged: its own devices are served, and the others bring the list', async () => {
  await linkUp('m3', 'm2');
  const { serial } = await members('m1');
  await waitFor('m2 has the newest', async () => (await members('m2')).serial === serial);
  const { socket } = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm2/own', '--vm', 'local').catch(async () => {
    await cluster.ask('m3', 'detach', 'web/own');
    return cluster.ask<AttachmentEntry>('m2', 'attach', 'm2/own', '--vm', 'local');
  });
  for (const name of ['m1', 'm2', 'm3']) await cluster.stop(name);
  for (const file of [LIST_FILE, COPY_FILE]) writeFileSync(listFile('m2', file), 'nonsense');
  // Not only the first start after it.
  for (let start = 0; start < 2; start++) {
    await cluster.start('m2');
    const guest = await VhostUserFrontend.connect(cluster.host('m2').path(socket));
    await guest.write(0, new Uint8Array(512).fill(start));
    await guest.flush();
    guest.close();
    const { warnings } = await cluster.ask<Status>('m2', 'status');
    assert.match(warnings.join('\n'), new RegExp(`has lost its member list: .* any host with serial ${serial} or later`));
    if (start === 0) await cluster.stop('m2');
  }
  await cluster.start('m3');
  await waitFor('the list is back', async () => (await members('m2')).serial === serial);
  assert.deepEqual((await cluster.ask<Status>('m2', 'status')).warnings, []);
  assert.ok(existsSync(listFile('m2')) && existsSync(listFile('m2', COPY_FILE)));
  await linkUp('m2', 'm3');

  // The issuing host, too, and it can issue again without a restart.
  for (const file of [LIST_FILE, COPY_FILE]) writeFileSync(listFile('m1', file), 'nonsense');
  await cluster.start('m1');
  await waitFor('the list is back', async () => (await members('m1')).serial === serial);
  await waitFor('it invites', async () => (await cluster.netbus('m1', 'invite', 'm8')).status === 0);
});

test('a host that has moved is found at its new address by all', async () => {
  const port = await freePort('0.0.0.0');
  const address = `${cluster.host('m3').address}:${port}`;
  const refused = await cluster.netbus('m2', 'set-address', 'm3', address);
  assert.deepEqual([refused.status, /do it on host m1/.test(refused.stderr)], [6, true]);
  const taken = await cluster.netbus('m1', 'set-address', 'm3', cluster.address('m2'));
  assert.deepEqual([taken.status, /host m2 has the address/.test(taken.stderr)], [4, true]);
  assert.equal((await cluster.netbus('m1', 'set-address', 'm9', address)).status, 3);
  const bad = await cluster.netbus('m1', 'set-address', 'm3', 'a b');
  assert.deepEqual([bad.status, /is not an address/.test(bad.stderr)], [2, true]);
  await linkUp('m1', 'm2');
  const { told, previous } = await cluster.ask<AddressResult>('m1', 'set-address', 'm3', address);
  assert.deepEqual([previous, told.includes('m2')], [cluster.address('m3'), true]);
  const again = await cluster.netbus('m1', 'set-address', 'm3', address);
  assert.match(again.stdout, /^host m3 is at \S+ already$/m);

  await cluster.stop('m3');
  const path = join(cluster.host('m3').folder, 'netbus.yaml');
  const config = readFileSync(path, 'utf8');
  const old = cluster.address('m3').replace(/^.*:/, '');
  assert.ok(config.includes(`:${old}`), config);
  writeFileSync(path, config.replaceAll(`:${old}`, `:${port}`));
  await cluster.start('m3');
  for (const host of ['m1', 'm2']) await linkUp(host, 'm3');
  await waitFor('m3 knows it itself', async () => (await members('m3')).members.some((member) => member.address === address));
});

test('a token that has expired is refused over the wire; of two for one name the newer counts', async () => {
  const first = await cluster.invite('m1', 'm7');
  const second = await cluster.invite('m1', 'm7');
  const places = { folder: join(cluster.host('m2').folder, 'other') };
  const join7 = (token: string) =>
    cluster.netbus(
      'm2',
      'join',
      token,
      '--config',
      join(places.folder, 'netbus.yaml'),
      '--state-dir',
      join(places.folder, 'state'),
    );
  const older = await join7(first.token);
  assert.deepEqual([older.status, /a newer one was made for this host: use that/.test(older.stderr)], [6, true]);
  await cluster.stop('m1');
  const file = listFile('m1', 'invitations.json');
  writeFileSync(file, readFileSync(file, 'utf8').replace(/"expiresAt": \d+/g, `"expiresAt": ${Date.now() - 1}`));
  await cluster.start('m1');
  const late = await join7(second.token);
  assert.deepEqual([late.status, /the invitation is refused: it expired at/.test(late.stderr)], [6, true], late.stderr);
  assert.equal(existsSync(join(places.folder, 'pki')), false);
});
