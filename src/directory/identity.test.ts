import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { chmod, chown, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { NetbusError } from '../device/errors.ts';
import { ManualClock, systemClock } from '../lib/clock.ts';
import { loadIdentity, loadIssuing } from './identity.ts';
import { writeAuthority, writeCertificate, writeIdentity } from './identity-files.ts';
import { HOST_VALID_DAYS, issueAuthority, issueHost, issueIssuing, issueRoot } from './identity-issue.ts';

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
    /none \(this host's private key\) does not exist: put it back from a backup, or evict this host/,
  );
  const lost = { ...good, ca: join(folder, 'none') };
  await refused(lost, /none \(the CA certificate\) does not exist: copy it from another host of the cluster/);
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
  await refused(
    paths,
    /m1\.pem expired on 2026-01-31, and here it is 2026-02-01: check this host's clock, or issue a new/,
    later,
  );
  const future = new ManualClock();
  future.advance(DAY_MS);
  await writeIdentity(paths, await issueHost({ authority, cluster: 'lab', host: 'm1', clock: future }));
  await refused(paths, /is valid from 2026-01-01 on, and here it is 2026-01-01: set this host's clock/);
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

const root = await issueRoot({ cluster: 'lab', clock });
const issuing = await issueIssuing({ root, cluster: 'lab', clock });
const below = await issueHost({ authority: issuing, cluster: 'lab', host: 'm1', clock });

/** Files of a cluster with an issuing CA. */
async function chainFiles(name: string) {
  const place = (file: string) => join(folder, name, file);
  const paths = { ca: place('ca.crt'), certificate: place('host.crt'), key: place('host.key') };
  await writeAuthority(paths.ca, root.certificate);
  await writeIdentity(paths, below);
  const issuingPaths = { ca: paths.ca, certificate: place('issuing.crt'), key: place('issuing.key') };
  await writeIdentity(issuingPaths, issuing);
  return { paths, issuingPaths };
}

test('root, issuing CA and host: each says of itself what it may', () => {
  const [top, middle, leaf] = [root, issuing, below].map(({ certificate }) => new X509Certificate(certificate));
  assert.deepEqual([top.ca, middle.ca, leaf.ca], [true, true, false]);
  assert.match(middle.subject, /CN=lab issuing/);
  assert.equal(middle.subjectAltName, 'URI:netbus://lab');
  assert.equal(Date.parse(middle.validTo), clock.wallTime() + 5 * 365 * DAY_MS);
  assert.ok(middle.checkIssued(top) && middle.verify(top.publicKey));
  assert.ok(leaf.checkIssued(middle) && leaf.verify(middle.publicKey));
});

test('a certificate with the issuing CA behind it is read', async () => {
  const { paths } = await chainFiles('chain');
  const identity = await loadIdentity(paths, clock);
  assert.equal(identity.host, 'm1');
  assert.equal(identity.serialNumber, new X509Certificate(below.certificate).serialNumber);
  assert.equal(identity.certificate.match(/BEGIN/g)?.length, 2);
});

test('a chain that is not one is told', async () => {
  const { paths } = await chainFiles('chain-wrong');
  const [leaf] = below.certificate.split(/(?<=-----END CERTIFICATE-----\n)/);
  const set = (text: string) => writeCertificate(paths.certificate, text);
  await set(leaf);
  await refused(paths, /host\.crt was not issued by the CA in .*ca\.crt/);
  await set(`${leaf}${host.certificate}`);
  await refused(paths, /has a second certificate that is not a CA/);
  await set(`${leaf}${authority.certificate}`);
  await refused(paths, /was not issued by the CA/);
  const stranger = await issueIssuing({ root, cluster: 'lab', clock });
  await set(`${leaf}${stranger.certificate}`);
  await refused(paths, /was not issued by the CA/);
  await set(`${below.certificate}${root.certificate}`);
  await refused(paths, /has 3 certificates: give the host's, and the issuing CA's behind it/);
  await set(issuing.certificate);
  await refused(paths, /names no host/);
  for (const path of [paths.ca, paths.certificate, paths.key]) await rm(path);
  await refused(paths, /ca\.crt \(the CA certificate\) does not exist: run "netbus init" or "netbus join"/);
});

test('the dates of the whole chain count', async () => {
  const { paths } = await chainFiles('chain-dates');
  const later = new ManualClock();
  later.advance((HOST_VALID_DAYS + 1) * DAY_MS);
  await refused(paths, /host\.crt expired on 2026-01-31/, later);
  assert.equal(
    (await loadIdentity(paths, later, { expired: 'allowed' })).expiresAt,
    clock.wallTime() + HOST_VALID_DAYS * DAY_MS,
  );
  const early = new ManualClock();
  early.advance(-DAY_MS);
  await assert.rejects(loadIdentity(paths, early, { expired: 'allowed' }), {
    message: /is valid from .*: set this host's clock/,
  });
  later.advance(6 * 365 * DAY_MS);
  await refused(paths, /\(the issuing certificate in it\) expired on/, later);
});

test('a key of another user is refused', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can give a file away: run this test as root');
  const { paths } = await chainFiles('owner');
  await chown(paths.key, 65534, 65534);
  await refused(paths, /host\.key \(this host's private key\) belongs to user 65534, which lets it in: chown 0 /);
});

test('the issuing CA is read where both of its files are', async () => {
  const { issuingPaths } = await chainFiles('issuing');
  assert.equal((await loadIssuing(issuingPaths, 'lab', clock))?.certificate.trim(), issuing.certificate.trim());
  await chmod(issuingPaths.key, 0o644);
  await assert.rejects(loadIssuing(issuingPaths, 'lab', clock), {
    code: 'config',
    message: /has mode 0644.*: chmod 0600 .*issuing\.key$/,
  });
  await chmod(issuingPaths.key, 0o600);
  await assert.rejects(loadIssuing(issuingPaths, 'other', clock), {
    code: 'config',
    message: /is not the issuing certificate of cluster other/,
  });
  await writeCertificate(issuingPaths.certificate, below.certificate);
  await assert.rejects(loadIssuing(issuingPaths, 'lab', clock), { code: 'config', message: /was not issued by the CA/ });
  await writeIdentity(issuingPaths, { ...issuing, key: below.key });
  await assert.rejects(loadIssuing(issuingPaths, 'lab', clock), {
    code: 'config',
    message: /does not belong to the certificate/,
  });
  await rm(issuingPaths.key);
  await assert.rejects(loadIssuing(issuingPaths, 'lab', clock), {
    code: 'config',
    message: /issuing\.key \(the issuing private key\) does not exist/,
  });
  await rm(issuingPaths.certificate);
  assert.equal(await loadIssuing(issuingPaths, 'lab', clock), undefined);
});

test('TLS takes the chain: a host with the root alone believes the other', async () => {
  // What OpenSSL makes of the extensions, which Node's X509Certificate does not check.
  const { connect, createServer } = await import('node:tls');
  const ca = await issueRoot({ cluster: 'lab', clock: systemClock });
  const below = await issueIssuing({ root: ca, cluster: 'lab', clock: systemClock });
  const other = await issueHost({ authority: below, cluster: 'lab', host: 'm2', clock: systemClock });
  const own = await issueHost({ authority: below, cluster: 'lab', host: 'm1', clock: systemClock });
  const shared = { ca: ca.certificate, minVersion: 'TLSv1.3' as const, rejectUnauthorized: false };
  const server = createServer({ ...shared, cert: own.certificate, key: own.key, requestCert: true });
  const peer = new Promise<[boolean, unknown]>((resolve) => {
    server.on('secureConnection', (socket) => resolve([socket.authorized, socket.authorizationError]));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const socket = connect({
    ...shared,
    port,
    host: '127.0.0.1',
    cert: other.certificate,
    key: other.key,
    checkServerIdentity: () => undefined,
  });
  await new Promise((resolve) => socket.on('secureConnect', resolve));
  assert.deepEqual([socket.authorized, socket.authorizationError ?? null], [true, null]);
  const [authorized, error] = await peer;
  assert.deepEqual([authorized, error ?? null], [true, null]);
  socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});
