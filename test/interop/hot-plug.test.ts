/** What can be wrong with a running QEMU, asked with real ones that run no guest: each is told in one line, and nothing is left behind. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { AttachmentEntry } from '../../src/api/types.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { QmpConnection } from '../../src/vmm/qmp-connection.ts';
import { exportEmptyDisk } from '../guest/attached.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import type { RunningProcess } from '../support/process.ts';
import { assertFails } from '../support/program.ts';
import { waitFor, waitForListener } from '../support/wait.ts';

const ID = 'nb-web-disk';
const SHARED = ['-m', '64M', '-object', 'memory-backend-memfd,id=mem,size=64M,share=on'];
const Q35 = ['-machine', 'q35,memory-backend=mem', ...SHARED];
const PORT = ['-device', 'pcie-root-port,id=port1,chassis=1'];

const cleanup = new Cleanup();
let cluster: Cluster;
let m2: Host;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  m2 = cluster.host('m2');
  await exportEmptyDisk(cluster, 'm1', 'disk', { sizeMiB: 8, allow: ['m2'] });
});
after(() => cleanup.run());

/** QEMU with two monitors: one for netbus, one for the test. */
interface Machine {
  readonly process: RunningProcess;
  /** The path of netbus's monitor. */
  readonly path: string;
  readonly monitor: QmpConnection;
}

let machine: Machine | undefined;
let number = 0;

