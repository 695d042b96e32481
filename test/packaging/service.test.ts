/** The daemon under a service manager: what it says to it, and that the unit lets it do its work. */

import assert from 'node:assert/strict';
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Cleanup } from '../support/cleanup.ts';
import { netbusProgram } from '../support/cluster.ts';
import { Datagrams } from '../support/datagrams.ts';
import { makeLoopDevice } from '../support/loop-device.ts';
import { runOk } from '../support/process.ts';
import { NOT_POSSIBLE_HERE } from '../support/skip.ts';
import { waitFor } from '../support/wait.ts';
import { makeImage, type Service, startService, useDisk } from './installed.ts';

const UNIT = fileURLToPath(new URL('../../packaging/systemd/netbusd.service', import.meta.url));
/** Beats come in half of it; short, so that the test has some. */
const WATCHDOG_MICROSECONDS = 200_000;
/** Any user but root. */
const NOBODY = 65534;
const DEVICE_BYTES = 4 * 1024 * 1024;

const daemonProgram = () => [...netbusProgram(), 'daemon'];

describe('what the service manager hears', () => {
  const cleanup = new Cleanup();
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nb-notify-'));
    cleanup.add(folder, () => rmSync(folder, { recursive: true }));
  });
  after(() => cleanup.run());

  for (const [form, name] of [
    ['a path', () => join(folder, 'notify')],
    ['an abstract name', () => `@netbus-notify-${process.pid}`],
  ] as const) {
    test(`READY, then WATCHDOG again and again, then STOPPING, through ${form}`, async () => {
      const socket = name();
      const datagrams = await Datagrams.listen(socket, cleanup);
      const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: String(WATCHDOG_MICROSECONDS) };
      const { cluster, daemon } = await startService(daemonProgram(), cleanup, { env, waits: false });
      await datagrams.waitFor('READY', (datagram) => datagram.startsWith('READY=1\n'), 60_000);
      assert.equal((await cluster.client('m1').status()).host, 'm1', 'it can be asked');
      const beats = () => datagrams.received.filter((datagram) => datagram === 'WATCHDOG=1\n').length;
      await waitFor('some beats', () => beats() >= 3, 60_000);
      daemon.signal('SIGTERM');
      assert.equal((await daemon.exited).status, 0);

      const kinds = datagrams.received.map((datagram) => datagram.split('=')[0]);
      assert.equal(kinds[0], 'READY');
      assert.equal(kinds.filter((kind) => kind === 'READY').length, 1);
      const end = kinds.indexOf('STOPPING');
      assert.ok(end > 3, 'the beats come before the end');
      assert.deepEqual(new Set(kinds.filter((_, index) => index !== 0 && index !== end)), new Set(['WATCHDOG']));
      assert.match(datagrams.received[0]!, /^STATUS=host m1 of cluster lab, listening at 127\.0\.0\.2:\d+$/m);
    });
  }

  test('a start that fails says why, and is never READY', async () => {
    const socket = join(folder, 'failing');
    const datagrams = await Datagrams.listen(socket, cleanup);
    const { host, cluster, daemon: first } = await startService(daemonProgram(), cleanup);
    const second = host.spawn([...netbusProgram(), ...cluster.daemonArguments(host)], { env: { NOTIFY_SOCKET: socket } });
    assert.equal((await second.exited).status, 4);
    const status = await datagrams.waitFor('STATUS', () => true);
    assert.match(status, /^STATUS=the state folder .* is in use by another daemon/);
    assert.deepEqual(datagrams.received, [status]);
    await first.stop();
  });
});

describe('the unit', () => {
  const unit = readFileSync(UNIT, 'utf8');
  const setting = (name: string): string => {
    const found = new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1];
    assert.ok(found !== undefined, `the unit has no ${name}`);
    return found;
  };

  test('reaches what it must', () => {
    assert.equal(setting('Type'), 'notify');
    for (const family of ['AF_UNIX', 'AF_INET', 'AF_INET6'])
      assert.ok(setting('RestrictAddressFamilies').includes(family), family);
    for (const call of ['io_uring_setup', 'io_uring_enter']) assert.ok(setting('SystemCallFilter').includes(call), call);
    // Folders with images, devices, and V8's own code.
    for (const name of [
      'MemoryDenyWriteExecute',
      'ProtectHome',
      'PrivateTmp',
      'PrivateDevices',
      'PrivateNetwork',
      'ProcSubset',
    ]) {
      assert.doesNotMatch(unit, new RegExp(`^${name}=`, 'm'));
    }
  });

  const asRoot = process.geteuid?.() === 0 ? {} : { skip: `${NOT_POSSIBLE_HERE}only root has capabilities to leave out` };

  test('its capabilities are enough for images of others and block devices', asRoot, async (context) => {
    const capabilities = setting('CapabilityBoundingSet')
      .split(' ')
      .map((name) => `+${name.replace(/^CAP_/, '').toLowerCase()}`);
    const restricted = ['setpriv', '--no-new-privs', '--inh-caps=-all', `--bounding-set=-all,${capabilities.join(',')}`, '--'];
    const cleanup = new Cleanup();
    context.after(() => cleanup.run());
    const service: Service = await startService([...restricted, ...daemonProgram()], cleanup);
    const status = readFileSync(`/proc/${service.daemon.pid}/status`, 'latin1');
    assert.match(status, /^NoNewPrivs:\s*1$/m);
    const held = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]}`);
    assert.equal(held.toString(2).replaceAll('0', '').length, capabilities.length, 'it has those of the unit and no other');

    const image = makeImage(service.host);
    chownSync(image, NOBODY, NOBODY);
    chmodSync(image, 0o600);
    await useDisk(netbusProgram(), service, image);
    const env = { NETBUS_RUN_DIR: service.host.runDir };
    await waitFor('the VM to be gone', async () => !(await service.cluster.client('m1').status()).attachments[0]?.connected);
    await runOk([...netbusProgram(), 'detach', 'web/data'], { env });
    await runOk([...netbusProgram(), 'unexport', 'data'], { env });

    const device = await makeLoopDevice(DEVICE_BYTES);
    if (device === undefined) return context.diagnostic('without a block device: there are no loop devices here');
    cleanup.add('the loop device', device.remove);
    await useDisk(netbusProgram(), service, device.path);
    await service.daemon.stop();
    assert.ok(existsSync(device.path));
  });
});
