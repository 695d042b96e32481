/** What the doctor says of port, firewall, members and clocks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DOCTOR_OPTIONS, expect } from '../../../../test/support/doctor.ts';
import { CONFIG, FakeHost } from '../../../../test/support/fake-host.ts';
import { NetbusError } from '../../../device/errors.ts';
import { diagnose } from '../doctor.ts';

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
  await expect('port', 'ok', /127\.0\.0\.9:7443 is free/, undefined, (host) => {
    host.stopDaemon();
    host.file('/etc/netbus/netbus.yaml', CONFIG.replace('listen: 10.0.0.1', 'listen: 127.0.0.9'));
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
    await diagnose(host, DOCTOR_OPTIONS);
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
