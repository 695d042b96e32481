/** The command line as a process, on two hosts with real daemons: what works, and what a user may get wrong. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { AttachmentEntry, Devices, ExportEntry, Status } from '../../src/api/types.ts';
import { issueAuthority } from '../../src/directory/identity-issue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { run, startProcess } from '../support/process.ts';
import { assertFails } from '../support/program.ts';
import { waitForListener } from '../support/wait.ts';

const MIB = 1024 * 1024;

const cleanup = new Cleanup();
let cluster: Cluster;
let m1: Host;
let m2: Host;

before(async () => {
  cluster = await startCluster(['m1', 'm2', 'm3'], { cleanup });
  [m1, m2] = [cluster.host('m1'), cluster.host('m2')];
});
after(() => cleanup.run());

function makeImage(name: string, bytes = 8 * MIB): string {
  const path = join(m1.folder, name);
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

test('a disk goes from export to attachment, and back', async () => {
  const disk = makeImage('story.img');
  const exported = await cluster.ask<ExportEntry>('m1', 'export', 'story', '--disk', disk, '--allow', 'm2');
  assert.equal(exported.device, disk);
  assert.equal(exported.capacityBytes, 8 * MIB);
  assert.equal(exported.state, 'ready');
  assert.deepEqual(exported.allow, ['m2']);
  assert.ok(exported.backend.engine, 'it says which engine does the I/O');

  const { devices, warnings } = await cluster.ask<Devices>('m2', 'ls');
  assert.deepEqual(warnings, []);
  const listed = devices.find(({ host, name }) => host === 'm1' && name === 'story');
  assert.equal(listed?.capacityBytes, 8 * MIB);
  assert.deepEqual(listed?.usedBy, []);

  const attached = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/story', '--vm', 'web', '--as', 'disk0');
  assert.equal(attached.device, 'm1/story');
  assert.equal(attached.local, false);
  assert.equal(attached.state, 'idle');
  assert.ok(attached.qemuArguments.some((argument) => argument.includes(attached.socket)));
  assert.ok(statSync(m2.path(attached.socket)).isSocket());

  const there = await cluster.ask<Status>('m1', 'status');
  assert.deepEqual(
    there.exports.find(({ name }) => name === 'story')?.attachments.map(({ host, vm, name }) => `${host}:${vm}/${name}`),
    ['m2:web/disk0'],
  );
  const here = await cluster.ask<Status>('m2', 'status');
  assert.deepEqual(
    here.attachments.map(({ vm, name }) => `${vm}/${name}`),
    ['web/disk0'],
  );
  assertFails(await cluster.netbus('m1', 'unexport', 'story'), 4, /attached/);

  assert.equal((await cluster.netbus('m2', 'detach', 'web/disk0')).stdout, 'web/disk0 is detached\n');
  assert.equal(existsSync(m2.path(attached.socket)), false);
  assert.equal((await cluster.netbus('m1', 'unexport', 'story')).stdout, 'story is no longer exported\n');
  assertFails(await cluster.netbus('m2', 'attach', 'm1/story', '--vm', 'web'), 3, /no export story/);
});

test('text for people: status and attach', async () => {
  const disk = makeImage('text.img');
  const text = await cluster.netbus('m1', 'export', 'text', '--disk', disk, '--allow', 'm2', '--read-only');
  assert.equal(text.stdout, `exported ${disk} as text: 8 MiB, read-only, for m2\n`);
  const attached = await cluster.netbus('m2', 'attach', 'm1/text', '--vm', 'reader');
  assert.match(attached.stdout, /^reader\/text is m1\/text: 8 MiB, read-only, remote$/m);
  assert.match(attached.stdout, /^ {2}-device vhost-user-blk-pci,/m);
  assert.match((await cluster.netbus('m1', 'status')).stdout, /^text +\S+text\.img +8 MiB +read-only +ready /m);
  assert.match((await cluster.netbus('m2', 'status')).stdout, /^reader\/text +m1\/text +8 MiB +read-only +idle /m);
  assert.match((await cluster.netbus('m2', 'ls')).stdout, /^m1\/text +disk +8 MiB +read-only +ready +m2:reader\/text$/m);
  await cluster.ask('m2', 'detach', 'reader/text');
  await cluster.ask('m1', 'unexport', 'text');
});

test('grow shows the new size of an image, and only upwards', async () => {
  const disk = makeImage('grown.img');
  await cluster.ask('m1', 'export', 'grown', '--disk', disk, '--allow', 'm2');
  await cluster.ask('m2', 'attach', 'm1/grown', '--vm', 'web');
  assert.deepEqual(await cluster.ask('m2', 'grow', 'web/grown'), { grown: false, capacityBytes: 8 * MIB });
  truncateSync(disk, 16 * MIB);
  assert.deepEqual(await cluster.ask('m2', 'grow', 'web/grown'), { grown: true, capacityBytes: 16 * MIB });
  truncateSync(disk, 8 * MIB);
  assert.deepEqual(await cluster.ask('m2', 'grow', 'web/grown'), { grown: false, capacityBytes: 16 * MIB });
  assertFails(await cluster.netbus('m2', 'grow', 'web/other'), 3, /no device other/);
  await cluster.ask('m2', 'detach', 'web/grown');
  await cluster.ask('m1', 'unexport', 'grown');
});

test('a relative path is meant from where the user stands', async () => {
  makeImage('relative.img');
  const program = netbusProgram().join(' ');
  const argv = m1.command([
    'sh',
    '-c',
    `cd ${m1.folder} && ${program} export relative --disk ./relative.img --allow m2 --json`,
  ]);
  const { stdout, status } = await run(argv, { env: { NETBUS_RUN_DIR: m1.runDir } });
  assert.equal(status, 0);
  assert.equal((JSON.parse(stdout) as ExportEntry).device, join(m1.folder, 'relative.img'));
  await cluster.ask('m1', 'unexport', 'relative');
});

describe('what a user may get wrong', () => {
  test('images that cannot be exported', async () => {
    mkdirSync(join(m1.folder, 'folder.img'));
    symlinkSync('nowhere', join(m1.folder, 'dangling.img'));
    const cases: [string, number, RegExp][] = [
      [join(m1.folder, 'missing.img'), 3, /missing\.img/],
      [join(m1.folder, 'dangling.img'), 3, /dangling\.img/],
      [join(m1.folder, 'folder.img'), 2, /director|folder/],
      [makeImage('empty.img', 0), 2, /empty/],
      [makeImage('odd.img', 1000), 2, /512/],
      ['/dev/null', 2, /\/dev\/null/],
    ];
    for (const [disk, status, message] of cases) {
      assertFails(await cluster.netbus('m1', 'export', 'bad', '--disk', disk, '--allow', 'm2'), status, message);
    }
    assert.deepEqual((await cluster.ask<Status>('m1', 'status')).exports, []);
  });

  test('an image that somebody else uses, by their lock or by another export', async () => {
    const disk = makeImage('locked.img');
    const qemu = startProcess(
      [
        ...['qemu-storage-daemon', '--blockdev', `driver=file,node-name=file,filename=${disk}`],
        ...['--nbd-server', `addr.type=unix,addr.path=${disk}.nbd`, '--export', 'type=nbd,id=disk,node-name=file,writable=on'],
      ],
      cleanup,
    );
    await waitForListener(`${disk}.nbd`, qemu.pid);
    assertFails(
      await cluster.netbus('m1', 'export', 'locked', '--disk', disk, '--allow', 'm2'),
      4,
      /qemu-storage-da.* \(pid \d+\)/,
    );
    await qemu.stop();
    await cluster.ask('m1', 'export', 'locked', '--disk', disk, '--allow', 'm2');
    assertFails(await cluster.netbus('m1', 'export', 'twice', '--disk', disk, '--allow', 'm2'), 4, /locked\.img/);
    await cluster.ask('m1', 'unexport', 'locked');
  });

  test('names: taken, with bad characters, too long', async () => {
    const [disk, other] = [makeImage('name.img'), makeImage('other.img')];
    const shared = ['--allow', 'm2', '--read-only'];
    await cluster.ask('m1', 'export', 'name', '--disk', disk, ...shared);
    assertFails(await cluster.netbus('m1', 'export', 'name', '--disk', other, ...shared), 4, /export name exists already/);
    for (const name of ['a b', '../a', '-a-', 'a/b', 'é', 'a'.repeat(64), '.']) {
      const argv = ['export', '--disk', other, ...shared, '--', name];
      assertFails(await cluster.netbus('m1', ...argv), 2, /name/);
    }
    const attached = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/name', '--vm', 'web');
    // The same once more tells the same again.
    assert.deepEqual(await cluster.ask('m2', 'attach', 'm1/name', '--vm', 'web'), attached);
    const taken = await cluster.netbus('m2', 'attach', 'm1/other', '--vm', 'web', '--as', 'name');
    assertFails(taken, 4, /VM web has a device name already/);
    assertFails(await cluster.netbus('m2', 'attach', 'm1/name', '--vm', 'a b'), 2, /name/);
    assertFails(await cluster.netbus('m2', 'attach', 'm1/name', '--vm', 'web', '--as', '..'), 2, /name/);
    await cluster.ask('m2', 'detach', 'web/name');
    await cluster.ask('m1', 'unexport', 'name');
  });

  test('things that are not there', async () => {
    assertFails(await cluster.netbus('m2', 'attach', 'm1/unknown', '--vm', 'web'), 3, /no export unknown/);
    assertFails(await cluster.netbus('m2', 'attach', 'm9/data', '--vm', 'web'), 3, /no host m9/);
    assertFails(await cluster.netbus('m2', 'detach', 'web/unknown'), 3, /no device unknown/);
    assertFails(await cluster.netbus('m1', 'unexport', 'unknown'), 3, /no export unknown/);
    assert.deepEqual((await cluster.ask<Status>('m2', 'status')).attachments, []);
  });

  test('a host that is not allowed, and a second VM on an exclusive disk', async () => {
    const disk = makeImage('mine.img');
    await cluster.ask('m1', 'export', 'mine', '--disk', disk, '--allow', 'm2');
    assertFails(await cluster.netbus('m3', 'attach', 'm1/mine', '--vm', 'web'), 6, /does not allow host m3/);
    assertFails(await cluster.netbus('m1', 'attach', 'm1/mine', '--vm', 'web'), 6, /does not allow host m1/);
    assert.ok(!(await cluster.ask<Devices>('m3', 'ls')).devices.some(({ name }) => name === 'mine'));
    const own = (await cluster.ask<Devices>('m1', 'ls')).devices.map(({ host, name }) => `${host}/${name}`);
    assert.deepEqual(own, ['m1/mine'], 'a host sees all that it exports, also what its own VMs may not use');
    await cluster.ask('m2', 'attach', 'm1/mine', '--vm', 'first');
    assertFails(await cluster.netbus('m2', 'attach', 'm1/mine', '--vm', 'second'), 4, /m2:first\/mine/);
    await cluster.ask('m2', 'detach', 'first/mine');
    await cluster.ask('m1', 'unexport', 'mine');
  });

  test('no daemon at the socket', async () => {
    assertFails(await cluster.netbus('m1', 'ls', '--run-dir', '/nonexistent'), 5, /systemctl start netbusd, or netbus daemon/);
  });

  test("the device's host does not answer", async () => {
    const disk = makeImage('away.img');
    await cluster.ask('m1', 'export', 'away', '--disk', disk, '--allow', 'm2');
    await cluster.stopDaemon(m1);
    assertFails(await cluster.netbus('m2', 'attach', 'm1/away', '--vm', 'web'), 5, /m1/);
    const { stdout, stderr, status } = await cluster.netbus('m2', 'ls');
    assert.doesNotMatch(stdout, /away/);
    assert.match(stderr, /^netbus: warning: .*m1/m);
    assert.equal(status, 0);
    await cluster.startDaemon(m1);
    // Exports survive restarts.
    await cluster.ask('m2', 'attach', 'm1/away', '--vm', 'web');
    await cluster.ask('m2', 'detach', 'web/away');
    await cluster.ask('m1', 'unexport', 'away');
  });

  test('a second daemon in the same folders', async () => {
    const second = await run(m1.command([...netbusProgram(), ...cluster.daemonArguments(m1)]));
    assert.equal(second.status, 4);
    assert.match(second.stderr, /netbus: .*in use by another daemon/);
    assert.equal((await cluster.netbus('m1', 'status')).status, 0);
  });
});

test('a daemon whose certificate is of another cluster gets nowhere', async () => {
  const disk = makeImage('guarded.img');
  await cluster.ask('m1', 'export', 'guarded', '--disk', disk, '--allow', 'm2,m3');
  const m3 = cluster.host('m3');
  await cluster.stopDaemon(m3);
  await cluster.configure(m3, await issueAuthority({ cluster: cluster.name, clock: systemClock }));
  await cluster.startDaemon(m3);
  const refused = await cluster.netbus('m3', 'attach', 'm1/guarded', '--vm', 'web');
  assertFails(refused, 6, /certificate/);
  await cluster.ask('m2', 'attach', 'm1/guarded', '--vm', 'web');
  await cluster.ask('m2', 'detach', 'web/guarded');
  await cluster.ask('m1', 'unexport', 'guarded');
});

test('mistakes of the config are told with file and line, and the daemon does not start', async () => {
  const text = readFileSync(cluster.configPath(m1), 'utf8');
  const path = join(m1.folder, 'broken.yaml');
  const cases: [string, number, RegExp][] = [
    [text.replace('host: m1', 'hots: m1'), 2, /broken\.yaml.*hots/],
    [text.replace(/listen: .*/, 'listen: 10.0.0.1:99999'), 2, /broken\.yaml:3.*99999/],
    [text.replace('host: m1', 'host: m9'), 2, /broken\.yaml:2.*m9/],
    [`${text}log: { level: loud }\n`, 2, /broken\.yaml:\d+.*loud|broken\.yaml:\d+.*level/],
    ['a: [', 2, /broken\.yaml/],
    ['', 2, /broken\.yaml/],
    [text.replace('pki/host.key', 'pki/none.key'), 2, /none\.key/],
    [text.replace('pki/host.key', 'pki/ca.crt'), 2, /ca\.crt/],
  ];
  for (const [broken, status, message] of cases) {
    writeFileSync(path, broken);
    const result = await run(m1.command([...netbusProgram(), 'daemon', '--config', path]));
    assert.match(result.stderr, message);
    assert.match(result.stderr, /^netbus: /m);
    assert.doesNotMatch(result.stderr, /^ +at /m);
    assert.equal(result.status, status);
  }
  rmSync(path);
  const missing = await run(m1.command([...netbusProgram(), 'daemon', '--config', path]));
  assertFails(missing, 3, /no config file/);
});

