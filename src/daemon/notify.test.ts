import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { silentLog } from '../lib/log.ts';
import { ServiceManager } from './notify.ts';

const PID = 42;

/** A service manager before a socket that takes what `send` lets pass. */
function make(environment: Record<string, string>, send?: (path: string) => void) {
  const clock = new ManualClock();
  const sent: string[] = [];
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_fields, message) => warnings.push(message) };
  const manager = new ServiceManager({
    environment,
    pid: PID,
    clock,
    log,
    monotonicMicroseconds: () => 1_234n,
    send: (path, datagram) => {
      send?.(path);
      sent.push(`${path} ${Buffer.from(datagram).toString().trimEnd().replaceAll('\n', ' ')}`);
    },
  });
  return { clock, sent, warnings, manager };
}

test('the life of a daemon, as its service manager hears it', async () => {
  const { clock, sent, manager } = make({ NOTIFY_SOCKET: '/run/n', WATCHDOG_USEC: '4000000', WATCHDOG_PID: String(PID) });
  manager.status('starting');
  clock.advance(10_000);
  assert.deepEqual(sent.splice(0), ['/run/n STATUS=starting'], 'the watchdog begins with READY');
  manager.ready('host m1');
  assert.deepEqual(sent.splice(0), ['/run/n READY=1 STATUS=host m1', '/run/n WATCHDOG=1']);
  clock.advance(1_999);
  assert.deepEqual(sent, []);
  clock.advance(2_001);
  assert.deepEqual(sent.splice(0), ['/run/n WATCHDOG=1', '/run/n WATCHDOG=1']);
  assert.equal(await manager.duringReload(async () => 7), 7);
  assert.deepEqual(sent.splice(0), ['/run/n RELOADING=1 MONOTONIC_USEC=1234', '/run/n READY=1']);
  await assert.rejects(
    manager.duringReload(() => Promise.reject(new Error('no such file'))),
    /no such file/,
  );
  assert.deepEqual(sent.splice(0), ['/run/n RELOADING=1 MONOTONIC_USEC=1234', '/run/n READY=1']);
  manager.stopping('ending');
  clock.advance(2_000);
  assert.deepEqual(sent.splice(0), ['/run/n STOPPING=1 STATUS=ending', '/run/n WATCHDOG=1'], 'an end can hang, too');
  manager.close();
  manager.close();
  clock.advance(10_000);
  assert.deepEqual(sent, []);
});

test('whatever a status says, it is one line and no other field', () => {
  const { sent, manager } = make({ NOTIFY_SOCKET: '@n' });
  manager.status('two\nREADY=1\r\n');
  manager.status('x'.repeat(10_000));
  assert.deepEqual(sent, ['@n STATUS=two READY=1', `@n STATUS=${'x'.repeat(512)}`]);
});

test('without a watchdog of ours there are no beats', () => {
  const environments = [
    {},
    { WATCHDOG_USEC: '' },
    { WATCHDOG_USEC: '0' },
    { WATCHDOG_USEC: '-5' },
    { WATCHDOG_USEC: '1e3' },
    { WATCHDOG_USEC: 'soon' },
    { WATCHDOG_USEC: '1000', WATCHDOG_PID: '43' },
  ];
  for (const environment of environments) {
    const { clock, sent, manager } = make({ NOTIFY_SOCKET: '@n', ...environment });
    manager.ready('here');
    clock.advance(100_000);
    assert.deepEqual(sent, ['@n READY=1 STATUS=here'], JSON.stringify(environment));
  }
});

test('a watchdog that waits for ages hears every hour', () => {
  const { clock, sent, manager } = make({ NOTIFY_SOCKET: '@n', WATCHDOG_USEC: '18446744073709551615' });
  manager.ready('here');
  sent.length = 0;
  clock.advance(3_600_000);
  assert.deepEqual(sent, ['@n WATCHDOG=1']);
});

test('without a service manager nothing is sent, and a socket of another kind is said', () => {
  for (const [socket, said] of [
    ['', 0],
    ['vsock:2:1234', 1],
    ['run/n', 1],
    ['@', 1],
    ['/', 1],
  ] as const) {
    const { sent, warnings, manager } = make({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: '1000' });
    manager.ready('here');
    manager.stopping('ending');
    assert.deepEqual([sent, warnings.length], [[], said], socket);
  }
});

test('a service manager that does not listen is said once, and again after it came back', () => {
  let away = true;
  const { clock, sent, warnings, manager } = make({ NOTIFY_SOCKET: '/run/n', WATCHDOG_USEC: '2000000' }, () => {
    if (away) throw new Error('ECONNREFUSED: sendto /run/n (Connection refused)');
  });
  manager.ready('here');
  clock.advance(5_000);
  assert.deepEqual([sent, warnings.length], [[], 1]);
  away = false;
  clock.advance(1_000);
  assert.deepEqual(sent, ['/run/n WATCHDOG=1']);
  away = true;
  clock.advance(1_000);
  assert.equal(warnings.length, 2);
});
