import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CONFIG, FakeHost, systemError } from '../../../test/support/fake-host.ts';
import { NetbusError } from '../../device/errors.ts';
import { issueAuthority, issueHost } from '../../directory/identity-issue.ts';
import { ManualClock } from '../../lib/clock.ts';
import type { CheckOutcome } from './check.ts';
import { type Diagnosis, diagnose } from './doctor.ts';

const OPTIONS = { configFile: '/etc/netbus/netbus.yaml' };
const DAY_MS = 24 * 60 * 60 * 1000;

/** Changes a good host, and expects this of one check, with the advice; undefined where there is none. */
async function expect(
  check: string,
  result: CheckOutcome,
  found: RegExp,
  advice: RegExp | undefined,
  change: (host: FakeHost) => void,
): Promise<Diagnosis> {
  const host = new FakeHost();
  change(host);
  const diagnosis = await diagnose(host, OPTIONS);
  const all = diagnosis.checks.filter((finding) => finding.check === check);
  const match = all.find((finding) => finding.result === result && found.test(finding.found));
  assert.ok(match, `${check} says ${JSON.stringify(all)}`);
  if (advice === undefined) assert.equal(match.advice, undefined);
  else assert.match(match.advice ?? '', advice);
  for (const each of diagnosis.checks) {
    assert.doesNotMatch(`${each.found}${each.advice}`, /\n/);
    // Whoever is told that something is wrong is told what to do.
    if (each.result !== 'ok' && each.result !== 'skipped') assert.ok(each.advice, `${each.check}: ${each.found}`);
  }
  assert.equal(diagnosis.ok, diagnosis.results.error === 0);
  return diagnosis;
}

test('on a host where all is well nothing is to be done', async () => {
  const { ok, checks, results } = await diagnose(new FakeHost(), OPTIONS);
  assert.equal(ok, true);
  const told = checks.filter(({ result }) => result !== 'ok');
  assert.deepEqual(told, []);
  assert.equal(results.ok, checks.length);
});

