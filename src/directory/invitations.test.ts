import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import { newAdmission } from './admission.ts';
import { INVITATION_VALID_MS, INVITATIONS_OPEN_MAX, InvitationStore } from './invitations.ts';

const folder = await mkdtemp(join(tmpdir(), 'netbus-invitations-'));
after(() => rm(folder, { recursive: true }));
const use = { key: '0'.repeat(64), admission: newAdmission() };
const DAY_MS = 24 * 60 * 60 * 1000;

/** A store in a folder of its own; `again` opens the same one as a daemon that was restarted. */
async function make(name: string) {
  const clock = new ManualClock();
  const file = join(folder, name, 'invitations.json');
  const again = () => InvitationStore.open({ file, clock });
  return { clock, file, again, store: await again() };
}

test('an invitation is good once, for its host, also after a restart', async () => {
  const { clock, file, again, store } = await make('once');
  const { secret, expiresAt } = await store.create('m2');
  assert.equal(expiresAt, clock.wallTime() + INVITATION_VALID_MS);
  assert.deepEqual(store.open(), [{ host: 'm2', expiresAt }]);
  const text = await readFile(file, 'utf8');
  assert.equal(text.includes(Buffer.from(secret).toString('hex')), false);
  assert.equal(text.includes(Buffer.from(secret).toString('base64')), false);
  assert.equal((await stat(file)).mode & 0o777, 0o600);

  const restarted = await again();
  await assert.rejects(restarted.redeem(secret, 'm3', use), { code: 'denied', message: /it is for another host than "m3"/ });
  await restarted.redeem(secret, 'm2', use);
  assert.deepEqual(restarted.open(), []);
  await assert.rejects(restarted.redeem(secret, 'm2', use), {
    code: 'denied',
    message: /the invitation is refused: it was used already/,
  });
  await assert.rejects((await again()).redeem(secret, 'm2', use), { message: /it was used already/ });
});

test('two who come with one secret at once: one gets in', async () => {
  const { store } = await make('race');
  const { secret } = await store.create('m2');
  const results = await Promise.allSettled([store.redeem(secret, 'm2', use), store.redeem(secret, 'm2', use)]);
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

test('a forged secret is unknown', async () => {
  const { store } = await make('forged');
  await store.create('m2');
  for (const secret of [new Uint8Array(32), new Uint8Array(), new Uint8Array(1000)]) {
    await assert.rejects(store.redeem(secret, 'm2', use), {
      code: 'denied',
      message: /it is not known here \(forged, of another cluster/,
    });
  }
});

test('it ends after its time, and is forgotten a day later', async () => {
  const { clock, again, store } = await make('expiry');
  const { secret } = await store.create('m2');
  clock.advance(INVITATION_VALID_MS - 1);
  store.check(secret, 'm2');
  clock.advance(1);
  assert.deepEqual(store.open(), []);
  await assert.rejects(store.redeem(secret, 'm2', use), {
    message: /it expired at 2026-01-01T00:15:00.000Z: ask for a new one/,
  });
  clock.advance(DAY_MS);
  await store.create('m3');
  await assert.rejects((await again()).redeem(secret, 'm2', use), { message: /not known here/ });
});

test('a newer invitation of a host replaces its older one', async () => {
  const { store } = await make('replaced');
  const older = await store.create('m2');
  const newer = await store.create('m2');
  assert.equal(store.open().length, 1);
  await assert.rejects(store.redeem(older.secret, 'm2', use), { message: /a newer one was made for this host/ });
  await store.redeem(newer.secret, 'm2', use);
});

test('open invitations are bounded, and so is what is remembered', async () => {
  const { clock, file, store } = await make('bounds');
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < INVITATIONS_OPEN_MAX; i++) await store.create(`h${i}`);
    await assert.rejects(store.create('one-more'), { code: 'limit', message: /256 invitations are open/ });
    clock.advance(INVITATION_VALID_MS);
  }
  await store.create('one-more');
  assert.equal(JSON.parse(await readFile(file, 'utf8')).invitations.length, 1024);
});

test('bad names are refused', async () => {
  const { store } = await make('names');
  await assert.rejects(store.create('M 2'), { code: 'usage' });
});

test('what cannot be stored did not happen', async () => {
  const { file, store } = await make('full');
  const { secret } = await store.create('m2');
  // A folder in the file's place: the rename fails, as on a full disk, for root too.
  await rm(file);
  await mkdir(join(file, 'x'), { recursive: true });
  await assert.rejects(store.create('m3'), { code: 'device' });
  await assert.rejects(store.redeem(secret, 'm2', use), { code: 'device', message: /cannot be stored/ });
  await rm(file, { recursive: true });
  await store.redeem(secret, 'm2', use);
  assert.deepEqual(await readdir(join(file, '..')), ['invitations.json']);
});

test('a damaged file is set aside', async () => {
  const { file, again, store } = await make('damaged');
  const { secret } = await store.create('m2');
  const text = await readFile(file, 'utf8');
  for (const damaged of ['', 'x', text.slice(0, -20), text.replace('"open"', '"ajar"')]) {
    await rm(join(file, '..'), { recursive: true });
    await mkdir(join(file, '..'));
    await writeFile(file, damaged);
    const opened = await again();
    assert.match(opened.damaged ?? '', /was damaged and is kept as .*: its invitations are void/);
    await assert.rejects(opened.redeem(secret, 'm2', use), { message: /not known here/ });
  }
});
