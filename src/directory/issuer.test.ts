import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import { issueHost, issueIssuing, issueRoot } from './identity-issue.ts';
import { createRequest, keyFingerprint } from './identity-request.ts';
import { INVITATION_VALID_MS, InvitationStore } from './invitations.ts';
import { Issuer } from './issuer.ts';
import { createMemberList } from './member-list.ts';
import { signMemberList, verifyMemberList } from './member-list-signature.ts';
import { SignedDirectory } from './signed-directory.ts';
import { caFingerprint, decodeToken } from './token.ts';

const base = await mkdtemp(join(tmpdir(), 'netbus-issuer-'));
after(() => rm(base, { recursive: true }));

/** The issuer m1 of a cluster of its own. */
async function make(name: string, cluster = 'lab') {
  const clock = new ManualClock();
  const folder = join(base, name);
  const root = await issueRoot({ cluster, clock });
  const issuing = await issueIssuing({ root, cluster, clock });
  const ca = root.certificate;
  const directory = await SignedDirectory.open({ folder, cluster, ca, clock });
  const first = createMemberList(cluster, {
    host: 'm1',
    address: '10.0.0.1',
    admission: newAdmission(),
    now: clock.wallTime(),
  });
  await directory.accept(signMemberList(first, issuing).bytes);
  const invitations = await InvitationStore.open({ file: join(folder, 'invitations.json'), clock });
  return {
    clock,
    ca,
    directory,
    folder,
    invitations,
    issuing,
    issuer: new Issuer({ ca, issuing, directory, invitations, clock }),
  };
}

/** Joins `host` as it would itself. */
async function letIn(issuer: Issuer, host: string, address = `${host}.example`) {
  const { secret } = decodeToken((await issuer.invite(host)).token);
  const { request, key } = await createRequest();
  return { ...(await issuer.join({ secret, host, address, request })), key };
}

test('a host is invited, joins, renews, is evicted and joins again', async () => {
  const { ca, clock, directory, issuer } = await make('life');
  const { token, expiresAt } = await issuer.invite('m2');
  const read = decodeToken(token);
  assert.deepEqual(
    { cluster: read.cluster, host: read.host, address: read.address, expiresAt: read.expiresAt },
    { cluster: 'lab', host: 'm2', address: '10.0.0.1:7443', expiresAt },
  );
  assert.deepEqual(Buffer.from(read.caFingerprint), Buffer.from(caFingerprint(ca)));

  const { request, key } = await createRequest();
  const answer = await issuer.join({ secret: read.secret, host: 'm2', address: '10.0.0.2', request });
  assert.equal(answer.ca, ca);
  const list = verifyMemberList(answer.list, ca, 'lab', clock.wallTime()).list;
  assert.deepEqual([list.serial, list.members.map(({ host }) => host)], [2, ['m1', 'm2']]);
  assert.equal(directory.list()?.list.serial, 2);
  const first = new X509Certificate(answer.certificate);
  assert.equal(first.subjectAltName, 'URI:netbus://lab/m2');
  assert.equal(directory.admits('m2', first), undefined);

  const renewed = new X509Certificate(await issuer.renew('m2', first, (await createRequest(key)).request));
  assert.equal(directory.admits('m2', renewed), undefined);
  assert.notEqual(renewed.serialNumber, first.serialNumber);
  assert.ok(renewed.publicKey.equals(first.publicKey));

  await assert.rejects(issuer.invite('m1'), { code: 'in_use', message: /this host itself/ });
  assert.throws(() => issuer.checkEvict('m1'), { code: 'usage', message: /m1 cannot be evicted/ });
  assert.throws(() => issuer.checkEvict('m9'), { code: 'not_found' });
  issuer.checkEvict('m2');
  assert.equal(directory.list()?.list.serial, 2);
  await issuer.evict('m2');
  await assert.rejects(issuer.renew('m2', renewed, request), { code: 'denied', message: /host m2 was evicted/ });
  const again = await letIn(issuer, 'm2');
  // Both are in time and of the cluster's CA; one is of the membership that is over.
  assert.match(directory.admits('m2', renewed) ?? '', /not of the present membership/);
  await assert.rejects(issuer.renew('m2', renewed, request), { code: 'denied', message: /not of the present membership/ });
  assert.equal(directory.admits('m2', new X509Certificate(again.certificate)), undefined);
});

test('a token is used once', async () => {
  const { issuer } = await make('once');
  const { secret } = decodeToken((await issuer.invite('m2')).token);
  const { request } = await createRequest();
  const joining = { secret, host: 'm2', address: '10.0.0.2', request };
  await issuer.join(joining);
  const stranger = { ...joining, request: (await createRequest()).request };
  await assert.rejects(issuer.join(stranger), { code: 'denied', message: /it was used already/ });
  await issuer.evict('m2');
  for (const each of [joining, stranger]) {
    await assert.rejects(issuer.join(each), { code: 'denied', message: /it was used already/ });
  }
  await letIn(issuer, 'm2', '10.0.0.2');
  await issuer.evict('m2');
  await assert.rejects(issuer.join(joining), { code: 'denied', message: /it was used already/ }, 'evicted twice');
});

