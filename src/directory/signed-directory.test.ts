import assert from 'node:assert/strict';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission, serialNumberOf } from './admission.ts';
import type { DirectoryChange } from './directory.ts';
import { issueIssuing, issueRoot } from './identity-issue.ts';
import { addMember, createMemberList, evictMember, type MemberList, moveMember } from './member-list.ts';
import { signMemberList } from './member-list-signature.ts';
import { SignedDirectory } from './signed-directory.ts';
import { StaticDirectory } from './static-directory.ts';

const root = await mkdtemp(join(tmpdir(), 'netbus-directory-'));
after(() => rm(root, { recursive: true }));

const clock = new ManualClock();
const now = clock.wallTime();
const DAY_MS = 24 * 60 * 60 * 1000;
const ca = await issueRoot({ cluster: 'lab', clock });
const issuing = await issueIssuing({ root: ca, cluster: 'lab', clock });
const sign = (list: MemberList) => signMemberList(list, issuing).bytes;
const member = (host: string, address: string) => ({ host, address, admission: newAdmission(), now });

const one = createMemberList('lab', member('m1', '10.0.0.1'));
const two = addMember(one, member('m2', '10.0.0.2'));
const three = addMember(two, member('m3', '10.0.0.3'));

const open = (name: string, at = clock) =>
  SignedDirectory.open({ folder: join(root, name), cluster: 'lab', ca: ca.certificate, clock: at });
const admissionIn = (list: MemberList, host: string) => list.members.find((entry) => entry.host === host)!.admission;
/** What a certificate of that membership shows. */
const facts = (list: MemberList, host: string) => ({ serialNumber: serialNumberOf(admissionIn(list, host)).toUpperCase() });

test('a list holds once it was accepted, also after a restart', async () => {
  const directory = await open('restart');
  assert.equal(directory.list(), undefined);
  assert.equal(directory.members().size, 0);
  assert.equal(await directory.accept(sign(two)), 'newer');
  assert.equal(await directory.accept(sign(two)), 'known');
  for (const each of [directory, await open('restart')]) {
    assert.equal(each.list()?.list.serial, 2);
    assert.deepEqual([...each.members().keys()], ['m1', 'm2']);
    assert.deepEqual(each.members().get('m2'), { host: 'm2', address: { host: '10.0.0.2', port: 7443 }, since: now });
    assert.deepEqual(each.damaged, []);
  }
  assert.equal((await stat(join(root, 'restart', 'members.list'))).mode & 0o777, 0o644);
});

test('an older list, and another one of the same serial, are refused', async () => {
  const directory = await open('older');
  await directory.accept(sign(three));
  await assert.rejects(directory.accept(sign(two)), {
    code: 'denied',
    message: 'the member list is refused: it is older than the one that is known: serial 2 < 3',
  });
  const other = addMember(two, member('m4', '10.0.0.4'));
  await assert.rejects(directory.accept(sign(other)), {
    code: 'denied',
    message: /it contradicts the one that is known: both have serial 3/,
  });
  await assert.rejects(directory.accept(Buffer.from('x')), { code: 'denied' });
  assert.equal(directory.list()?.list.serial, 3);
});

test('lists that come at once are taken one after the other', async () => {
  const directory = await open('turns');
  const results = await Promise.allSettled([two, three, one].map((list) => directory.accept(sign(list))));
  assert.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? result.value : 'refused')),
    ['newer', 'newer', 'refused'],
  );
  assert.equal(directory.list()?.list.serial, 3);
});

