/** Hosts that are not as they should be: the wrong user, two daemons on one folder, a full /var. One line says what to do, and nothing breaks. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Devices, Status } from '../../src/api/types.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import { type Host, hostKind } from '../support/hosts.ts';
import { run, runOk } from '../support/process.ts';
import { assertFails } from '../support/program.ts';

const MIB = 1024 * 1024;
const cleanup = new Cleanup();
const { kind, reason } = await hostKind();
const skip = kind === 'namespace' ? false : `needs hosts with mounts of their own: ${reason}`;
let cluster: Cluster;
let m1: Host;

/** The state folder of m1 is a small filesystem of its own. */
before(async () => {
  if (skip) return;
  cluster = await startCluster(['m1', 'm2'], { cleanup, start: false });
  m1 = cluster.host('m1');
  const script = `mount -t tmpfs -o size=256k,nr_inodes=200,mode=0700 tmpfs ${m1.stateDir}`;
  await runOk(m1.command(['sh', '-c', script]));
  await cluster.startDaemon(m1);
  await cluster.startDaemon(cluster.host('m2'));
});
after(() => cleanup.run());

function makeImage(name: string): string {
  const path = join(m1.folder, name);
  writeFileSync(path, '');
  truncateSync(path, MIB);
  return path;
}

const fill = () => run(m1.command(['dd', 'if=/dev/zero', `of=${m1.stateDir}/fill`, 'bs=4k']));
const makeRoom = () => runOk(m1.command(['rm', `${m1.stateDir}/fill`]));

/** Names of files in m1's state folder that begin as temporaries do. */
function temporaries(): string[] {
  const files = readdirSync(m1.path(m1.stateDir), { recursive: true }) as string[];
  return files.filter((file) => file.includes('.tmp-'));
}

describe('a full /var', { skip }, () => {
  test('what must be stored is refused with what to do, leaves nothing, and works once there is room', async () => {
    await cluster.ask('m1', 'export', 'first', '--disk', makeImage('first.img'), '--allow', 'm2');
    await fill();
    const second = ['export', 'second', '--disk', makeImage('second.img'), '--allow', 'm2'];
    assertFails(
      await cluster.netbus('m1', ...second),
      1,
      /second\.json cannot be stored, the filesystem is full: make room there \(df /,
    );
    assertFails(await cluster.netbus('m2', 'attach', 'm1/first', '--vm', 'web'), 1, /cannot be stored, the filesystem is full/);
    assert.deepEqual((await cluster.ask<Status>('m2', 'status')).attachments, []);
    const { exports } = await cluster.ask<Status>('m1', 'status');
    assert.deepEqual(
      exports.map(({ name, attachments }) => [name, attachments]),
      [['first', []]],
    );
    assert.deepEqual(temporaries(), []);
    await makeRoom();
    await cluster.ask('m1', ...second);
    await cluster.ask('m2', 'attach', 'm1/first', '--vm', 'web');
  });

  test('taking back needs no room, and a daemon that is started there serves what it has', async () => {
    await fill();
    await cluster.ask('m1', 'unexport', 'second');
    await fill();
    await cluster.stopDaemon(m1);
    await cluster.startDaemon(m1);
    const { devices } = await cluster.ask<Devices>('m2', 'ls');
    assert.deepEqual(
      devices.map(({ host, name, usedBy }) => [`${host}/${name}`, usedBy]),
      [['m1/first', ['m2:web/first']]],
    );
    await cluster.ask('m2', 'detach', 'web/first');
    await cluster.ask('m1', 'unexport', 'first');
    await makeRoom();
  });
});

describe('two daemons', { skip }, () => {
  test('on one state folder, with different run folders: the second is refused and says which process has it', async () => {
    const argv = ['daemon', '--config', cluster.configPath(m1), '--run-dir', join(m1.folder, 'other-run')];
    const pid = cluster.daemon('m1').pid;
    const second = await run(m1.command([...netbusProgram(), ...argv]));
    assertFails(second, 4, /the state folder \/var\/lib\/netbus is in use by another daemon \(process \d+\): stop that one/);
    assert.match(second.stderr, new RegExp(`process ${pid}\\)`));
    assert.equal((await cluster.netbus('m1', 'status')).status, 0);
  });

  test('on one run folder, and on one port', async () => {
    const other = ['--state-dir', join(m1.folder, 'other-state')];
    const argv = [...netbusProgram(), 'daemon', '--config', cluster.configPath(m1), ...other];
    assertFails(await run(m1.command(argv)), 4, /the run folder \/run\/netbus is in use by another daemon/);
    const elsewhere = await run(m1.command([...argv, '--run-dir', join(m1.folder, 'other-run')]));
    assert.match(elsewhere.stderr, /^netbus: .*7443.*in use/m);
    assert.equal(elsewhere.status, 4);
    assert.equal((await cluster.netbus('m1', 'status')).status, 0);
  });
});

describe('the wrong user', { skip }, () => {
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];

  test("a verb: the daemon's socket is not for everybody", async () => {
    const { stderr, stdout, status } = await run(m1.command([...nobody, ...netbusProgram(), 'status']), { cwd: '/' });
    assertFails(
      { stderr, stdout, status, signal: undefined },
      6,
      /may not use .*netbus\.sock: run this as root, or as a user of the group netbus/,
    );
  });

  test('a daemon: the key, then the state folder, in one line each', async () => {
    const folder = join(m1.folder, 'nobody');
    mkdirSync(folder);
    const path = join(folder, 'netbus.yaml');
    const text = readFileSync(cluster.configPath(m1), 'utf8').replaceAll('pki/', '../pki/');
    writeFileSync(path, text);
    // The way there, and the file itself.
    for (const each of [join(m1.folder, '..'), m1.folder, folder]) chmodSync(each, 0o755);
    const argv = [...nobody, ...netbusProgram(), 'daemon', '--config', path];
    assertFails(
      await run(m1.command(argv), { cwd: '/' }),
      2,
      /host\.key .* may not be read by this user: correct its owner or mode, or run this as root/,
    );
    const key = join(folder, 'host.key');
    writeFileSync(key, readFileSync(join(m1.folder, 'pki', 'host.key')));
    await runOk(['chown', '65534', key]);
    chmodSync(key, 0o600);
    writeFileSync(path, text.replace('../pki/host.key', 'host.key'));
    assertFails(
      await run(m1.command(argv), { cwd: '/' }),
      6,
      /the state folder \/var\/lib\/netbus may not be used by user 65534: run the daemon as root/,
    );
  });
});
