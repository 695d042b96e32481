import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { loadIdentity } from './identity.ts';
import { writeAuthority, writeIdentity } from './identity-files.ts';
import { HOST_VALID_DAYS, issueAuthority, issueHost } from './identity-issue.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const clock = new ManualClock();
const folder = await mkdtemp(join(tmpdir(), 'netbus-identity-'));
after(() => rm(folder, { recursive: true }));

const authority = await issueAuthority({ cluster: 'lab', clock });
const host = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });

/** A set of good files of its own. */
async function files(name: string) {
  const paths = {
    ca: join(folder, name, 'ca.pem'),
    certificate: join(folder, name, 'm1.pem'),
    key: join(folder, name, 'm1.key'),
  };
  await writeAuthority(paths.ca, authority.certificate);
  await writeIdentity(paths, host);
  return paths;
}

async function refused(paths: { ca: string; certificate: string; key: string }, message: RegExp, at = clock): Promise<void> {
  await assert.rejects(loadIdentity(paths, at), (error: NetbusError) => {
    assert.equal(error.code, 'config');
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

test('an issued identity is written, read back and names its host', async () => {
  const paths = await files('good');
  const identity = await loadIdentity(paths, clock);
  assert.equal(identity.cluster, 'lab');
  assert.equal(identity.host, 'm1');
  assert.equal(identity.expiresAt, clock.wallTime() + HOST_VALID_DAYS * DAY_MS);
  assert.equal((await stat(paths.key)).mode & 0o777, 0o600);
  assert.deepEqual((await readdir(join(folder, 'good'))).sort(), ['ca.pem', 'm1.key', 'm1.pem']);
});

test('certificates say what TLS asks for', () => {
  const ca = new X509Certificate(authority.certificate);
  const own = new X509Certificate(host.certificate);
  assert.equal(ca.ca, true);
  assert.equal(own.ca, false);
  assert.equal(own.subjectAltName, 'URI:netbus://lab/m1');
  assert.deepEqual([...own.keyUsage].sort(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  assert.equal(own.verify(ca.publicKey), true);
});

test('what is wrong with the files is said in one line, with what to do', async () => {
  const good = await files('wrong');
  const other = join(folder, 'wrong', 'other');
  await writeFile(other, 'nonsense');
  await refused(
    { ...good, key: join(folder, 'none') },
    /none \(this host's private key\) does not exist: run "netbus init" or "netbus join"/,
  );
  await refused({ ...good, ca: folder }, /cannot be read \(EISDIR/);
  await refused({ ...good, certificate: other }, /has no certificate in PEM form/);
  await refused({ ...good, ca: good.certificate }, /is not a CA's certificate/);
  await refused({ ...good, certificate: good.ca }, /names no host/);
  await chmod(other, 0o600);
  await refused({ ...good, key: other }, /has no private key in PEM form/);
  await writeFile(other, 'x'.repeat(70_000));
  await refused({ ...good, key: other }, /has 70000 bytes/);

  const second = await issueHost({ authority, cluster: 'lab', host: 'm2', clock });
  await writeIdentity({ certificate: join(folder, 'm2.pem'), key: join(folder, 'm2.key') }, second);
  await refused({ ...good, key: join(folder, 'm2.key') }, /does not belong to the certificate in .*m1\.pem/);

  // The same name, another key: the CA's name alone must not count.
  const stranger = await issueAuthority({ cluster: 'lab', clock });
  await writeAuthority(join(folder, 'stranger.pem'), stranger.certificate);
  await refused({ ...good, ca: join(folder, 'stranger.pem') }, /was not issued by the CA in .*stranger\.pem/);
});

test("a key that others may read is refused; its group's right to read is not", async () => {
  const paths = await files('modes');
  for (const mode of [0o644, 0o604, 0o620, 0o666, 0o700]) {
    await chmod(paths.key, mode);
    await refused(paths, new RegExp(`has mode 0${mode.toString(8)}, which lets others in: chmod 0600 `));
  }
  for (const mode of [0o640, 0o600, 0o400]) {
    await chmod(paths.key, mode);
    await loadIdentity(paths, clock);
  }
});

test('dates are checked against the clock', async () => {
  const paths = await files('dates');
  const later = new ManualClock();
  later.advance((HOST_VALID_DAYS + 1) * DAY_MS);
  await refused(paths, /m1\.pem expired on 2026-01-31: issue a new certificate/, later);
  const future = new ManualClock();
  future.advance(DAY_MS);
  await writeIdentity(paths, await issueHost({ authority, cluster: 'lab', host: 'm1', clock: future }));
  await refused(paths, /is valid from 2026-01-01 on: check this host's clock/);
});

test('names that a certificate could not carry safely are refused', async () => {
  for (const name of ['', 'M1', 'a/b', '-a', 'a-', 'a b', 'a,b', 'x'.repeat(64)]) {
    await assert.rejects(issueAuthority({ cluster: name, clock }), { code: 'usage' });
    await assert.rejects(issueHost({ authority, cluster: 'lab', host: name, clock }), { code: 'usage' });
  }
});

test('a file that cannot be written is told, and nothing is left behind', async () => {
  const place = join(folder, 'taken');
  await mkdir(join(place, 'm1.key'), { recursive: true });
  await assert.rejects(writeIdentity({ certificate: join(place, 'm1.pem'), key: join(place, 'm1.key') }, host), {
    code: 'config',
  });
  assert.deepEqual(await readdir(place), ['m1.key']);
});