test('a run folder that is too long for sockets', async () => {
  const runDir = join(m1.folder, 'x'.repeat(100));
  mkdirSync(runDir);
  const argv = [...netbusProgram(), 'daemon', '--config', cluster.configPath(m1), '--run-dir', runDir];
  assertFails(await run(m1.command([...argv, '--state-dir', join(m1.folder, 'other-state')])), 2, /107/);
});

test('a port scanner on the bus does no harm', async () => {
  const disk = makeImage('scanned.img');
  await cluster.ask('m1', 'export', 'scanned', '--disk', disk, '--allow', 'm2');
  // Junk before, in and after the handshake of TLS, from a host of the network.
  const script = `
    const net = require('node:net');
    const junk = ['', 'GET / HTTP/1.0\\r\\n\\r\\n', Buffer.alloc(100000, 255), Buffer.from([22, 3, 1, 255, 255, 1]), Buffer.alloc(1)];
    let open = 0;
    for (let i = 0; i < 200; i++) {
      const socket = net.connect(7443, process.argv[1], () => { open++; socket.write(junk[i % junk.length]); if (i % 3 === 0) socket.destroy(); });
      socket.on('error', () => {});
    }
    setTimeout(() => { console.log('scanned ' + open); process.exit(0); }, 2000);`;
  const scan = run(m2.command([process.execPath, '-e', script, m1.address]));
  const attached = await cluster.ask<AttachmentEntry>('m2', 'attach', 'm1/scanned', '--vm', 'web');
  assert.equal(attached.capacityBytes, 8 * MIB);
  assert.match((await scan).stdout, /^scanned \d+/);
  await cluster.ask('m2', 'detach', 'web/scanned');
  await cluster.ask('m1', 'unexport', 'scanned');
  assert.equal(cluster.daemon('m1').ended, false);
});

test('junk at the control socket does no harm', async () => {
  const path = m1.path(join(m1.runDir, 'netbus.sock'));
  for (const junk of ['\0\0\0\0', 'GET', 'POST /v1/exports HTTP/1.1\r\ncontent-length: 5\r\nhost: a\r\n\r\n{"a":']) {
    await new Promise<void>((resolve) => {
      const socket = connect(path, () => socket.end(junk));
      socket.on('error', () => resolve());
      socket.on('close', () => resolve());
      socket.resume();
    });
  }
  assert.equal((await cluster.netbus('m1', 'status')).status, 0);
});

test('a daemon that is asked to end does so with 0, and takes its socket away', async () => {
  const m3 = cluster.host('m3');
  const daemon = cluster.daemon('m3');
  assert.deepEqual(await daemon.stop(), { status: 0, signal: undefined });
  assert.equal(existsSync(m3.path(join(m3.runDir, 'netbus.sock'))), false);
});
