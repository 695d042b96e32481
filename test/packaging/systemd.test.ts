/** The service under a real systemd: a guest boots this machine's Debian, in which our package was installed. */

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Guest, startGuest } from '../guest/guest.ts';
import { Cleanup } from '../support/cleanup.ts';
import { runOk } from '../support/process.ts';
import { NOT_POSSIBLE_HERE } from '../support/skip.ts';
import { DebianRoot, debianRootProblem } from './debian-root.ts';

const MAKE_DEB = fileURLToPath(new URL('../../scripts/make-deb.ts', import.meta.url));
/** The unit has a minute, which is long to wait for; a daemon that is merely slow is not taken for hung by this either. */
const WATCHDOG_SECONDS = 10;
/** Generous: they end a test that hangs. An emulated Node on a busy machine takes half a minute to start. */
const WAIT_SECONDS_MAX = 180;
const COMMAND_MS_MAX = 200_000;

/** The target has what our unit asks for and little else; the clock and devices of this guest need no care. */
const BOOT = ['systemd.unit=guest.target', 'systemd.wants=netbusd.service', 'systemd.show_status=1', 'fstab=no'];
const MASKED = ['systemd-udev-trigger.service', 'systemd-udevd.service', 'systemd-timesyncd.service', 'timers.target'];

describe('the service under systemd', async () => {
  const problem = await debianRootProblem();
  const options = problem === undefined ? {} : { skip: `${NOT_POSSIBLE_HERE}${problem}` };
  const cleanup = new Cleanup();
  let guest: Guest;
  before(async () => {
    if (problem !== undefined) return;
    const folder = mkdtempSync(join(tmpdir(), 'nb-systemd-'));
    cleanup.add(folder, () => rmSync(folder, { recursive: true }));
    const debian = await installed(folder);
    const socket = join(folder, 'root');
    await debian.share(socket, cleanup);
    guest = await startGuest({
      name: 'm1',
      cleanup,
      memoryMiB: 768,
      cpus: 2,
      root: 'debian',
      append: [...BOOT, ...MASKED.map((unit) => `systemd.mask=${unit}`)].join(' '),
      arguments: ['-chardev', `socket,id=root,path=${socket}`, '-device', 'vhost-user-fs-pci,chardev=root,tag=debian'],
    });
  });
  after(() => cleanup.run());

  /** A Debian with our package, and a cluster of this one host; what can be done without a guest is done without one. */
  async function installed(folder: string): Promise<DebianRoot> {
    const deb = (await runOk([process.execPath, '--import', import.meta.resolve('tsx'), MAKE_DEB, folder])).trim();
    const debian = await DebianRoot.start(cleanup);
    await debian.install(deb);
    await debian.runOk('netbus', 'init', '--cluster', 'lab', '--host', 'm1', '--address', '127.0.0.1');
    await debian.runOk('mv', '/usr/bin/systemctl.real', '/usr/bin/systemctl');
    const dropIns = debian.path('/etc/systemd/system/netbusd.service.d');
    mkdirSync(dropIns);
    writeFileSync(join(dropIns, 'test.conf'), `[Service]\nWatchdogSec=${WATCHDOG_SECONDS}s\n`);
    return debian;
  }

  const property = (name: string) => guest.succeed(`systemctl show netbusd --value --property ${name}`);
  const waitUntil = (condition: string) =>
    guest.succeed(
      `i=0; until ${condition}; do i=$((i + 1)); [ $i -lt ${WAIT_SECONDS_MAX} ] || { journalctl -u netbusd; exit 1; }; sleep 1; done`,
      { timeoutMs: COMMAND_MS_MAX },
    );

  test('systemd starts it, and hears when it is ready', options, async () => {
    assert.equal(await guest.succeed('cat /proc/1/comm'), 'systemd');
    // Of Type=notify: it is active once READY=1 has come.
    await guest.succeed('systemctl start netbusd', { timeoutMs: COMMAND_MS_MAX });
    assert.equal(await property('Type'), 'notify');
    assert.equal(await property('ActiveState'), 'active');
    assert.match(await property('StatusText'), /^host m1 of cluster lab, listening at 127\.0\.0\.1:7443$/);
    assert.match(await guest.succeed('journalctl --unit netbusd --output cat'), /"msg":"daemon ready"/);
  });

  test('sandboxed, it serves a disk to a VM of the same host', options, async () => {
    const netbus = (words: string) => guest.succeed(`netbus ${words} --json`, { timeoutMs: COMMAND_MS_MAX });
    await guest.succeed('truncate -s 4M /srv/data.img');
    const exported = JSON.parse(await netbus('export data --disk /srv/data.img --allow m1')) as { state: string };
    assert.equal(exported.state, 'ready');
    const { socket } = JSON.parse(await netbus('attach m1/data --vm web')) as { socket: string };
    await guest.succeed(`test -S ${socket}`);
    assert.equal(await guest.succeed('stat -c "%a %U %G" /run/netbus/netbus.sock'), '660 root netbus');
  });

  test('a daemon that hangs is ended by the watchdog and started again', options, async () => {
    const pid = await property('MainPID');
    await guest.succeed(`kill -STOP ${pid}`);
    await waitUntil(`[ "$(systemctl show netbusd --value -p MainPID)" != ${pid} ] && systemctl --quiet is-active netbusd`);
    assert.ok(Number(await property('NRestarts')) > 0);
    assert.match(await guest.succeed('journalctl --unit netbusd --output cat'), /Watchdog timeout/);
    // Its attachment is there again.
    await guest.succeed('test -S /run/netbus/web/data.sock');
  });

  test('it is stopped in order, and says so', options, async () => {
    await guest.succeed('systemctl stop netbusd', { timeoutMs: COMMAND_MS_MAX });
    assert.equal(await property('ActiveState'), 'inactive');
    assert.equal(await property('Result'), 'success');
    assert.match(await guest.succeed('journalctl --unit netbusd --output cat'), /"msg":"daemon stopped"/);
  });
});