test('listeners hear who came, left and moved', async () => {
  const directory = await open('changes');
  await directory.accept(sign(one));
  const heard: DirectoryChange[] = [];
  const end = directory.onChange((change) => heard.push(change));
  await directory.accept(sign(three));
  await directory.accept(sign(three));
  const evicted = evictMember(moveMember(three, { host: 'm3', address: '10.0.0.9', now }), { host: 'm2', now });
  await directory.accept(sign(evicted));
  const again = addMember(evicted, member('m2', '10.0.0.2'));
  await directory.accept(sign(again));
  // Out and in again, in one step for who missed what was between.
  await directory.accept(sign(addMember(evictMember(again, { host: 'm2', now }), member('m2', '10.0.0.5'))));
  end();
  await directory.accept(sign({ ...again, serial: 99 }));
  assert.deepEqual(heard, [
    { joined: ['m2', 'm3'], left: [], moved: [] },
    { joined: [], left: ['m2'], moved: ['m3'] },
    { joined: ['m2'], left: [], moved: [] },
    { joined: ['m2'], left: ['m2'], moved: [] },
  ]);
});

test('a member is admitted by the certificates of its present membership, and by no others', async () => {
  const directory = await open('admits');
  await directory.accept(sign(two));
  assert.equal(directory.admits('m2', facts(two, 'm2')), undefined);
  assert.equal(directory.admits('m2', facts(two, 'm2')), undefined, 'a renewed one');
  assert.match(directory.admits('m2', facts(two, 'm1')) ?? '', /not of the present membership of host m2/);
  assert.match(directory.admits('m2', { serialNumber: '01' }) ?? '', /not of the present membership/);
  assert.match(directory.admits('m3', facts(two, 'm2')) ?? '', /host m3 is not in the member list of cluster lab/);

  const evicted = evictMember(two, { host: 'm2', now });
  await directory.accept(sign(evicted));
  assert.match(directory.admits('m2', facts(two, 'm2')) ?? '', /host m2 was evicted on 2026-01-01: it may join again/);
  assert.deepEqual([...directory.members().keys()], ['m1']);

  const again = addMember(evicted, member('m2', '10.0.0.2'));
  await directory.accept(sign(again));
  assert.match(directory.admits('m2', facts(two, 'm2')) ?? '', /not of the present membership/, 'the old certificate');
  assert.equal(directory.admits('m2', facts(again, 'm2')), undefined);
});

test('a file that was damaged or tampered with is set aside, and made again from its copy', async () => {
  const folder = join(root, 'damaged');
  const list = join(folder, 'members.list');
  const damages: [string, () => Promise<unknown>, RegExp][] = [
    ['cut', () => truncate(list, 100), /not JSON/],
    ['empty', () => truncate(list, 0), /not JSON/],
    ['too long', () => appendFile(list, ' '.repeat(2 ** 20)), /at most 983040/],
    [
      'tampered',
      async () => {
        const envelope = JSON.parse(await readFile(list, 'utf8'));
        const text = Buffer.from(envelope.list, 'base64').toString().replace('10.0.0.2', '10.0.0.8');
        await writeFile(list, JSON.stringify({ ...envelope, list: Buffer.from(text).toString('base64') }));
      },
      /tampered/,
    ],
  ];
  for (const [name, damage, reason] of damages) {
    await rm(folder, { recursive: true, force: true });
    await (await open('damaged')).accept(sign(two));
    await damage();
    const directory = await open('damaged');
    assert.equal(directory.list()?.list.serial, 2, name);
    assert.equal(directory.damaged.length, 1);
    assert.match(directory.damaged[0].reason, reason);
    assert.equal(directory.damaged[0].file, list);
    assert.deepEqual((await readdir(folder)).length, 4, 'both copies, the serial, and what was set aside');
    assert.deepEqual((await open('damaged')).damaged, [], 'the next start finds it in order');
  }
});

test('with both files damaged there is no list until one comes', async () => {
  const folder = join(root, 'both');
  await (await open('both')).accept(sign(two));
  await writeFile(join(folder, 'members.list'), 'x');
  await writeFile(join(folder, 'members.copy'), 'x');
  const directory = await open('both');
  assert.equal(directory.damaged.length, 2);
  assert.equal(directory.list(), undefined);
  assert.match(directory.admits('m2', facts(two, 'm2')) ?? '', /not in the member list/);
  assert.equal(await directory.accept(sign(three)), 'newer');
});

