/** What each verb asks of the daemon, and what it prints: the program as a process, before a daemon that answers what the test wants. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ATTACHMENT, DEVICES, EXPORT, STATUS } from '../../test/support/answers.ts';
import { FakeDaemon } from '../../test/support/fake-daemon.ts';
import { assertFails } from '../../test/support/program.ts';
import type { BusAttachments, FenceResult } from '../api/types.ts';

let daemon: FakeDaemon;
before(() => {
  daemon = new FakeDaemon();
});
after(() => daemon.close());

test('ls prints a table, with --json a line of JSON; warnings go to stderr', async () => {
  await daemon.answerWith(DEVICES);
  const text = await daemon.netbus(['ls']);
  assert.deepEqual(text.stdout.split('\n'), [
    'DEVICE   CLASS  SIZE       ACCESS      STATE    USED BY',
    'm1/data  disk   10 GiB     read-write  ready    m2:web/data',
    'm1/t     disk   512 bytes  read-only   waiting  -',
    '',
  ]);
  assert.equal(text.stderr, 'netbus: warning: m3: does not answer; not seen since the daemon of this host started\n');
  for (const argv of [
    ['ls', '--json'],
    ['--json', 'ls'],
  ]) {
    const json = await daemon.netbus(argv);
    assert.match(json.stdout, /^[^\n]+\n$/);
    assert.deepEqual(JSON.parse(json.stdout), DEVICES);
    assert.equal(json.stderr, '');
    assert.equal(json.status, 0);
  }
});

test('status shows what waits, the host, its links, exports, attachments, sessions and rates, with reasons', async () => {
  await daemon.answerWith(STATUS);
  const { stdout, status } = await daemon.netbus(['status'], { env: { TZ: 'UTC' } });
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^web\/data waits for m1 since 00:00:00 \(35 s\): m1 refused the connection\n\nm2 of cluster lab, at 10\.0\.0\.2:7443\n/,
  );
  assert.match(stdout, /^web\/data +m1\/data +has the device +m2 +active +00:00:00 \(35 s\) +3 +4$/m);
  assert.match(stdout, /^web\/data +10 s +1200\/s, 4\.5 MiB\/s +0\.12 \/ 0\.8 ms +2\.5\/s +0\.5\/s$/m);
  assert.match(stdout, /^m1 +10\.0\.0\.1:7443 +down .*refused$/m);
  assert.match(stdout, /^data +\/srv\/data\.img +64 MiB +read-write +ready +00:00:00 +io_uring +m2 +m2:web\/data$/m);
  assert.match(stdout, /^j3 +web\/data +m1\/data +m2\/new +copying +42 % /m);
  assert.match(stdout, /^web\/data +m1\/data +64 MiB .*failed .*the device host lost its disk$/m);
  assert.deepEqual(JSON.parse((await daemon.netbus(['status', '--json'])).stdout), STATUS);
});

test('status of a daemon of an earlier release, which says less', async () => {
  const { waits: _, sessions: __, warnings: ___, time: ____, exports: _____, ...less } = STATUS;
  await daemon.answerWith({ ...less, attachments: [] });
  const { stdout, stderr, status } = await daemon.netbus(['status']);
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^m2 of cluster lab, at 10\.0\.0\.2:7443\nnetbus 0\.1\.0, pid 42/);
});

test('a host that is no member is told after the export, which is made', async () => {
  const hosts = {
    cluster: 'lab',
    members: [
      { host: 'm1', state: 'member' },
      { host: 'storage-1', state: 'member' },
    ],
  };
  await daemon.listen((request, response) =>
    response.end(JSON.stringify(request.url === '/v1/members' ? hosts : { ...EXPORT, allow: ['m1', 'storage-2', 'x'] })),
  );
  const { stderr, status } = await daemon.netbus(['export', 'data', '--disk', '/x', '--allow', 'm1,storage-2,x']);
  assert.equal(status, 0);
  assert.equal(
    stderr,
    'netbus: warning: host storage-2 is not a member of cluster lab (did you mean storage-1?): it may use this once it has joined\n' +
      'netbus: warning: host x is not a member of cluster lab: it may use this once it has joined\n',
  );
});

test('export makes a relative path absolute and splits the hosts', async () => {
  const bodies = await daemon.answerWith(EXPORT);
  const { stdout } = await daemon.netbus([
    'export',
    'data',
    '--disk',
    'x.img',
    '--allow',
    'm2, m3',
    '--allow',
    'm4',
    '--read-only',
  ]);
  assert.equal(stdout, 'exported /srv/data.img as data: 64 MiB, one VM at a time, for m2\n');
  assert.deepEqual(JSON.parse(bodies[0]), {
    name: 'data',
    disk: join(process.cwd(), 'x.img'),
    readOnly: true,
    direct: false,
    allow: ['m2', 'm3', 'm4'],
  });
});

test("attach prints the socket and QEMU's arguments", async () => {
  const bodies = await daemon.answerWith(ATTACHMENT);
  const { stdout } = await daemon.netbus(['attach', 'm1/data', '--vm', 'web', '--as', 'data']);
  assert.deepEqual(JSON.parse(bodies[0]), { device: 'm1/data', vm: 'web', name: 'data' });
  assert.match(stdout, /^web\/data is m1\/data: 64 MiB, read and write, remote$/m);
  assert.match(stdout, /^socket: \/run\/netbus\/web\/data\.sock$/m);
  assert.match(
    stdout,
    /^ {2}-chardev socket,id=nb-web-data,path=\/run\/netbus\/web\/data\.sock,reconnect=1 \\\n {2}-device vhost-user-blk-pci,id=nb-web-data,\S+$/m,
  );
  assert.match(stdout, /memory-backend-memfd,id=mem,size=1G,share=on/);
});

test('attach has texts for other VMMs, and their parts with --json', async () => {
  await daemon.answerWith(ATTACHMENT);
  const argv = ['attach', 'm1/data', '--vm', 'web', '--format'];
  assert.match((await daemon.netbus([...argv, 'libvirt'])).stdout, /^<disk type='vhostuser' device='disk'>$/m);
  const { vmm, ...entry } = JSON.parse((await daemon.netbus([...argv, 'firecracker', '--json'])).stdout);
  assert.deepEqual([vmm.format, vmm.request.method, vmm.runByUs], ['firecracker', 'PUT', false]);
  assert.deepEqual(entry, ATTACHMENT);
});

test('attach of what is attached already prints its text again, and of nothing else', async () => {
  const refusal = { error: { code: 'in_use', message: 'VM web has a device data already' } };
  await daemon.listen((request, response) => {
    if (request.method === 'GET') response.end(JSON.stringify({ ...STATUS, attachments: [ATTACHMENT] }));
    else response.writeHead(409).end(JSON.stringify(refusal));
  });
  const again = await daemon.netbus(['attach', 'm1/data', '--vm', 'web', '--format', 'libvirt']);
  assert.equal(again.stderr, 'web/data was attached before; nothing is changed\n');
  assert.match(again.stdout, /^<disk type='vhostuser' device='disk'>$/m);
  assert.equal(again.status, 0);
  const { vmm: _, ...entry } = JSON.parse((await daemon.netbus(['attach', 'm1/data', '--vm', 'web', '--json'])).stdout);
  assert.deepEqual(entry, ATTACHMENT);
  for (const [argv, message] of [
    [['attach', 'm1/other', '--vm', 'web', '--as', 'data'], /VM web has a device data already/],
    [['attach', 'm1/data', '--vm', 'db'], /VM web has a device data already/],
    [['attach', 'm1/data', '--vm', 'web', '--hold', '60s'], /another hold time: to change that, detach it first/],
  ] as const) {
    assertFails(await daemon.netbus(argv), 4, message);
  }
});

test('detach, unexport and grow say what they did', async () => {
  await daemon.answerWith({ grown: true, capacityBytes: 1024 ** 3, warnings: ['m1 was not told'] });
  assert.equal((await daemon.netbus(['grow', 'web/data'])).stdout, 'web/data has 1 GiB now\n');
  const detached = await daemon.netbus(['detach', 'web/data', '--force']);
  assert.equal(detached.stdout, 'web/data is detached\n');
  assert.equal(detached.stderr, 'netbus: warning: m1 was not told\n');
  assert.equal((await daemon.netbus(['unexport', 'data', '--json'])).stdout, '{}\n');
});

test('attachments prints where each guest and its device are', async () => {
  const answer: BusAttachments = {
    attachments: [
      { vm: 'db', name: 'a', host: 'm3', device: 'm1/a', state: 'handed-over', epoch: 2, standby: 'm2' },
      { vm: 'db', name: 'b', host: 'm3', device: 'm1/b', state: 'away', epoch: 9 },
      { vm: 'db', name: 'c', host: 'm2', device: 'm4/c', state: 'unknown' },
      { vm: 'web', name: 'a', host: 'm2', device: 'm1/c', state: 'active', epoch: 3, standby: 'm3', previous: 'm1' },
      { vm: 'web', name: 'b', host: 'm3', device: 'm1/d', state: 'fenced', epoch: 4 },
    ],
    away: [{ host: 'm4', reason: 'does not answer' }],
    warnings: ['m4: does not answer'],
  };
  await daemon.answerWith(answer);
  const { stdout, stderr, status } = await daemon.netbus(['attachments']);
  assert.deepEqual([status, stderr], [0, 'netbus: warning: m4: does not answer\n']);
  assert.deepEqual(stdout.split('\n'), [
    'ATTACHMENT  HOST  DEVICE  STATE                                EPOCH',
    'db/a        m3    m1/a    handed over to m2                    2',
    'db/b        m3    m1/b    holds the lease, no session          9',
    'db/c        m2    m4/c    unknown                              -',
    'web/a       m2    m1/c    active, came from m1, standby at m3  3',
    'web/b       m3    m1/d    fenced                               4',
    '',
  ]);
  assert.deepEqual(JSON.parse((await daemon.netbus(['attachments', '--json'])).stdout), answer);
  await daemon.answerWith({ attachments: [], away: [], warnings: [] });
  assert.equal((await daemon.netbus(['attachments'])).stdout, 'no attachments\n');
});

test('fence wants to be told that the host is dead, and says who has taken what', async () => {
  const asked: string[] = [];
  const result: FenceResult = {
    host: 'm2',
    fenced: [{ by: 'm1', attachments: ['m2:web/data', 'm2:web/root'] }],
    untold: [{ host: 'm4', reason: 'it does not answer' }],
  };
  await daemon.listen((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.end(JSON.stringify(request.method === 'GET' ? { host: 'm2', answers: true } : result));
  });
  assertFails(await daemon.netbus(['fence', 'm2']), 2, /has made sure that it is dead: .* "netbus fence m2 --yes"/);
  assert.deepEqual(asked.splice(0), ['GET /v1/hosts/m2/fence']);
  const { stdout, stderr, status } = await daemon.netbus(['fence', 'm2', '--yes']);
  assert.deepEqual(asked, ['POST /v1/hosts/m2/fence']);
  assert.equal(stdout, 'host m2 is fenced:\n  m2:web/data, by m1\n  m2:web/root, by m1\n');
  assert.deepEqual([stderr, status], ['netbus: warning: host m4 has fenced nothing: it does not answer\n', 0]);
  assert.deepEqual(JSON.parse((await daemon.netbus(['fence', 'm2', '--yes', '--json'])).stdout), result);
});

test('attach --takeover, --force-stale and --fence-after say so to the daemon', async () => {
  const bodies = await daemon.answerWith(ATTACHMENT);
  await daemon.netbus(['attach', 'm1/data', '--vm', 'web', '--takeover', '--force-stale', '--fence-after', '60s']);
  assert.deepEqual(JSON.parse(bodies[0]), {
    ...{ device: 'm1/data', vm: 'web', takeover: true, forceStale: true, fenceAfterMs: 60_000 },
  });
  for (const time of ['0', '9s', '8d', 'never']) {
    const argv = ['attach', 'm1/data', '--vm', 'web', '--fence-after', time];
    assertFails(await daemon.netbus(argv), 2, /10s at least and 7d at most/);
  }
});