test('without daemon and config each check says why it could not be made, and none fails', async () => {
  const host = new FakeHost();
  host.stopDaemon();
  for (const path of ['/etc/netbus/netbus.yaml', '/etc/netbus/pki', '/var/lib/netbus', '/run/netbus']) host.remove(path);
  const { ok, checks, results } = await diagnose(host, OPTIONS);
  assert.equal(ok, true);
  assert.equal(results.error, 0);
  for (const check of ['device group', 'keys', 'certificates', 'root key', 'port', 'firewall', 'members', 'clock']) {
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
  const { checks } = await diagnose(host, OPTIONS);
  const names = new Set(checks.map(({ check }) => check));
  assert.equal(names.size, 20);
  assert.ok(checks.some(({ found }) => found === 'could not be checked: broken'));
});

describe('the machine', () => {
  test('node', async () => {
    await expect('node', 'error', /20\.18\.1 is too old/, /20\.19\.0 or newer/, (host) => (host.nodeVersion = '20.18.1'));
  });
  test('kernel', async () => {
    await expect('kernel', 'error', /4\.4\.0 is too old/, /4\.7/, (host) => (host.kernel = '4.4.0'));
    await expect('kernel', 'hint', /5\.4\.0-1 has no io_uring/, /5\.6/, (host) => (host.kernel = '5.4.0-1'));
  });
  test('addon', async () => {
    await expect('addon', 'error', /wrong ELF class/, /x64/, (host) => (host.addonError = new Error('wrong ELF class')));
  });

  test('io_uring, with who forbids it', async () => {
    const forbid = (code: string, sysctl?: string, kernel?: string) => (host: FakeHost) => {
      host.ioUringError = systemError(code);
      if (sysctl !== undefined) host.file('/proc/sys/kernel/io_uring_disabled', `${sysctl}\n`);
      if (kernel !== undefined) host.kernel = kernel;
    };
    await expect('io_uring', 'hint', /io_uring_disabled is 2/, /sysctl -w/, forbid('EPERM', '2'));
    await expect('io_uring', 'hint', /seccomp/, /io_uring_setup/, forbid('EPERM', '0'));
    await expect('io_uring', 'hint', /seccomp/, /io_uring_setup/, forbid('EPERM'));
    await expect('io_uring', 'hint', /no io_uring/, /CONFIG_IO_URING/, forbid('ENOSYS'));
    await expect('io_uring', 'hint', /RLIMIT_MEMLOCK/, /LimitMEMLOCK/, forbid('ENOMEM', '0', '5.10.0'));
    await expect('io_uring', 'hint', /no memory/, /memory limit/, forbid('ENOMEM'));
    await expect('io_uring', 'skipped', /addon/, undefined, forbid('ERR_DLOPEN_FAILED'));
    await expect('io_uring', 'hint', /EXDEV/, /dmesg/, forbid('EXDEV'));
    await expect('io_uring', 'hint', /daemon is not root/, /sysctl/, (host) => {
      host.file('/proc/sys/kernel/io_uring_disabled', '1\n');
      host.change('/proc/42', { uid: 998 });
    });
  });

  test('limits of the daemon, or of this shell', async () => {
    const limits = (files: string, memory = 'unlimited') =>
      `Max open files            ${files.padEnd(20)} ${files.padEnd(20)} files\nMax locked memory         ${memory}   ${memory}   bytes\n`;
    await expect('limits', 'warning', /the daemon may have 256 open files/, /LimitNOFILE/, (host) =>
      host.file('/proc/42/limits', limits('256')),
    );
    await expect('limits', 'hint', /the daemon may have 4096 open files/, /LimitNOFILE/, (host) =>
      host.file('/proc/42/limits', limits('4096')),
    );
    await expect('limits', 'ok', /this shell may have any number of open files/, undefined, (host) => {
      host.stopDaemon();
      host.file('/proc/self/limits', limits('unlimited'));
    });
    await expect('limits', 'hint', /65536 bytes of memory, and this kernel counts/, /LimitMEMLOCK/, (host) => {
      host.kernel = '5.10.0';
      host.file('/proc/42/limits', limits('65536', '65536'));
    });
    await expect('limits', 'skipped', /may not be read/, /root/, (host) => host.change('/proc/42/limits', { error: 'EACCES' }));
  });

  test('shared memory', async () => {
    await expect('shared memory', 'hint', /is full/, /memfd/, (host) => host.setSpace('/dev/shm', { freeBytes: 0 }));
    await expect('shared memory', 'hint', /no \/dev\/shm/, /tmpfs/, (host) => host.remove('/dev/shm'));
  });

  test('QEMU', async () => {
    await expect('qemu', 'hint', /no QEMU/, /VMs/, (host) => host.programs.clear());
    await expect('qemu', 'hint', /5\.2\.0 is older/, /7\.2/, (host) =>
      host.programs.set('qemu-system-x86_64 --version', { status: 0, output: 'QEMU emulator version 5.2.0' }),
    );
    await expect('qemu', 'warning', /no vhost-user-blk/, /install/, (host) =>
      host.programs.set('qemu-system-x86_64 -machine none -device help', { status: 0, output: 'name "virtio-blk-pci"' }),
    );
    await expect('qemu', 'ok', /qemu-kvm 9\.0\.0/, undefined, (host) => {
      host.programs.clear();
      host.programs.set('/usr/libexec/qemu-kvm --version', { status: 0, output: 'QEMU emulator version 9.0.0' });
    });
  });
});

describe('the folders', () => {
  test('a full /var: by its numbers, by its inodes, and by trying', async () => {
    await expect('state folder', 'error', /0 bytes free .* no export, attachment or lease/, /df \/var\/lib\/netbus/, (host) =>
      host.setSpace('/var/lib/netbus', { freeBytes: 0 }),
    );
    await expect('state folder', 'warning', /20 MiB free/, /make room/, (host) =>
      host.setSpace('/var/lib/netbus', { freeBytes: 20 * 1024 ** 2 }),
    );
    await expect('state folder', 'error', /0 of 2000 inodes/, /df -i/, (host) =>
      host.setSpace('/var/lib/netbus', { freeInodes: 0 }),
    );
    await expect('state folder', 'ok', /free of/, undefined, (host) =>
      host.setSpace('/var/lib/netbus', { freeInodes: 0, totalInodes: 0 }),
    );
    const advice = { ENOSPC: /df/, EDQUOT: /df/, EROFS: /findmnt/, EACCES: /owner or mode/, EIO: /dmesg/ };
    for (const [error, text] of Object.entries(advice)) {
      const diagnosis = await expect('state folder', 'error', /nothing can be written|cannot be looked at/, text, (host) => {
        host.tryWrite = () => Promise.reject(systemError(error));
      });
      assert.equal(diagnosis.ok, false);
    }
  });

  test("state folder: missing, somebody else's, open to others, no folder, with damaged records", async () => {
    await expect('state folder', 'hint', /not there yet/, /makes it/, (host) => {
      host.stopDaemon();
      host.remove('/var/lib/netbus');
    });
    await expect('state folder', 'error', /is gone, and the daemon runs/, /unmounted/, (host) =>
      host.remove('/var/lib/netbus'),
    );
    await expect('state folder', 'error', /user 1000, and the daemon is user 0/, /chown -R 0/, (host) =>
      host.change('/var/lib/netbus', { uid: 1000 }),
    );
    await expect('state folder', 'warning', /mode 0755/, /chmod 0700/, (host) =>
      host.change('/var/lib/netbus', { mode: 0o755 }),
    );
    await expect('state folder', 'error', /not a folder/, /stateDir/, (host) => host.file('/var/lib/netbus', ''));
    await expect('state folder', 'warning', /data\.json\.damaged-2026/, /backup/, (host) => {
      host.folder('/var/lib/netbus/exports');
      host.file('/var/lib/netbus/exports/data.json.damaged-2026', '');
    });
    await expect('state folder', 'skipped', /another user's/, /root/, (host) => (host.user = { uid: 1000, groups: [998] }));
    await expect('state folder', 'skipped', /EACCES/, /root/, (host) => host.change('/var/lib/netbus', { error: 'EACCES' }));
  });

  test('run folder', async () => {
    await expect('run folder', 'hint', /not there yet/, /makes it/, (host) => {
      host.stopDaemon();
      host.remove('/run/netbus');
    });
    await expect('run folder', 'error', /not there, and the daemon runs/, /restart/, (host) => host.remove('/run/netbus'));
    await expect('run folder', 'error', /no virtual device gets its socket/, /df/, (host) =>
      host.setSpace('/run/netbus', { freeBytes: 0 }),
    );
    await expect('run folder', 'error', /netbus\.sock is not a socket/, /remove/, (host) =>
      host.file('/run/netbus/netbus.sock', ''),
    );
    await expect('run folder', 'hint', /was left/, /replaces/, (host) => (host.daemon = undefined));
  });
});

describe('the config, the user, the daemon', () => {
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
});

describe('keys and certificates', () => {
  test('keys that others may read, exchange, or own: with what to type', async () => {
    const key = '/etc/netbus/pki/host.key';
    await expect('keys', 'error', /mode 0644/, /^chmod 0600 \/etc\/netbus\/pki\/host\.key$/, (host) =>
      host.change(key, { mode: 0o644 }),
    );
    await expect('keys', 'error', /user 1000/, /^chown 0 /, (host) => host.change(key, { uid: 1000 }));
    await expect('keys', 'error', /not there/, /netbus init/, (host) => host.remove(key));
    await expect('keys', 'error', /others may exchange/, /^chmod go-w \/etc\/netbus\/pki$/, (host) =>
      host.change('/etc/netbus/pki', { mode: 0o777 }),
    );
    await expect('keys', 'error', /issuing key\) has mode 0604/, /chmod 0600/, (host) =>
      host.file('/etc/netbus/pki/issuing.key', '', { mode: 0o604 }),
    );
    await expect('keys', 'skipped', /cannot be looked at/, /root/, (host) => host.change(key, { error: 'EACCES' }));
  });

  test('the root key', async () => {
    const path = '/etc/netbus/pki/ca.key';
    await expect('root key', 'hint', /is on this host/, /safe place.*delete/, (host) => host.file(path, '', { mode: 0o600 }));
    await expect('root key', 'hint', /is on this host/, /safe place.*delete/, (host) => {
      host.file(path, '', { mode: 0o600 });
      host.file('/etc/netbus/pki/issuing.key', '', { mode: 0o600 });
    });
    await expect('root key', 'error', /mode 0644/, /chmod 0600/, (host) => host.file(path, ''));
    await expect('root key', 'skipped', /EACCES/, /root/, (host) => host.file(path, '', { error: 'EACCES' }));
  });

  test('days left, expired, not yet valid, of another host, and what the daemon would refuse', async () => {
    const clock = new ManualClock();
    const authority = await issueAuthority({ cluster: 'lab', clock });
    const own = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });
    const other = await issueHost({ authority, cluster: 'lab', host: 'm1', clock });
    const at = (days: number) => (host: FakeHost) => {
      host.file('/etc/netbus/pki/ca.crt', authority.certificate);
      host.file('/etc/netbus/pki/host.crt', own.certificate);
      host.now = clock.wallTime() + days * DAY_MS;
    };
    await expect('certificates', 'ok', /valid until 2026-01-31, 29 days/, undefined, at(0.5));
    await expect('certificates', 'ok', /10 days/, undefined, at(19.5));
    await expect('certificates', 'warning', /9 days/, /netbus members/, at(20.5));
    await expect('certificates', 'error', /this host's certificate expired on 2026-01-31/, /new one/, (host) => {
      at(31)(host);
      host.identity = new NetbusError('config', 'expired: do this');
    });
    // A host's own is renewed by its daemon; the issuing one is behind it in the file, and needs the root key.
    const [ownPem, issuingPem] = [other.certificate, own.certificate];
    await expect(
      'certificates',
      'warning',
      /the issuing certificate is valid until 2026-01-31/,
      /root key.*issuing\.crt/,
      (host) => {
        at(20.5)(host);
        host.file('/etc/netbus/pki/host.crt', `${ownPem}${issuingPem}`);
      },
    );
    await expect(
      'certificates',
      'error',
      /the CA certificate is valid from 2025-12-31 on, and here it is 2025-12-2/,
      /clock/,
      at(-5),
    );
    await expect('certificates', 'error', /is for m1 of lab, and the config is for m2 of lab/, /correct/, (host) => {
      at(0)(host);
      host.file('/etc/netbus/netbus.yaml', CONFIG.replace('host: m1', 'host: m2'));
    });
    const refused = await expect('certificates', 'error', /^host\.crt was not issued by the CA$/, /^take both$/, (host) => {
      at(0)(host);
      host.identity = new NetbusError('config', 'host.crt was not issued by the CA: take both');
    });
    assert.equal(refused.ok, false);
    await expect('certificates', 'error', /ca\.crt .* is not there/, /netbus join/, (host) =>
      host.remove('/etc/netbus/pki/ca.crt'),
    );
    await expect('certificates', 'skipped', /cannot be read/, /root/, (host) => {
      host.change('/etc/netbus/pki/host.crt', { error: 'EACCES' });
      host.identity = new NetbusError('config', 'may not be read');
    });
  });
});

