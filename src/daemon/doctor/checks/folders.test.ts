/** What the doctor says of the state folder and the run folder. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expect } from '../../../../test/support/doctor.ts';
import { CONFIG, type FakeHost, systemError } from '../../../../test/support/fake-host.ts';
import { newAdmission } from '../../../directory/admission.ts';
import type { Identity } from '../../../directory/identity.ts';
import { issueIssuing, issueRoot } from '../../../directory/identity-issue.ts';
import { createMemberList } from '../../../directory/member-list.ts';
import { signMemberList } from '../../../directory/member-list-signature.ts';
import { ManualClock } from '../../../lib/clock.ts';

test('a full /var: by its numbers, by its inodes, and by trying', async () => {
  await expect('state folder', 'error', /0 bytes free .* no export, attachment or lease/, /df \/var\/lib\/netbus/, (host) =>
    host.setSpace('/var/lib/netbus', { freeBytes: 0 }),
  );
  await expect('state folder', 'warning', /20 MiB free/, /make room/, (host) =>
    host.setSpace('/var/lib/netbus', { freeBytes: 20 * 1024 ** 2 }),
  );
  await expect('state folder', 'error', /0 of 2000 inodes/, /df -i/, (host) =>
    host.setSpace('/var/lib/netbus', { freeInodes: 0 }),
  );
  await expect('state folder', 'ok', /free of/, undefined, (host) =>
    host.setSpace('/var/lib/netbus', { freeInodes: 0, totalInodes: 0 }),
  );
  const advice = { ENOSPC: /df/, EDQUOT: /df/, EROFS: /findmnt/, EACCES: /owner or mode/, EIO: /dmesg/ };
  for (const [error, text] of Object.entries(advice)) {
    const diagnosis = await expect('state folder', 'error', /nothing can be written|cannot be looked at/, text, (host) => {
      host.tryWrite = () => Promise.reject(systemError(error));
    });
    assert.equal(diagnosis.ok, false);
  }
});

test("state folder: missing, somebody else's, open to others, no folder, with damaged records", async () => {
  await expect('state folder', 'hint', /not there yet/, /makes it/, (host) => {
    host.stopDaemon();
    host.remove('/var/lib/netbus');
  });
  await expect('state folder', 'error', /is gone, and the daemon runs/, /unmounted/, (host) => host.remove('/var/lib/netbus'));
  await expect('state folder', 'error', /user 1000, and the daemon is user 0/, /chown -R 0/, (host) =>
    host.change('/var/lib/netbus', { uid: 1000 }),
  );
  await expect('state folder', 'warning', /mode 0755/, /chmod 0700/, (host) => host.change('/var/lib/netbus', { mode: 0o755 }));
  await expect('state folder', 'error', /not a folder/, /stateDir/, (host) => host.file('/var/lib/netbus', ''));
  await expect('state folder', 'warning', /data\.json\.damaged-2026/, /backup/, (host) => {
    host.folder('/var/lib/netbus/exports');
    host.file('/var/lib/netbus/exports/data.json.damaged-2026', '');
  });
  await expect('state folder', 'skipped', /another user's/, /root/, (host) => (host.user = { uid: 1000, groups: [998] }));
  await expect('state folder', 'skipped', /EACCES/, /root/, (host) => host.change('/var/lib/netbus', { error: 'EACCES' }));
});

test('member list: its serial beside it is missing, nonsense, behind, ahead; no list at all', async () => {
  const clock = new ManualClock();
  const root = await issueRoot({ cluster: 'lab', clock });
  const issuing = await issueIssuing({ root, cluster: 'lab', clock });
  const folder = '/var/lib/netbus/directory';
  const make = (serial: number) => (host: FakeHost) => {
    host.file('/etc/netbus/netbus.yaml', CONFIG.slice(0, CONFIG.indexOf('hosts:')));
    host.identity = { ...(host.identity as Identity), ca: root.certificate };
    const m1 = { host: 'm1', address: '10.0.0.1:7443', admission: newAdmission(), now: clock.wallTime() };
    const list = { ...createMemberList('lab', m1), serial };
    host.folder(folder);
    host.file(`${folder}/members.copy`, Buffer.from(signMemberList(list, issuing).bytes).toString());
    host.file(`${folder}/members.serial`, '7\n');
  };
  const changed = (serial: number, change: (host: FakeHost) => void) => (host: FakeHost) => {
    make(serial)(host);
    change(host);
  };
  const path = `${folder}/members.serial`;
  await expect('member list', 'ok', /has serial 7, and so says/, undefined, make(7));
  await expect(
    'member list',
    'warning',
    /not there: were the list lost/,
    /restart/,
    changed(7, (host) => host.remove(path)),
  );
  const before = changed(7, (host) => {
    host.remove(path);
    host.stopDaemon();
  });
  await expect('member list', 'ok', /makes .*members\.serial when it starts/, undefined, before);
  await expect(
    'member list',
    'warning',
    /no serial in it/,
    /restart/,
    changed(7, (host) => host.file(path, 'x')),
  );
  await expect('member list', 'warning', /says 7, and the list has serial 8/, /restart/, make(8));
  await expect('member list', 'warning', /has serial 6, and this host had 7 once/, /copy members\.list/, make(6));
  const lost = changed(7, (host) => host.file(`${folder}/members.copy`, '{}'));
  await expect('member list', 'error', /no member list that can be used/, /copy members\.list/, lost);
  const closed = changed(7, (host) => host.change(`${folder}/members.copy`, { error: 'EACCES' }));
  await expect('member list', 'skipped', /EACCES/, /root/, closed);
});

test('run folder', async () => {
  await expect('run folder', 'hint', /not there yet/, /makes it/, (host) => {
    host.stopDaemon();
    host.remove('/run/netbus');
  });
  await expect('run folder', 'error', /not there, and the daemon runs/, /restart/, (host) => host.remove('/run/netbus'));
  await expect('run folder', 'error', /no virtual device gets its socket/, /df/, (host) =>
    host.setSpace('/run/netbus', { freeBytes: 0 }),
  );
  await expect('run folder', 'error', /netbus\.sock is not a socket/, /remove/, (host) =>
    host.file('/run/netbus/netbus.sock', ''),
  );
  await expect('run folder', 'hint', /was left/, /replaces/, (host) => (host.daemon = undefined));
});
