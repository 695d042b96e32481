/** What the doctor says of the config, of who asks, and of the daemon. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expect } from '../../../../test/support/doctor.ts';
import { CONFIG, type FakeHost } from '../../../../test/support/fake-host.ts';
import { NetbusError } from '../../../device/errors.ts';

test("the group of the devices' sockets, and libvirt's QEMU", async () => {
  const groups = (more: string) => (host: FakeHost) => host.file('/etc/group', `root:x:0:\nnetbus:x:998:\n${more}`);
  const libvirt = (primary: number) => (host: FakeHost) =>
    host.file('/etc/passwd', `libvirt-qemu:x:64055:${primary}::/:/bin/false\n`);
  const config = (group: string) => (host: FakeHost) =>
    host.file('/etc/netbus/netbus.yaml', `${CONFIG}deviceGroup: ${group}\n`);
  const all =
    (...changes: ((host: FakeHost) => void)[]) =>
    (host: FakeHost) => {
      for (const change of changes) change(host);
    };
  await expect('device group', 'ok', /daemon's user's alone/, undefined, groups(''));
  await expect('device group', 'ok', /for the group kvm/, undefined, all(groups('kvm:x:107:\n'), libvirt(107)));
  await expect(
    'device group',
    'ok',
    /for the group disks/,
    undefined,
    all(groups('disks:x:7:libvirt-qemu\n'), config('disks'), libvirt(107)),
  );
  await expect(
    'device group',
    'hint',
    /libvirt-qemu.*not in the group disks/,
    /usermod -aG disks libvirt-qemu/,
    all(groups('disks:x:7:\n'), config('disks'), libvirt(107)),
  );
  await expect(
    'device group',
    'error',
    /netbus\.yaml: deviceGroup: there is no group "kmv"/,
    /groupadd --system kmv/,
    config('kmv'),
  );
  await expect(
    'device group',
    'ok',
    /daemon's user's alone/,
    undefined,
    all(groups('kvm:x:107:\n'), (host) => host.change('/proc/42', { uid: 998 })),
  );
});

test('each mistake of the config, with its line', async () => {
  const diagnosis = await expect('config', 'error', /netbus\.yaml:2: .*did you mean "host"/, /restart/, (host) =>
    host.file('/etc/netbus/netbus.yaml', CONFIG.replace('host:', 'hots:').replace('10.0.0.2', '10.0.0')),
  );
  assert.equal(diagnosis.checks.filter(({ check }) => check === 'config').length, 2);
  await expect('config', 'skipped', /cannot be read/, /root/, (host) =>
    host.change('/etc/netbus/netbus.yaml', { error: 'EACCES' }),
  );
});

test('who asks', async () => {
  const as = (uid: number, groups: number[]) => (host: FakeHost) => (host.user = { uid, groups });
  await expect('user', 'ok', /user 1000, of the group netbus/, undefined, as(1000, [998]));
  await expect('user', 'warning', /alice was put into the group/, /newgrp netbus/, as(1000, [1000]));
  await expect('user', 'warning', /bob is not in the group/, /usermod -aG netbus bob/, as(1001, [1001]));
  await expect('user', 'warning', /there is no group netbus/, /groupadd/, (host) => {
    host.user = { uid: 1001, groups: [] };
    host.file('/etc/group', 'root:x:0:\n');
  });
  await expect('user', 'error', /everybody may command/, /chmod 0660/, (host) =>
    host.change('/run/netbus/netbus.sock', { mode: 0o666 }),
  );
  await expect('user', 'hint', /root's alone/, /restart/, (host) => host.change('/run/netbus/netbus.sock', { gid: 0 }));
  await expect('user', 'hint', /runs as user 998/, /images/, (host) => host.change('/proc/42', { uid: 998 }));
});

test('the daemon: stopped, of another release, behind a socket that says no, something else', async () => {
  await expect('daemon', 'warning', /no daemon listens/, /systemctl start netbusd/, (host) => host.stopDaemon());
  await expect('daemon', 'warning', /this command is 2\.0\.0/, /restart the daemon/, (host) => (host.release = '2.0.0'));
  await expect('daemon', 'warning', /you may not use/, /root/, (host) => {
    host.daemon = new NetbusError('denied', 'you may not use the socket: run this as root');
  });
  await expect('daemon', 'error', /does not speak/, /without JSON/, (host) => {
    host.daemon = new NetbusError('protocol', 'it does not speak this: without JSON');
  });
});