describe('the network', () => {
  test('a port that another program has, an address that is not of this host', async () => {
    const row = (address: string, state = '0A') =>
      `  sl  local_address rem_address   st tx_queue\n   0: ${address} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000 0 0 777 1\n`;
    const taken = (address: string, state?: string) => (host: FakeHost) => {
      host.stopDaemon();
      host.file('/proc/net/tcp', row(address, state));
      host.folder('/proc/7/fd');
      host.file('/proc/7/fd/3', 'socket:[777]');
      host.file('/proc/7/comm', 'nginx\n');
    };
    await expect('port', 'error', /10\.0\.0\.1:7443 is in use by nginx \(pid 7\)/, /stop that one/, taken('0100000A:1D13'));
    await expect('port', 'error', /in use by nginx/, /stop that one/, taken('00000000:1D13'));
    await expect('port', 'ok', /is free/, undefined, taken('0200000A:1D13'));
    await expect('port', 'ok', /is free/, undefined, taken('0100000A:1D14'));
    await expect('port', 'ok', /is free/, undefined, taken('0100000A:1D13', '06'));
    await expect('port', 'skipped', /cannot be seen by this user/, /root/, (host) => {
      host.daemon = new NetbusError('denied', 'you may not use the socket: run this as root');
      host.file('/proc/net/tcp', row('0100000A:1D13'));
    });
    await expect('port', 'error', /in use by another program/, /stop/, (host) => {
      host.stopDaemon();
      host.file('/proc/net/tcp6', row(`${'0'.repeat(32)}:1D13`));
    });
    await expect('port', 'error', /10\.9\.9\.9 is no address of this host/, /127\.0\.0\.1, 10\.0\.0\.1/, (host) => {
      host.stopDaemon();
      host.file('/etc/netbus/netbus.yaml', CONFIG.replace('listen: 10.0.0.1', 'listen: 10.9.9.9'));
    });
  });

  test('a firewall that drops by default', async () => {
    const rules =
      (output: string, status = 0) =>
      (host: FakeHost) =>
        void host.programs.set('nft --stateless list ruleset', { status, output });
    const chain = 'chain input { type filter hook input priority filter; policy drop;';
    await expect(
      'firewall',
      'hint',
      /no rule names port 7443/,
      /tcp dport 7443 accept/,
      rules(`${chain} tcp dport 22 accept } }`),
    );
    await expect('firewall', 'ok', /no rule/, undefined, rules(`${chain} tcp dport { 22, 7443 } accept } }`));
    await expect('firewall', 'skipped', /may not be read/, /root/, rules('', 1));
    await expect('firewall', 'skipped', /nft is not here/, undefined, (host) => host.programs.clear());
  });

  test('members: away, somebody else, of another release', async () => {
    const told = (code: 'timeout' | 'unreachable' | 'denied' | 'protocol') => (host: FakeHost) => {
      host.members = [{ host: 'm2', address: '10.0.0.2:7443', reachable: false, error: { code, message: 'm2 said no' } }];
    };
    await expect('members', 'warning', /m2 said no/, /firewall/, told('timeout'));
    await expect('members', 'warning', /m2 said no/, /is m2 up/, told('unreachable'));
    await expect('members', 'error', /m2 said no/, /certificates/, told('denied'));
    await expect('members', 'error', /m2 said no/, /release/, told('protocol'));
    const there = { host: 'm2', address: '10.0.0.2:7443', reachable: true };
    await expect('members', 'hint', /release 0\.9\.0; this one is 1\.0\.0/, /upgrade/, (host) => {
      host.members = [{ ...there, release: '0.9.0', roundTripMs: 1, clockAheadMs: 0 }];
    });
    await expect('members', 'hint', /does not say/, /upgrade/, (host) => (host.members = [there]));
    await expect('members', 'ok', /no other member/, undefined, (host) => (host.members = []));
    await expect(
      'members',
      'skipped',
      /cannot ask them: old/,
      undefined,
      (host) => (host.members = new NetbusError('not_found', 'old')),
    );
  });

  test('clocks: what the round trip cannot tell does not count', async () => {
    const off =
      (clockAheadMs: number, roundTripMs = 1) =>
      (host: FakeHost) => {
        host.members = [{ host: 'm2', address: 'a', reachable: true, release: '1.0.0', roundTripMs, clockAheadMs }];
      };
    await expect('clock', 'ok', /within 12 ms/, undefined, off(12));
    await expect('clock', 'ok', /within/, undefined, off(-2_400, 1_000));
    await expect('clock', 'warning', /3\.0 s ahead of this one/, /NTP/, off(3_000));
    await expect('clock', 'error', /10 min behind this one: new certificates/, /timedatectl/, off(-600_000));
    await expect('clock', 'error', /48 h ahead/, /timedatectl/, off(48 * 3_600_000));
    await expect('clock', 'skipped', /no other host/, undefined, (host) => (host.members = []));
  });

  test('other hosts are asked from here only where it is sure that no daemon of this host runs', async () => {
    const asked = async (change: (host: FakeHost) => void): Promise<number> => {
      const host = new FakeHost();
      change(host);
      await diagnose(host, OPTIONS);
      return host.asked;
    };
    assert.equal(await asked(() => {}), 0);
    assert.equal(await asked((host) => host.stopDaemon()), 1, 'once for all checks');
    assert.equal(await asked((host) => (host.daemon = new NetbusError('denied', 'no'))), 0);
    const lock =
      (place: string, owner = '99') =>
      (host: FakeHost) => {
        host.stopDaemon();
        host.file('/var/lib/netbus/lock', `${owner}\n`, { ino: 4711, dev: 0x801 });
        host.file('/proc/locks', `1: POSIX  ADVISORY  WRITE 9 08:01:4711 0 EOF\n2: OFDLCK ADVISORY  WRITE -1 ${place} 0 EOF\n`);
      };
    assert.equal(await asked(lock('08:01:4711')), 0, "a daemon with another socket has the folder's lock");
    assert.equal(await asked(lock('08:01:4712')), 1);
    assert.equal(await asked(lock('00:2a:4711')), 1, 'the same number on another filesystem');
    assert.equal(await asked(lock('00:2a:4711', '42')), 0, 'the process that the file names is there');
    assert.equal(
      await asked((host) => {
        host.stopDaemon();
        host.identity = new NetbusError('config', 'expired');
      }),
      0,
    );
  });
});
