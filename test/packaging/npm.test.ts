/** The npm package: made from the sources as `npm pack` makes it, installed as a user installs it, and put to use. */

import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import packageJson from '../../package.json' with { type: 'json' };
import { Cleanup } from '../support/cleanup.ts';
import { type RunResult, run, runOk } from '../support/process.ts';
import { makeImage, startService, useDisk } from './installed.ts';

const SOURCE = fileURLToPath(new URL('../..', import.meta.url));
/** What a clean clone does not have. */
const NOT_CLONED = ['.git', '.cache', 'node_modules', 'dist', 'native/build'];
/** All that a user gets; whatever else is in the package is there by mistake. */
const FILES = [
  /^package\.json$/,
  /^(?:README|ARCHITECTURE|CHANGELOG|CONTRIBUTING)\.md$/,
  /^LICENSE$/,
  /^dist\/(?:netbus\.js|netbus\.node|licences\.txt)$/,
  /^dist\/chunks\/[a-z]+-[A-Z0-9]{8}\.js$/,
  /^dist\/man\/[a-z.]+\.[158]$/,
  /^docs\/[a-z0-9/-]+\.md$/,
  /^examples\/libvirt\/netbus$/,
  /^packaging\/systemd\/(?:netbusd\.service|sysusers\.conf|tmpfiles\.conf)$/,
];
/** Scripts that npm would run at the user's side. */
const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall'];
const PACK_MS_MAX = 300_000;

const cleanup = new Cleanup();
let prefix: string;
let files: string[];
let installed: RunResult;

before(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nb-npm-'));
  cleanup.add(folder, () => rmSync(folder, { recursive: true }));
  const clone = join(folder, 'clone');
  cpSync(SOURCE, clone, { recursive: true, filter: (path) => !NOT_CLONED.includes(relative(SOURCE, path)) });
  // As "npm ci" would leave them, without the network.
  symlinkSync(realpathSync(join(SOURCE, 'node_modules')), join(clone, 'node_modules'));
  await runOk(['npm', 'pack', '--pack-destination', folder], { cwd: clone, timeoutMs: PACK_MS_MAX });
  const tarball = join(folder, `netbus-${packageJson.version}.tgz`);
  files = (await runOk(['tar', '--list', '--gzip', '--file', tarball]))
    .trim()
    .split('\n')
    .map((path) => path.replace(/^package\//, ''));
  prefix = join(folder, 'prefix');
  mkdirSync(prefix);
  // Offline: there is nothing to fetch, because the package needs no other one.
  const options = ['--global', '--ignore-scripts', '--offline', '--no-audit', '--no-fund', '--prefix', prefix];
  installed = await run(['npm', 'install', ...options, tarball], { timeoutMs: PACK_MS_MAX });
});
after(() => cleanup.run());

const bin = (name: string) => join(prefix, 'bin', name);

test('the package holds what a user needs and nothing else', () => {
  assert.deepEqual(
    files.filter((file) => !FILES.some((pattern) => pattern.test(file))),
    [],
  );
  for (const { source } of FILES)
    assert.ok(
      files.some((file) => new RegExp(source).test(file)),
      source,
    );
});

test('it installs without scripts, network or other packages', () => {
  assert.equal(installed.status, 0, installed.stderr);
  const own = JSON.parse(readFileSync(join(prefix, 'lib/node_modules/netbus/package.json'), 'utf8')) as Record<string, object>;
  for (const kind of ['dependencies', 'optionalDependencies', 'peerDependencies']) assert.equal(own[kind], undefined, kind);
  for (const script of INSTALL_SCRIPTS) assert.equal(Object.hasOwn(own.scripts, script), false, script);
});

test('netbus and netbusd are there, with their manual pages', async () => {
  assert.equal(await runOk([bin('netbus'), '--version']), `${packageJson.version}\n`);
  assert.equal(await runOk([bin('netbusd'), '--version']), `${packageJson.version}\n`);
  const help = await runOk([bin('netbus'), 'daemon', '--help']);
  assert.match(help, /--config <file>/);
  assert.equal(await runOk([bin('netbusd'), '--help']), help);
  for (const [section, page] of [
    ['1', 'netbus'],
    ['5', 'netbus.yaml'],
    ['8', 'netbusd'],
  ]) {
    const path = await runOk(['man', '--manpath', join(prefix, 'share/man'), '--where', section, page]);
    assert.match(path, new RegExp(`/${page.replace('.', '\\.')}\\.${section}\\n$`));
  }
});

test('the daemon that was installed serves a disk', async () => {
  const service = await startService([bin('netbusd')], cleanup);
  await useDisk([bin('netbus')], service, makeImage(service.host));
  assert.equal((await service.daemon.stop()).status, 0);
});
