import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DOCTOR_OPTIONS } from '../../../test/support/doctor.ts';
import { FakeHost } from '../../../test/support/fake-host.ts';
import { diagnose } from './doctor.ts';

test('on a host where all is well nothing is to be done', async () => {
  const { ok, checks, results } = await diagnose(new FakeHost(), DOCTOR_OPTIONS);
  assert.equal(ok, true);
  const told = checks.filter(({ result }) => result !== 'ok');
  assert.deepEqual(told, []);
  assert.equal(results.ok, checks.length);
});

test('without daemon and config each check says why it could not be made, and none fails', async () => {
  const host = new FakeHost();
  host.stopDaemon();
  for (const path of ['/etc/netbus/netbus.yaml', '/etc/netbus/pki', '/var/lib/netbus', '/run/netbus']) host.remove(path);
  const { ok, checks, results } = await diagnose(host, DOCTOR_OPTIONS);
  assert.equal(ok, true);
  assert.equal(results.error, 0);
  for (const check of [
    'device group',
    'keys',
    'certificates',
    'root key',
    'port',
    'firewall',
    'member list',
    'members',
    'clock',
  ]) {
    assert.equal(checks.find((finding) => finding.check === check)?.result, 'skipped', check);
  }
  assert.match(checks.find(({ check }) => check === 'config')?.advice ?? '', /netbus init/);
});

test('a host that answers nothing at all: every check still says something', async () => {
  const host = new FakeHost();
  const broken = () => Promise.reject(new Error('broken'));
  for (const name of [
    'readText',
    'list',
    'stat',
    'readLink',
    'space',
    'tryWrite',
    'run',
    'loadAddon',
    'openIoUring',
    'status',
    'probe',
    'loadIdentity',
  ] as const) {
    host[name] = broken;
  }
  const { checks } = await diagnose(host, DOCTOR_OPTIONS);
  const names = new Set(checks.map(({ check }) => check));
  assert.equal(names.size, 21);
  assert.ok(checks.some(({ found }) => found === 'could not be checked: broken'));
});