async function startQemu(...argv: readonly string[]): Promise<Machine> {
  const path = join(m2.folder, `qmp-${number}`);
  const own = join(m2.folder, `test-${number++}`);
  const monitors = [path, own].flatMap((socket) => ['-qmp', `unix:${socket},server=on,wait=off`]);
  const fixed = ['-accel', 'tcg', '-display', 'none', '-nodefaults', '-no-user-config', ...monitors];
  const process = m2.spawn(['qemu-system-x86_64', ...fixed, ...argv]);
  await waitForListener(own, process.pid, 30_000).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${process.stderr}`);
  });
  const monitor = await QmpConnection.open({ path: m2.path(own), clock: systemClock, greetingMs: 30_000 });
  machine = { process, path, monitor };
  return machine;
}

afterEach(async () => {
  machine?.monitor.close();
  await machine?.process.stop();
  machine = undefined;
});

const attach = (path: string, ...more: readonly string[]) =>
  cluster.netbus('m2', 'attach', 'm1/disk', '--vm', 'web', '--qmp', path, ...more);
const detach = (...more: readonly string[]) => cluster.netbus('m2', 'detach', 'web/disk', ...more);
const attachments = async () => (await cluster.client('m2').status()).attachments.map(({ vm, name }) => `${vm}/${name}`);

async function chardevs(): Promise<string[]> {
  if (machine === undefined || machine.process.ended) return [];
  const answer = (await machine.monitor.execute('query-chardev')) as { label: string }[];
  return answer.map(({ label }) => label).filter((label) => label.startsWith('nb-'));
}

async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(await attachments(), []);
  assert.deepEqual(await chardevs(), []);
}

describe('a monitor that cannot be used', () => {
  test('the human one', async () => {
    const path = join(m2.folder, 'human');
    await startQemu(...Q35, '-S', '-monitor', `unix:${path},server=on,wait=off`);
    assertFails(await attach(path), 1, /is no QMP socket: .*QEMU \d/);
    await assertNothingLeft();
  });

  test('one that another program has open', async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S');
    const other = await QmpConnection.open({ path: m2.path(path), clock: systemClock });
    assertFails(await attach(path), 7, /did not greet within 5 s: another program \(libvirt/);
    await assertNothingLeft();
    other.close();
    assert.equal((await attach(path)).status, 0);
    assert.equal((await detach('--force')).status, 0);
  });

  test('none, and one of a QEMU that has ended', async () => {
    assertFails(await attach('/run/none.qmp'), 3, /no QMP socket \/run\/none\.qmp/);
    const { path, process } = await startQemu(...Q35, ...PORT, '-S');
    process.signal('SIGKILL');
    await process.exited;
    assert.equal(existsSync(m2.path(path)), true);
    assertFails(await attach(path), 5, /nobody listens at .*QEMU has ended/);
    await assertNothingLeft();
  });
});

describe('a machine without a place', () => {
  for (const [what, places, message] of [
    ['no port', [], /no free hot-pluggable PCIe port \(it has none\).*-device pcie-root-port,id=nb-port,chassis=1\n/],
    [
      'ports that are in use or fixed',
      [...PORT, '-device', 'virtio-rng-pci,bus=port1', '-device', 'pcie-root-port,id=port2,chassis=2,hotplug=off'],
      /\(2 in all; made with hotplug=off: port2\).*chassis=3\n/,
    ],
  ] as const) {
    test(what, async () => {
      const { path } = await startQemu(...Q35, ...places, '-S');
      assertFails(await attach(path), 1, message);
      await assertNothingLeft();
    });
  }

  test('pc with a full bus', async () => {
    const slots = Array.from({ length: 30 }, () => ['-device', 'virtio-rng-pci']).flat();
    const { path } = await startQemu('-machine', 'pc,memory-backend=mem', ...SHARED, ...slots, '-S');
    assertFails(await attach(path), 1, /no free PCI slot.*-device pci-bridge,id=nb-bridge,chassis_nr=1/);
    await assertNothingLeft();
  });

  test('pc with a full bus and a bridge: the bridge', async () => {
    const slots = Array.from({ length: 29 }, () => ['-device', 'virtio-rng-pci']).flat();
    const bridge = ['-device', 'pci-bridge,id=bridge,chassis_nr=1'];
    const { path } = await startQemu('-machine', 'pc,memory-backend=mem', ...SHARED, ...bridge, ...slots, '-S');
    const attached = await attach(path);
    assert.match(attached.stdout, /, at bridge\n/, attached.stderr);
    assert.equal((await detach('--force')).status, 0);
  });

  test('the place that the user named', async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-device', 'pcie-root-port,id=port2,chassis=2', '-S');
    assertFails(await attach(path, '--bus', 'port9'), 3, /no PCI bus "port9".*free: port1, port2/);
    const attached = await attach(path, '--bus', 'port2');
    assert.match(attached.stdout, /at port2\n/, attached.stderr);
    assertFails(await attach(path, '--bus', 'port2', '--as', 'second'), 4, /PCI bus port2 is in use; free: port1/);
    assert.equal((await detach('--force')).status, 0);
  });
});

describe('memory that is not shared', () => {
  for (const [what, argv, message] of [
    [
      'without a backend',
      ['-machine', 'q35', '-m', '64M'],
      /memory backend pc\.ram has share=off.*memory-backend-memfd,id=mem,size=SIZE,share=on/,
    ],
    [
      'a memfd of its own',
      ['-machine', 'q35,memory-backend=mem', '-m', '64M', '-object', 'memory-backend-memfd,id=mem,size=64M,share=off'],
      /backend mem has share=off/,
    ],
    [
      'anonymous memory',
      ['-machine', 'q35,memory-backend=mem', '-m', '64M', '-object', 'memory-backend-ram,id=mem,size=64M,share=on'],
      /memory-backend-ram, which nobody else can map/,
    ],
  ] as const) {
    test(what, async () => {
      const { path } = await startQemu(...argv, ...PORT, '-S');
      assertFails(await attach(path), 2, message);
      await assertNothingLeft();
    });
  }
});

describe('a machine that is in the way', () => {
  test('a device or a chardev with the id', async () => {
    const { path, monitor } = await startQemu(...Q35, ...PORT, '-device', `pcie-root-port,id=${ID},chassis=9`, '-S');
    assertFails(await attach(path), 4, /has a device nb-web-disk already/);
    assert.equal((await attach(path, '--as', 'other')).status, 0);
    assert.equal((await cluster.netbus('m2', 'detach', 'web/other', '--force')).status, 0);
    await monitor.execute('chardev-add', { id: 'nb-web-more', backend: { type: 'null', data: {} } });
    assertFails(await attach(path, '--as', 'more'), 4, /has a chardev nb-web-more already/);
  });

  test('a name that the VM has already', async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S');
    await cluster.ask('m2', 'attach', 'm1/disk', '--vm', 'web');
    assertFails(await attach(path), 4, /VM web has a device disk already/);
    assert.deepEqual(await chardevs(), []);
    assert.deepEqual(await attachments(), ['web/disk'], 'it is not taken away by the attempt');
    assert.equal((await detach()).status, 0);
  });

  test('a machine that waits for a migration, and one that was shut down', async () => {
    const waiting = await startQemu(...Q35, ...PORT, '-incoming', 'defer');
    assertFails(await attach(waiting.path), 1, /its state is "inmigrate".*wait until the migration is over/);
    await assertNothingLeft();
    waiting.monitor.close();
    await waiting.process.stop();
    const down = await startQemu(...Q35, ...PORT, '-no-reboot', '-no-shutdown');
    const events = down.monitor.events();
    await down.monitor.execute('system_reset');
    await events.find(({ name }) => name === 'SHUTDOWN', { timeoutMs: 30_000 });
    assertFails(await attach(down.path), 1, /its state is "shutdown"/);
    await assertNothingLeft();
  });

  test('another VM: a warning', async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S', '-name', 'db');
    const { status, stderr } = await attach(path);
    assert.equal(status, 0);
    assert.match(stderr, /calls its VM "db", not "web"/);
    assert.equal((await detach('--force')).status, 0);
  });

  test('a QEMU that may not use the socket', {
    skip: process.getuid?.() === 0 ? false : 'needs root, to give QEMU another user',
  }, async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S', '-runas', 'nobody');
    assertFails(await attach(path), 5, /QEMU could not connect to .*disk\.sock within 5 s: its user needs the rights/);
    await assertNothingLeft();
  });
});

describe('an end in the middle', () => {
  test('Ctrl-C while QEMU connects: everything is taken back', {
    skip: process.getuid?.() === 0 ? false : 'needs root, to give QEMU another user',
  }, async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S', '-runas', 'nobody');
    const env = m2.kind === 'namespace' ? {} : { NETBUS_RUN_DIR: m2.runDir };
    const verb = m2.spawn([...netbusProgram(), 'attach', 'm1/disk', '--vm', 'web', '--qmp', path], { env });
    await waitFor('the chardev', async () => (await chardevs()).length === 1, 30_000);
    verb.signal('SIGINT');
    assert.deepEqual(await verb.exited, { status: 130, signal: undefined });
    assert.equal(verb.stderr, 'netbus: interrupted\n');
    await assertNothingLeft();
  });

  test('a guest that does not let go: detach says so, and the disk stays', async () => {
    const { path, process: qemu } = await startQemu(...Q35, ...PORT);
    assert.equal((await attach(path)).status, 0);
    for (let attempt = 0; attempt < 2; attempt++) {
      assertFails(
        await detach('--qmp', path, '--timeout', '0.3'),
        7,
        /did not let go of nb-web-disk within 0\.3 s: its operating system/,
      );
    }
    assert.deepEqual(await attachments(), ['web/disk']);
    assert.deepEqual(await chardevs(), [ID]);
    const env = m2.kind === 'namespace' ? {} : { NETBUS_RUN_DIR: m2.runDir };
    const verb = m2.spawn([...netbusProgram(), 'detach', 'web/disk', '--qmp', path, '--timeout', '600'], { env });
    await waitFor('netbus to have the monitor', () => connections(qemu, path) > 0, 30_000);
    verb.signal('SIGTERM');
    assert.deepEqual(await verb.exited, { status: 130, signal: undefined });
    assert.match(verb.stderr, /^netbus: interrupted: web\/disk stays attached/);
    assert.equal((await cluster.netbus('m2', 'detach', 'web/disk')).status, 4, 'it is still connected');
    // A QEMU that ends lets go of everything; its monitor tells nobody any more.
    qemu.signal('SIGKILL');
    await qemu.exited;
    assertFails(await detach('--qmp', path), 5, /QEMU has ended/);
    await cluster.waitForAttachment('m2', 'web/disk', ({ connected }) => !connected);
    assert.equal((await detach()).status, 0);
  });

  test('a disk that QEMU does not have is detached, with a word', async () => {
    const { path } = await startQemu(...Q35, ...PORT, '-S');
    await cluster.ask('m2', 'attach', 'm1/disk', '--vm', 'web');
    const { status, stderr } = await detach('--qmp', path);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /warning: the QEMU at .* did not have it/);
    assertFails(await detach('--qmp', path), 3, /VM web has no device disk/);
    assertFails(await detach('--qmp', path, '--timeout', '-1'), 2, /number of seconds/);
  });
});

test("what attach prints for QMP, pasted into QEMU's monitor, plugs the disk in", async () => {
  const { monitor } = await startQemu(...Q35, ...PORT, '-S');
  const text = await cluster.netbus('m2', 'attach', 'm1/disk', '--vm', 'web', '--format', 'qmp', '--bus', 'port1');
  for (const line of text.stdout.split('\n').filter((candidate) => candidate.startsWith('{'))) {
    const { execute, arguments: parameters } = JSON.parse(line) as { execute: string; arguments: Record<string, unknown> };
    await monitor.execute(execute, parameters);
  }
  await cluster.waitForAttachment('m2', 'web/disk', ({ connected }: AttachmentEntry) => connected);
  assertFails(
    await cluster.netbus('m2', 'attach', 'm1/disk', '--vm', 'web', '--qmp', 'x', '--format', 'qmp'),
    2,
    /--qmp.*cannot be used with.*--format/,
  );
  assert.equal((await detach('--force')).status, 0);
});

/** Open ends of a unix socket's path, the listener left out. */
function connections(qemu: RunningProcess, path: string): number {
  const table = readFileSync(`/proc/${qemu.pid}/net/unix`, 'utf8');
  return table.split('\n').filter((line) => line.endsWith(` ${path}`) && line.split(/\s+/)[5] === '03').length;
}