test('without a list an older one than was here is refused; where that is not known, all that the issuing host has not brought', async () => {
  const lose = async (name: string) => {
    for (const file of ['members.list', 'members.copy']) await writeFile(join(root, name, file), 'x');
  };
  const known = await open('known');
  assert.equal(known.lost, false, 'there never was one');
  await known.accept(sign(three));
  await lose('known');
  // At the second start the damaged files have other names.
  for (const directory of [await open('known'), await open('known')]) {
    assert.equal(directory.lost, true);
    assert.equal(directory.trusted, 'any host with serial 3 or later');
    await assert.rejects(directory.accept(sign(two), 'm2'), {
      code: 'denied',
      message: /older than the one that was here: serial 2 < 3/,
    });
    await assert.rejects(directory.accept(sign(two), 'm1'), { code: 'denied' });
  }
  assert.equal(await (await open('known')).accept(sign(three), 'm2'), 'newer');
  assert.equal((await open('known')).lost, false);

  for (const damage of ['', 'x', '-1\n', '99999999999999999999\n']) {
    await rm(join(root, 'unknown'), { recursive: true, force: true });
    await (await open('unknown')).accept(sign(three));
    await lose('unknown');
    await writeFile(join(root, 'unknown', 'members.serial'), damage);
    const directory = await open('unknown');
    assert.equal(directory.trusted, 'the issuing host');
    await assert.rejects(directory.accept(sign(three), 'm2'), { code: 'denied', message: /host m1 alone, which issues it/ });
    assert.equal(await directory.accept(sign(three), 'm1'), 'newer');
    await assert.rejects(directory.accept(sign(two), 'm1'), { message: /older than the one that is known/ });
  }
});

test('whatever a stop left of a newer list, one of the two is there', async () => {
  const folder = join(root, 'stop');
  await (await open('stop')).accept(sign(three));
  await writeFile(join(folder, 'members.copy'), sign(two));
  assert.equal((await open('stop')).list()?.list.serial, 3);
  await writeFile(join(folder, 'members.list'), sign(two));
  assert.equal((await open('stop')).list()?.list.serial, 3, 'the copy was made new');
  await writeFile(join(folder, 'members.list.1.new'), sign(one).subarray(0, 50));
  await rm(join(folder, 'members.list'));
  assert.equal((await open('stop')).list()?.list.serial, 3);
});

test('a list that cannot be stored does not hold', async () => {
  const folder = join(root, 'full');
  const directory = await open('full');
  await directory.accept(sign(two));
  await rm(join(folder, 'members.list'));
  await mkdir(join(folder, 'members.list', 'x'), { recursive: true });
  await assert.rejects(directory.accept(sign(three)), { code: 'device', message: /the member list in .* cannot be/ });
  assert.equal(directory.list()?.list.serial, 2);
  await rm(join(folder, 'members.list'), { recursive: true });
  assert.equal(await directory.accept(sign(three)), 'newer');
});

test('a clock that is wrong loses no list; a newer one waits until it is right', async () => {
  await (await open('clock')).accept(sign(two));
  const early = new ManualClock();
  early.advance(-30 * 365 * DAY_MS);
  const directory = await open('clock', early);
  assert.deepEqual(directory.damaged, []);
  assert.equal(directory.list()?.list.serial, 2);
  await assert.rejects(directory.accept(sign(three)), { message: /check this host's clock/ });
});

test('the hosts of a config are a directory, too', async () => {
  const directory = new StaticDirectory('m1', new Map([['m2', { host: '10.0.0.2', port: 7443 }]]));
  assert.deepEqual(
    [...directory.members().values()],
    [{ host: 'm2', address: { host: '10.0.0.2', port: 7443 }, since: undefined }],
  );
  assert.equal(directory.list(), undefined);
  assert.equal(directory.admits('m2'), undefined);
  assert.equal(directory.admits('m3'), 'host m3 is not a member: add it to the hosts in the config of m1');
  await assert.rejects(directory.accept(), { code: 'usage', message: /are those of its config/ });
  directory.onChange()();
});
