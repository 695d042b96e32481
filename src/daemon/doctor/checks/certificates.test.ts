/** What the doctor says of keys and certificates. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expect } from '../../../../test/support/doctor.ts';
import { CONFIG, type FakeHost } from '../../../../test/support/fake-host.ts';
import { NetbusError } from '../../../device/errors.ts';
import { issueAuthority, issueHost } from '../../../directory/identity-issue.ts';
import { ManualClock } from '../../../lib/clock.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

test('keys that others may read, exchange, or own: with what to type', async () => {
  const key = '/etc/netbus/pki/host.key';
  await expect('keys', 'error', /mode 0644/, /^chmod 0600 \/etc\/netbus\/pki\/host\.key$/, (host) =>
    host.change(key, { mode: 0o644 }),
  );
  await expect('keys', 'error', /user 1000/, /^chown 0 /, (host) => host.change(key, { uid: 1000 }));
  await expect('keys', 'error', /host\.key .* is not there/, /^put it back from a backup/, (host) => host.remove(key));
  await expect('keys', 'error', /others may exchange/, /^chmod go-w \/etc\/netbus\/pki$/, (host) =>
    host.change('/etc/netbus/pki', { mode: 0o777 }),
  );
  await expect('keys', 'error', /issuing key\) has mode 0604/, /chmod 0600/, (host) =>
    host.file('/etc/netbus/pki/issuing.key', '', { mode: 0o604 }),
  );
  await expect('keys', 'skipped', /cannot be looked at/, /root/, (host) => host.change(key, { error: 'EACCES' }));
});

test('the root key', async () => {
  const path = '/etc/netbus/pki/ca.key';
  await expect('root key', 'hint', /is on this host/, /safe place.*delete/, (host) => host.file(path, '', { mode: 0o600 }));
  await expect('root key', 'hint', /is on this host/, /safe place.*delete/, (host) => {
    host.file(path, '', { mode: 0o600 });
    host.file('/etc/netbus/pki/issuing.key', '', { mode: 0o600 });
  });
  await expect('root key', 'error', /mode 0644/, /chmod 0600/, (host) => host.file(path, ''));
  await expect('root key', 'skipped', /EACCES/, /root/, (host) => host.file(path, '', { error: 'EACCES' }));
});

test('days left, expired, not yet valid, of another host, and what the daemon would refuse', async () => {
  const clock = new ManualClock();
  const authority = await issueAuthority({ cluster: 'lab', clock });
  const own = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });
  const other = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });
  const at = (days: number) => (host: FakeHost) => {
    host.file('/etc/netbus/pki/ca.crt', authority.certificate);
    host.file('/etc/netbus/pki/host.crt', own.certificate);
    host.now = clock.wallTime() + days * DAY_MS;
  };
  await expect('certificates', 'ok', /valid until 2026-01-31, 29 days/, undefined, at(0.5));
  await expect('certificates', 'ok', /10 days/, undefined, at(19.5));
  await expect('certificates', 'warning', /9 days/, /netbus members/, at(20.5));
  await expect('certificates', 'error', /this host's certificate expired on 2026-01-31/, /new one/, (host) => {
    at(31)(host);
    host.identity = new NetbusError('config', 'expired: do this');
  });
  // A host's own is renewed by its daemon; the issuing one is behind it in the file, and needs the root key.
  const [ownPem, issuingPem] = [other.certificate, own.certificate];
  await expect(
    'certificates',
    'warning',
    /the issuing certificate is valid until 2026-01-31/,
    /root key.*issuing\.crt/,
    (host) => {
      at(20.5)(host);
      host.file('/etc/netbus/pki/host.crt', `${ownPem}${issuingPem}`);
    },
  );
  await expect(
    'certificates',
    'error',
    /the CA certificate is valid from 2025-12-31 on, and here it is 2025-12-2/,
    /clock/,
    at(-5),
  );
  await expect('certificates', 'error', /is for m1 of lab, and the config is for m2 of lab/, /correct/, (host) => {
    at(0)(host);
    host.file('/etc/netbus/netbus.yaml', CONFIG.replace('host: m1', 'host: m2'));
  });
  const refused = await expect('certificates', 'error', /^host\.crt was not issued by the CA$/, /^take both$/, (host) => {
    at(0)(host);
    host.identity = new NetbusError('config', 'host.crt was not issued by the CA: take both');
  });
  assert.equal(refused.ok, false);
  await expect('certificates', 'error', /ca\.crt .* is not there/, /^copy it from another host/, (host) =>
    host.remove('/etc/netbus/pki/ca.crt'),
  );
  await expect('certificates', 'error', /ca\.crt .* is not there/, /netbus join/, (host) => {
    for (const name of ['ca.crt', 'host.crt', 'host.key']) host.remove(`/etc/netbus/pki/${name}`);
  });
  await expect('certificates', 'skipped', /cannot be read/, /root/, (host) => {
    host.change('/etc/netbus/pki/host.crt', { error: 'EACCES' });
    host.identity = new NetbusError('config', 'may not be read');
  });
});
