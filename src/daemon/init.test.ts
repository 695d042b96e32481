import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { type networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadIdentity, loadIssuing } from '../directory/identity.ts';
import { SignedDirectory } from '../directory/signed-directory.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { loadConfig, parseConfig } from './config.ts';
import { configText } from './config-text.ts';
import { openDirectory } from './directory.ts';
import { lockFolder } from './folder-lock.ts';
import { type InitOptions, initCluster } from './init.ts';
import { chooseOwnAddress } from './own-address.ts';

const base = await mkdtemp(join(tmpdir(), 'netbus-init-'));
after(() => rm(base, { recursive: true }));
const clock = new ManualClock();

function options(name: string): InitOptions & { root: string; config: string; stateDir: string } {
  const root = join(base, name);
  return {
    root,
    cluster: 'lab',
    host: 'm1',
    address: '10.0.0.1',
    config: join(root, 'etc', 'netbus.yaml'),
    stateDir: join(root, 'var'),
    runDir: join(root, 'run'),
    clock,
  };
}

async function all(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true }).catch(() => [])).sort();
}

test('a cluster of one host: everything that its daemon needs', async () => {
  const given = options('one');
  const answer = await initCluster(given);
  const config = loadConfig(given.config);
  assert.deepEqual(
    { cluster: config.cluster, host: config.host, listen: config.listen, hosts: config.hosts },
    {
      cluster: 'lab',
      host: 'm1',
      listen: { host: '0.0.0.0', port: 7443 },
      hosts: undefined,
    },
  );
  const identity = await loadIdentity(config.pki, clock);
  assert.deepEqual([identity.cluster, identity.host], ['lab', 'm1']);
  const directory = await openDirectory(config, identity, { clock, log: silentLog });
  assert.ok(directory instanceof SignedDirectory);
  assert.deepEqual([...directory.members().keys()], ['m1']);
  assert.equal(directory.list()?.list.issuer, 'm1');
  assert.equal(directory.admits('m1', identity), undefined);
  assert.notEqual(await loadIssuing({ ca: config.pki.ca, ...config.pki.issuing }, 'lab', clock), undefined);
  const fingerprint = new X509Certificate(identity.ca).fingerprint256.replaceAll(':', '').toLowerCase();
  assert.equal(answer.caFingerprint, fingerprint);
  assert.deepEqual(await all(given.root), [
    'etc',
    'etc/netbus.yaml',
    'etc/pki',
    'etc/pki/ca.crt',
    'etc/pki/ca.key',
    'etc/pki/host.crt',
    'etc/pki/host.key',
    'etc/pki/issuing.crt',
    'etc/pki/issuing.key',
    'var',
    'var/directory',
    'var/directory/members.copy',
    'var/directory/members.list',
    // Once it was opened.
    'var/directory/members.serial',
  ]);
  for (const name of ['ca.key', 'host.key', 'issuing.key']) {
    assert.equal((await stat(join(given.root, 'etc/pki', name))).mode & 0o777, 0o600);
  }
  assert.equal((await stat(join(given.root, 'etc/pki'))).mode & 0o777, 0o700);

  // The root's key may be gone: nothing that a running cluster does needs it.
  await rm(answer.rootKey);
  await loadIdentity(config.pki, clock);
  await loadIssuing({ ca: config.pki.ca, ...config.pki.issuing }, 'lab', clock);
});

test('what is there is not overwritten', async () => {
  const given = options('again');
  await initCluster(given);
  const before = await Promise.all(
    (await all(given.root)).map(async (path) => [path, (await stat(join(given.root, path))).ino]),
  );
  await assert.rejects(initCluster(given), {
    code: 'in_use',
    message: /etc\/pki\/ca\.crt is there already, and nothing is overwritten: this host was set up before; to begin anew, stop/,
  });
  const now = await Promise.all((await all(given.root)).map(async (path) => [path, (await stat(join(given.root, path))).ino]));
  assert.deepEqual(now, before);

  // A config alone is enough, and so is the state of another cluster.
  const other = options('again-2');
  await initCluster({ ...other, config: join(other.root, 'elsewhere', 'netbus.yaml') });
  await assert.rejects(initCluster(other), { code: 'in_use', message: /members\.list is there already/ });
  assert.ok(!(await all(other.root)).includes('etc'));
});

test('a failure at any step leaves nothing', async () => {
  const names: string[] = [];
  await initCluster({ ...options('count'), step: (name) => names.push(name) });
  for (const [i, name] of names.entries()) {
    const given = options(`failure-${i}`);
    let at = 0;
    const step = () => {
      if (at++ === i) throw new Error('as a test wants it');
    };
    await assert.rejects(initCluster({ ...given, step }), /as a test wants it/);
    assert.deepEqual(await all(given.root), [], name);
  }
});

