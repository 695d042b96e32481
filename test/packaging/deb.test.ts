/** The Debian package: what is in it, what lintian says, and its life on a Debian: install, upgrade, remove, purge. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Cleanup } from '../support/cleanup.ts';
import { run, runOk } from '../support/process.ts';
import { NOT_POSSIBLE_HERE } from '../support/skip.ts';
import { DebianRoot, debianRootProblem } from './debian-root.ts';
import { makeImage, startService, useDisk } from './installed.ts';

const MAKE_DEB = fileURLToPath(new URL('../../scripts/make-deb.ts', import.meta.url));
const WANTS = '/etc/systemd/system/multi-user.target.wants/netbusd.service';

const cleanup = new Cleanup();
let folder: string;
let deb: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nb-deb-'));
  cleanup.add(folder, () => rmSync(folder, { recursive: true }));
  deb = (await runOk([process.execPath, '--import', import.meta.resolve('tsx'), MAKE_DEB, folder])).trim();
});
after(() => cleanup.run());

/** The same package with a higher version. */
async function nextVersion(): Promise<string> {
  const tree = join(folder, 'next');
  await runOk(['dpkg-deb', '--raw-extract', deb, tree]);
  const control = join(tree, 'DEBIAN', 'control');
  writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, 'Version: 99.0'));
  const file = join(folder, 'next.deb');
  await runOk(['dpkg-deb', '--root-owner-group', '--build', tree, file]);
  return file;
}

test('lintian is quiet', async () => {
  assert.match(basename(deb), /^netbus_[0-9.~a-z]+_[a-z0-9]+\.deb$/);
  const { status, stdout } = await run(['lintian', '--allow-root', '--fail-on', 'error,warning', deb], { timeoutMs: 300_000 });
  assert.equal(stdout, '');
  assert.equal(status, 0);
});

test('it holds what a host needs, and its daemon serves a disk', async () => {
  const tree = join(folder, 'tree');
  mkdirSync(tree);
  await runOk(['dpkg-deb', '--extract', deb, tree]);
  const has = ['lib/systemd/system/netbusd.service', 'usr/lib/sysusers.d/netbus.conf', 'usr/lib/tmpfiles.d/netbus.conf'];
  const pages = ['man1/netbus.1.gz', 'man5/netbus.yaml.5.gz', 'man8/netbusd.8.gz'].map((page) => `usr/share/man/${page}`);
  const documents = ['copyright', 'changelog.gz', 'licences.txt.gz', 'README.md'].map((name) => `usr/share/doc/netbus/${name}`);
  for (const path of [...has, ...pages, ...documents]) assert.ok(existsSync(join(tree, path)), path);
  assert.match(readFileSync(join(tree, 'usr/lib/netbus/netbus.js'), 'utf8'), /^#!\/usr\/bin\/node\n/);

  // As it is called there, but with the Node of this test: the machine's may be at another place.
  const service = await startService([process.execPath, join(tree, 'usr/sbin/netbusd')], cleanup);
  await useDisk([process.execPath, join(tree, 'usr/bin/netbus')], service, makeImage(service.host));
  await service.daemon.stop();
});

describe('its life on a Debian', async () => {
  const problem = await debianRootProblem();
  const options = problem === undefined ? {} : { skip: `${NOT_POSSIBLE_HERE}${problem}` };
  let debian: DebianRoot;
  before(async () => {
    if (problem === undefined) debian = await DebianRoot.start(cleanup);
  });

  const has = (path: string) => existsSync(debian.path(path));
  /** Link or file, wherever a link leads. */
  const hasEntry = async (path: string) => (await debian.run('sh', '-c', `[ -e ${path} ] || [ -L ${path} ]`)).status === 0;
  /** What the service was asked for; the rest of systemctl's calls are questions and reloads. */
  const actions = async () =>
    (await debian.systemctlCalls()).flatMap((call) => /\b(start|stop|restart)\b.*\bnetbusd\.service\b/.exec(call)?.[1] ?? []);

  test('install: the group, the folder, the service enabled and started once', options, async () => {
    await debian.install(deb);
    assert.match(await debian.runOk('getent', 'group', 'netbus'), /^netbus:/);
    const { mode } = statSync(debian.path('/run/netbus'));
    assert.equal(mode & 0o7777, 0o755);
    assert.equal(await debian.runOk('readlink', WANTS), '/lib/systemd/system/netbusd.service\n');
    assert.deepEqual(await actions(), ['start']);
    const version = await debian.runOk('netbus', '--version');
    assert.match(version, /^\d+\.\d+\.\d+/);
    assert.equal(await debian.runOk('netbusd', '--version'), version);
    const { status, stderr } = await debian.run('netbusd');
    assert.match(stderr, /^netbus: there is no config file \/etc\/netbus\/netbus\.yaml/);
    assert.equal(status, 3);
  });

  test('the unit is what systemd understands', options, async () => {
    const { status, stdout, stderr } = await debian.run('systemd-analyze', 'verify', '--man=yes', 'netbusd.service');
    assert.equal(stdout + stderr, '');
    assert.equal(status, 0);
  });

  test('upgrade: the state stays, one restart, and what was disabled is not enabled', options, async () => {
    await debian.runOk('sh', '-c', 'mkdir -p /etc/netbus/pki /var/lib/netbus/exports && echo a >/etc/netbus/netbus.yaml');
    await debian.runOk('sh', '-c', 'echo key >/etc/netbus/pki/host.key && echo {} >/var/lib/netbus/exports/data.json');
    await actions();
    const next = await nextVersion();
    await debian.install(next);
    assert.deepEqual(await actions(), ['restart']);
    for (const path of ['/etc/netbus/netbus.yaml', '/etc/netbus/pki/host.key', '/var/lib/netbus/exports/data.json']) {
      assert.ok(has(path), path);
    }
    await debian.runOk('rm', WANTS);
    await debian.install(next);
    assert.equal(await hasEntry(WANTS), false);
    await actions();
  });

  test('remove: stopped, programs gone, configuration and state kept', options, async () => {
    await debian.runOk('dpkg', '--remove', 'netbus');
    assert.deepEqual(await actions(), ['stop']);
    for (const path of ['/usr/bin/netbus', '/usr/sbin/netbusd', '/usr/lib/netbus', '/lib/systemd/system/netbusd.service']) {
      assert.equal(await hasEntry(path), false, path);
    }
    for (const path of ['/etc/netbus/netbus.yaml', '/etc/netbus/pki/host.key', '/var/lib/netbus/exports/data.json']) {
      assert.ok(has(path), path);
    }
  });

  test('purge: nothing is left but the group', options, async () => {
    await debian.runOk('dpkg', '--purge', 'netbus');
    for (const path of ['/etc/netbus', '/var/lib/netbus', '/run/netbus', WANTS, '/etc/systemd/system/netbusd.service']) {
      assert.equal(await hasEntry(path), false, path);
    }
    const left = await debian.runOk('find', '/etc', '/usr/lib/systemd', '/var/lib/systemd', '-name', '*netbus*');
    assert.equal(left, '');
    assert.match(await debian.runOk('getent', 'group', 'netbus'), /^netbus:/);
  });
});