test('a host whose answer was lost asks again with the same key, until the token ends', async () => {
  const { ca, clock, directory, folder, issuing, issuer } = await make('again');
  const { secret } = decodeToken((await issuer.invite('m2')).token);
  const joining = { secret, host: 'm2', address: '10.0.0.2', ...(await createRequest()) };
  const first = await issuer.join(joining);
  const { serial } = directory.list()!.list;
  // After a restart of the issuing host, too.
  const invitations = await InvitationStore.open({ file: join(folder, 'invitations.json'), clock });
  const restarted = new Issuer({ ca, issuing, directory, invitations, clock });
  const second = await restarted.join(joining);
  assert.equal(directory.list()?.list.serial, serial, 'nothing has changed');
  assert.ok(Buffer.from(first.list).equals(second.list));
  const [a, b] = [first, second].map(({ certificate }) => new X509Certificate(certificate));
  assert.ok(a.publicKey.equals(b.publicKey));
  assert.equal(directory.admits('m2', b), undefined);
  clock.advance(INVITATION_VALID_MS);
  await assert.rejects(restarted.join(joining), { code: 'denied', message: /it was used already/ });
});

test('a crash between the use of an invitation and the list: the host asks again and is let in', async () => {
  const { directory, invitations, issuer } = await make('crash');
  const { secret } = decodeToken((await issuer.invite('m2')).token);
  const { request } = await createRequest();
  await invitations.redeem(secret, 'm2', { key: await keyFingerprint(request), admission: newAdmission() });
  const { certificate } = await issuer.join({ secret, host: 'm2', address: '10.0.0.2', request });
  assert.equal(directory.admits('m2', new X509Certificate(certificate)), undefined);
});

test('expired and forged tokens, and those of another cluster, are refused', async () => {
  const { clock, issuer } = await make('bad');
  const { issuer: other } = await make('bad-other', 'other');
  const { request } = await createRequest();
  const joining = (token: string) => ({ secret: decodeToken(token).secret, host: 'm2', address: '10.0.0.2', request });
  const { token } = await issuer.invite('m2');
  await assert.rejects(issuer.join(joining((await other.invite('m2')).token)), { code: 'denied', message: /not known here/ });
  await assert.rejects(issuer.join({ ...joining(token), secret: new Uint8Array(32) }), {
    code: 'denied',
    message: /not known here/,
  });
  await assert.rejects(issuer.join({ ...joining(token), host: 'm1' }), {
    code: 'denied',
    message: /for another host than "m1"/,
  });
  clock.advance(INVITATION_VALID_MS);
  await assert.rejects(issuer.join(joining(token)), { code: 'denied', message: /it expired at/ });
});

test("a member's name is not given away twice", async () => {
  const { issuer } = await make('names');
  const { secret } = decodeToken((await issuer.invite('m3')).token);
  await letIn(issuer, 'm2', '10.0.0.2');
  await assert.rejects(issuer.invite('m2'), { code: 'in_use', message: /evict that one first: netbus evict m2/ });
  await assert.rejects(issuer.invite('m1'), { code: 'in_use' });
  await assert.rejects(issuer.invite('M2'), { code: 'usage' });
  const { request } = await createRequest();
  await assert.rejects(issuer.join({ secret, host: 'm3', address: '10.0.0.2', request }), {
    code: 'in_use',
    message: /has the address/,
  });
  await issuer.join({ secret, host: 'm3', address: '10.0.0.3', request });
  await issuer.evict('m2');
  await issuer.invite('m2');
});

test('what can be refused leaves the invitation as it was', async () => {
  const { folder, issuer } = await make('refused');
  const { secret } = decodeToken((await issuer.invite('m2')).token);
  const { request } = await createRequest();
  const joining = { secret, host: 'm2', address: '10.0.0.2', request };
  await assert.rejects(issuer.join({ ...joining, request: 'x' }), { code: 'denied', message: /not a request in PEM form/ });
  await assert.rejects(issuer.join({ ...joining, address: '1.2.3' }), { code: 'usage' });
  // The state folder is full: neither is the invitation used, nor is anybody let in.
  await rm(join(folder, 'invitations.json'));
  await mkdir(join(folder, 'invitations.json', 'x'), { recursive: true });
  await assert.rejects(issuer.join(joining), { code: 'device' });
  await rm(join(folder, 'invitations.json'), { recursive: true });
  await issuer.join(joining);
});

test('changes that come at once are all in the list', async () => {
  const { directory, issuer } = await make('turns');
  await Promise.all(['m2', 'm3', 'm4', 'm5'].map((host) => letIn(issuer, host)));
  assert.deepEqual([directory.list()?.list.serial, directory.members().size], [5, 5]);
  await issuer.move('m3', '10.0.0.3');
  await issuer.move('m3', '10.0.0.3:7443');
  assert.deepEqual(directory.members().get('m3')?.address, { host: '10.0.0.3', port: 7443 });
  assert.equal(directory.list()?.list.serial, 6);
  await assert.rejects(issuer.evict('m1'), { code: 'usage' });
  await assert.rejects(issuer.evict('m9'), { code: 'not_found' });
});

test("a certificate that the issuing CA gave under another admission is no member's", async () => {
  const { clock, directory, issuer, issuing } = await make('admission');
  await letIn(issuer, 'm2');
  const made = await issueHost({ authority: issuing, cluster: 'lab', host: 'm2', clock });
  assert.match(directory.admits('m2', new X509Certificate(made.certificate)) ?? '', /not of the present membership/);
});