test('names and addresses are checked before anything is made', async () => {
  const given = options('names');
  for (const name of ['', 'Lab', 'a/b', '..', 'x'.repeat(64)]) {
    await assert.rejects(initCluster({ ...given, cluster: name }), { code: 'usage', message: /cannot name a cluster/ });
    await assert.rejects(initCluster({ ...given, host: name }), { code: 'usage', message: /cannot name a host/ });
  }
  await assert.rejects(initCluster({ ...given, address: '10.0.0.300' }), { code: 'usage', message: /is not an address/ });
  await assert.rejects(initCluster({ ...given, address: '10.0.0.1:70000' }), {
    code: 'usage',
    message: /"10\.0\.0\.1:70000" is not an address: .*\(port 1 to 65535, 7443 by default\)$/,
  });
  assert.deepEqual(await all(given.root), []);
});

test('a daemon that runs on the state folder is not disturbed', async () => {
  const given = options('running');
  const { release } = await lockFolder(given.stateDir, 'state folder', 0o700);
  try {
    await assert.rejects(initCluster(given), { code: 'in_use', message: /is in use by another daemon/ });
  } finally {
    await release();
  }
  await initCluster(given);
});

test('a user without the right to write is told in one line', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can become another user: run this test as root');
  const given = options('denied');
  process.seteuid?.(65534);
  try {
    await assert.rejects(initCluster(given), {
      code: 'denied',
      message: /cannot be made by this user \(EACCES\): run this as root$/,
    });
  } finally {
    process.seteuid?.(0);
  }
});

type Interfaces = ReturnType<typeof networkInterfaces>;

function interfaces(addresses: Record<string, string[]>): Interfaces {
  const entries = Object.entries(addresses).map(([name, list]) => [
    name,
    list.map((address) => ({ address, internal: name === 'lo', family: address.includes(':') ? 'IPv6' : 'IPv4' })),
  ]);
  return Object.fromEntries(entries) as Interfaces;
}

test("the host's address is its only one, or people say which", () => {
  const loopback = { lo: ['127.0.0.1', '::1'] };
  assert.equal(chooseOwnAddress(interfaces({ ...loopback, eth0: ['10.0.0.1', 'fe80::1'] })), '10.0.0.1');
  assert.equal(chooseOwnAddress(interfaces({ ...loopback, eth0: ['10.0.0.1', 'fd00::1', 'fd00::2'] })), '10.0.0.1');
  assert.equal(chooseOwnAddress(interfaces({ ...loopback, eth0: ['fd00::1', 'fe80::1'] })), '[fd00::1]');
  assert.throws(() => chooseOwnAddress(interfaces({ ...loopback, eth0: ['10.0.0.1'], eth1: ['10.1.0.1', 'fd00::1'] })), {
    code: 'usage',
    message:
      'this host has several addresses, 10.0.0.1 (eth0), 10.1.0.1 (eth1), [fd00::1] (eth1): say where other hosts reach this one: --address ADDRESS[:PORT]',
  });
  assert.throws(() => chooseOwnAddress(interfaces({ ...loopback, eth0: ['169.254.3.4'] })), {
    code: 'usage',
    message: /no address of its own/,
  });
});

test('the config text is a config, with its comments taken away, too', async () => {
  const text = (file: string, address: string, port: number) =>
    configText({
      file,
      cluster: 'lab',
      host: 'm1',
      address: { host: address, port },
      runDir: '/run/netbus',
      stateDir: '/var/lib/netbus',
    });
  const usual = text('/etc/netbus/netbus.yaml', '10.0.0.1', 7443);
  assert.equal(usual.split('\n').filter((line) => line !== '' && !line.startsWith('#')).length, 2);
  const config = parseConfig('/etc/netbus/netbus.yaml', usual);
  assert.deepEqual(config.pki.issuing, { certificate: '/etc/netbus/pki/issuing.crt', key: '/etc/netbus/pki/issuing.key' });
  // Every line that could be a setting, as if each default were said.
  const said = usual.replace(/^# ((?: {2})?[a-z]\w*:.*)$/gm, '$1').replace(/^#.*$/gm, '');
  const { hosts, ...rest } = parseConfig('/etc/netbus/netbus.yaml', said);
  assert.deepEqual([...hosts!.keys()], ['m1', 'other']);
  // Its default is what is there on the host.
  assert.deepEqual({ ...rest, deviceGroup: undefined }, (({ hosts: _, ...defaults }) => defaults)(config));
  assert.equal(rest.deviceGroup, 'kvm');

  const other = parseConfig('/srv/a b/x.yaml', text('/srv/a b/x.yaml', 'fd00::1', 9000));
  assert.deepEqual(other.listen, { host: '::', port: 9000 });
  assert.equal(other.pki.key, '/srv/a b/pki/host.key');
});

test('without hosts in the config and without a list there is nobody: the daemon says what to do', async () => {
  const given = options('nobody');
  await initCluster(given);
  await rm(join(given.stateDir, 'directory'), { recursive: true });
  const config = loadConfig(given.config);
  const identity = await loadIdentity(config.pki, clock);
  await assert.rejects(openDirectory(config, identity, { clock, log: silentLog }), {
    code: 'config',
    message: /has no member list: run "netbus init" or "netbus join", copy the file from another host/,
  });
  await writeFile(given.config, `${await readFile(given.config, 'utf8')}\nhosts: { m1: { address: 10.0.0.1 } }\n`);
  const named = await openDirectory(loadConfig(given.config), identity, { clock, log: silentLog });
  assert.equal(named.list(), undefined);
});
