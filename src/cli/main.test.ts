/** The program as a process, before a daemon that answers what the test wants. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { AttachmentEntry, Devices, ExportEntry, Status } from '../api/types.ts';
import { type ErrorCode, errorCodes } from '../device/errors.ts';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

const EXPORT: ExportEntry = {
  name: 'data',
  class: 'disk',
  device: '/srv/data.img',
  readOnly: false,
  shared: false,
  allow: ['m2'],
  capacityBytes: 64 * 1024 ** 2,
  state: 'ready',
  since: '2030-01-01T00:00:00Z',
  backend: { engine: 'io_uring' },
  attachments: [{ host: 'm2', vm: 'web', name: 'data', epoch: 3, active: true }],
};

const ATTACHMENT: AttachmentEntry = {
  vm: 'web',
  name: 'data',
  device: 'm1/data',
  local: false,
  socket: '/run/netbus/web/data.sock',
  capacityBytes: 64 * 1024 ** 2,
  readOnly: false,
  queues: 1,
  qemuArguments: ['-chardev', 'socket,id=data,path=/run/netbus/web/data.sock', '-device', 'vhost-user-blk-pci,chardev=data'],
  state: 'failed',
  since: '2030-01-01T00:00:00Z',
  reason: 'the device host lost its disk',
  connected: true,
  inFlight: 2,
};

const STATUS: Status = {
  host: 'm2',
  cluster: 'lab',
  release: '0.1.0',
  pid: 42,
  startedAt: '2030-01-01T00:00:00Z',
  bootId: 'b',
  time: '2030-01-01T00:00:35Z',
  address: '10.0.0.2:7443',
  certificateExpiresAt: '2040-01-01T00:00:00Z',
  links: [{ host: 'm1', address: '10.0.0.1:7443', state: 'down', since: '2030-01-01T00:00:00Z', reason: 'refused' }],
  exports: [EXPORT],
  attachments: [
    {
      ...ATTACHMENT,
      rates: {
        seconds: 10,
        read: { requestsPerSecond: 1200, bytesPerSecond: 4.5 * 1024 ** 2, errorsPerSecond: 0, p50Ms: 0.12, p99Ms: 0.8 },
        write: { requestsPerSecond: 0, bytesPerSecond: 0, errorsPerSecond: 0 },
        other: { requestsPerSecond: 2.5, bytesPerSecond: 0, errorsPerSecond: 0.5 },
      },
    },
  ],
  sessions: [
    {
      role: 'device',
      peer: 'm2',
      device: 'm1/data',
      attachment: 'web/data',
      state: 'active',
      since: '2030-01-01T00:00:00Z',
      epoch: 3,
      inFlight: 4,
    },
  ],
  waits: [
    {
      about: 'attachment',
      subject: 'web/data',
      waitsFor: 'm1',
      since: '2030-01-01T00:00:00Z',
      reason: 'm1 refused the connection',
    },
  ],
  warnings: ['m3 does not answer'],
};

const DEVICES: Devices = {
  devices: [
    {
      host: 'm1',
      name: 'data',
      class: 'disk',
      capacityBytes: 10 * 1024 ** 3,
      readOnly: false,
      shared: false,
      state: 'ready',
      usedBy: ['m2:web/data'],
    },
    {
      host: 'm1',
      name: 't',
      class: 'disk',
      capacityBytes: 512,
      readOnly: true,
      shared: true,
      state: 'waiting',
      usedBy: [],
    },
  ],
  away: [{ host: 'm3', reason: 'does not answer' }],
  warnings: ['m3: does not answer'],
};

let folder: string;
let server: Server | undefined;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-cli-'));
});
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
  server = undefined;
});
after(() => rmSync(folder, { recursive: true }));

function listen(listener: RequestListener): Promise<void> {
  server = createServer(listener);
  return new Promise((resolve) => server?.listen(join(folder, 'netbus.sock'), resolve));
}

/** A daemon that answers everything with `value`, and the bodies that it got. */
async function answerWith(value: unknown, status = 200): Promise<string[]> {
  const bodies: string[] = [];
  await listen((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      bodies.push(body);
      response.writeHead(status).end(JSON.stringify(value));
    });
  });
  return bodies;
}

interface Result {
  status: number | null;
  stdout: string;
  stderr: string;
}

function start(argv: readonly string[], { env = {}, prefix = [] }: { env?: NodeJS.ProcessEnv; prefix?: string[] } = {}) {
  const command = [...prefix, process.execPath, '--import', 'tsx', MAIN, ...argv];
  return spawn(command[0], command.slice(1), { env: { ...process.env, NETBUS_RUN_DIR: folder, ...env } });
}

function netbus(argv: readonly string[], options: { env?: NodeJS.ProcessEnv; prefix?: string[] } = {}): Promise<Result> {
  const child = start(argv, options);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stdout, stderr })));
}

/** Asserts a failure: nothing on stdout, one line for people on stderr. */
function assertFails(result: Result, status: number, message: RegExp): void {
  assert.equal(result.stdout, '');
  assert.match(result.stderr, /^netbus: [^\n]+\n$/);
  assert.match(result.stderr, message);
  assert.equal(result.status, status);
}

test('ls prints a table, with --json a line of JSON; warnings go to stderr', async () => {
  await answerWith(DEVICES);
  const text = await netbus(['ls']);
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
    const json = await netbus(argv);
    assert.match(json.stdout, /^[^\n]+\n$/);
    assert.deepEqual(JSON.parse(json.stdout), DEVICES);
    assert.equal(json.stderr, '');
    assert.equal(json.status, 0);
  }
});

test('status shows what waits, the host, its links, exports, attachments, sessions and rates, with reasons', async () => {
  await answerWith(STATUS);
  const { stdout, status } = await netbus(['status'], { env: { TZ: 'UTC' } });
  assert.equal(status, 0);
  assert.match(
    stdout,
    /^web\/data waits for m1 since 00:00:00 \(35 s\): m1 refused the connection\n\nm2 of cluster lab, at 10\.0\.0\.2:7443\n/,
  );
  assert.match(stdout, /^web\/data +m1\/data +has the device +m2 +active +00:00:00 \(35 s\) +3 +4$/m);
  assert.match(stdout, /^web\/data +10 s +1200\/s, 4\.5 MiB\/s +0\.12 \/ 0\.8 ms +2\.5\/s +0\.5\/s$/m);
  assert.match(stdout, /^m1 +10\.0\.0\.1:7443 +down .*refused$/m);
  assert.match(stdout, /^data +\/srv\/data\.img +64 MiB +read-write +ready +00:00:00 +io_uring +m2 +m2:web\/data$/m);
  assert.match(stdout, /^web\/data +m1\/data +64 MiB .*failed .*the device host lost its disk$/m);
  assert.deepEqual(JSON.parse((await netbus(['status', '--json'])).stdout), STATUS);
});

test('export makes a relative path absolute and splits the hosts', async () => {
  const bodies = await answerWith(EXPORT);
  const { stdout } = await netbus(['export', 'data', '--disk', 'x.img', '--allow', 'm2, m3', '--allow', 'm4', '--read-only']);
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
  const bodies = await answerWith(ATTACHMENT);
  const { stdout } = await netbus(['attach', 'm1/data', '--vm', 'web', '--as', 'data']);
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
  await answerWith(ATTACHMENT);
  const argv = ['attach', 'm1/data', '--vm', 'web', '--format'];
  assert.match((await netbus([...argv, 'libvirt'])).stdout, /^<disk type='vhostuser' device='disk'>$/m);
  const { vmm, ...entry } = JSON.parse((await netbus([...argv, 'firecracker', '--json'])).stdout);
  assert.deepEqual([vmm.format, vmm.request.method, vmm.runByUs], ['firecracker', 'PUT', false]);
  assert.deepEqual(entry, ATTACHMENT);
});

test('detach, unexport and grow say what they did', async () => {
  await answerWith({ grown: true, capacityBytes: 1024 ** 3, warnings: ['m1 was not told'] });
  assert.equal((await netbus(['grow', 'web/data'])).stdout, 'web/data has 1 GiB now\n');
  const detached = await netbus(['detach', 'web/data', '--force']);
  assert.equal(detached.stdout, 'web/data is detached\n');
  assert.equal(detached.stderr, 'netbus: warning: m1 was not told\n');
  assert.equal((await netbus(['unexport', 'data', '--json'])).stdout, '{}\n');
});

test('every code of the daemon has its exit status, as text and as JSON', async () => {
  for (const code of Object.keys(errorCodes) as ErrorCode[]) {
    await answerWith({ error: { code, message: `because of ${code}` } }, errorCodes[code].http);
    assertFails(await netbus(['ls']), errorCodes[code].exit, new RegExp(`because of ${code}`));
    if (code === 'denied') {
      const { stdout, stderr, status } = await netbus(['ls', '--json']);
      assert.deepEqual(JSON.parse(stderr), { error: { code, message: 'because of denied' } });
      assert.equal(stdout, '');
      assert.equal(status, 6);
    }
    server?.close();
  }
});

test('no daemon: 5', async () => {
  assertFails(await netbus(['ls']), 5, /no daemon listens at .*netbus daemon --config/);
  assertFails(await netbus(['ls', '--socket', '/nonexistent/socket']), 5, /at \/nonexistent\/socket:/);
  assertFails(await netbus(['ls', '--run-dir', '/nonexistent/'], {}), 5, /at \/nonexistent\/netbus\.sock:/);
  assertFails(await netbus(['ls'], { env: { NETBUS_RUN_DIR: '' } }), 5, /at \/run\/netbus\/netbus\.sock:/);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  assertFails(await netbus(['ls', '--socket', file]), 5, /file is not a socket: name the daemon's/);
  assertFails(await netbus(['ls', '--socket', folder]), 5, /is not a socket/);
});

test('a socket whose daemon has ended: 5', async () => {
  // The file of a unix socket outlives its listener, but not where Node closes it.
  const path = join(folder, 'left.sock');
  const script = `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  await new Promise((resolve) => spawn(process.execPath, ['-e', script, path]).on('close', resolve));
  assertFails(await netbus(['ls', '--socket', path]), 5, /no daemon listens at .*left\.sock any more: start it again/);
});

test('a daemon of an older release, which does not know the question: 1, and it says so', async () => {
  const message = 'the daemon does not know GET /v1/devices: it is of another release than the command; restart it';
  await answerWith({ error: { code: 'protocol', message } }, 502);
  assertFails(await netbus(['ls']), 1, /another release than the command; restart it/);
});

test('a socket that the user may not use: 6', {
  skip: process.getuid?.() === 0 ? false : 'needs root, to become somebody else',
}, async () => {
  await answerWith(DEVICES);
  chmodSync(folder, 0o711);
  chmodSync(join(folder, 'netbus.sock'), 0o660);
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  assertFails(await netbus(['ls'], { prefix: nobody }), 6, /may not use the daemon's socket/);
});

test('mistakes of usage: 2, with a guess where there is one', async () => {
  const cases: [string[], RegExp][] = [
    [['expor'], /unknown command 'expor' \(Did you mean export\?\)/],
    [['ls', '--jso'], /unknown option '--jso' \(Did you mean --json\?\)/],
    [['ls', 'more'], /too many arguments/],
    [['export', 'a'], /--disk <path> and --allow <hosts> not specified/],
    [['export', 'a', '--disk', '/a', '--allow', 'm1,,m2'], /list of host names/],
    [['attach', 'm1', '--vm', 'v'], /"m1" is not of the form HOST\/NAME/],
    [['attach', 'm1/a/b', '--vm', 'v'], /not of the form HOST\/NAME/],
    [
      ['attach', 'm1/a', '--vm', 'v', '--format', 'xen'],
      /Allowed choices are qemu, libvirt, qmp, cloud-hypervisor, firecracker/,
    ],
    [['attach', 'm1/a', '--vm', 'v', '--bus', 'b'], /--bus goes with --qmp/],
    [['attach', 'm1/a', '--vm', 'v', '--hold', '60'], /"forever", 0, or a time such as 60s/],
    [['attach', 'm1/a', '--vm', 'v', '--hold', '8d'], /7d at most/],
    [['detach', '/a'], /not of the form VM\/NAME/],
    [['grow', 'v/'], /not of the form VM\/NAME/],
    [['ls', '-o', 'yaml'], /Allowed choices are wide, name, json/],
    [['events', '--since', 'yesterday'], /--since "yesterday": say how long ago/],
    [['events', '--limit', '-1'], /number from 0 to 1000/],
    [['status', '--run-dir', `/${'x'.repeat(110)}`], /longer than the 107 bytes/],
    [['attach', 'm1/a'], /'--vm <vm>' not specified; type: netbus attach <host\/name> --vm <vm>; see "netbus attach --help"/],
    [['attach', '--vm', 'v'], /missing required argument 'host\/name'; type: netbus attach/],
    [['attach', 'm1/a', '--wm', 'v'], /unknown option '--wm' \(Did you mean --vm\?\)/],
    [['attach', 'a', '--vm', 'v'], /not of the form HOST\/NAME: "netbus ls" lists/],
    [['detach', 'v', 'a'], /too many arguments .*; did you mean v\/a; type: netbus detach <vm\/name>/],
    [['m1/a', 'attach'], /unknown command 'm1\/a'; the verb comes first/],
    [['--config', '/x', 'status'], /unknown option '--config'; it belongs behind init, daemon, join,? or doctor/],
    [['help', 'atach'], /unknown command 'atach' \(Did you mean attach\?\)/],
    [['help', 'nonsense'], /unknown command 'nonsense'; see "netbus --help"/],
    [['unexport', 'm1/a'], /type the name alone.*"netbus unexport a" on m1/],
    [['completion', 'tcsh'], /bash, zsh, fish/],
  ];
  for (const [argv, message] of cases) assertFails(await netbus(argv), 2, message);
  const json = await netbus(['expor', '--json']);
  assert.equal(JSON.parse(json.stderr).error.code, 'usage');
});

test('help and version', async () => {
  assert.match((await netbus(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
  const help = await netbus(['--help']);
  assert.match(help.stdout, /export .*offer a disk/);
  assert.equal(help.status, 0);
  assert.match((await netbus(['help', 'attach'])).stdout, /Examples:/);
  const bare = await netbus([]);
  assert.equal(bare.stdout, '');
  assert.match(bare.stderr, /Usage: netbus/);
  assert.equal(bare.status, 2);
});

test('a reader that has seen enough is no error', async () => {
  const device = DEVICES.devices[0];
  await answerWith({ devices: new Array(20_000).fill(device), away: [], warnings: [] });
  const child = start(['ls']);
  let stderr = '';
  child.stderr.on('data', (chunk) => (stderr += chunk));
  child.stdout.once('data', () => child.stdout.destroy());
  assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
  assert.equal(stderr, '');
});

test('a name that is nearly right: the daemon is asked for those that it has', async () => {
  await listen((request, response) => {
    const [status, answer] =
      request.method === 'GET'
        ? [200, request.url?.startsWith('/v1/devices') ? DEVICES : STATUS]
        : [404, { error: { code: 'not_found', message: 'there is none' } }];
    response.writeHead(status as number).end(JSON.stringify(answer));
  });
  const cases: [string[], RegExp][] = [
    [['attach', 'm1/dat', '--vm', 'v'], /there is none; did you mean m1\/data\?/],
    [['detach', 'wbe/data'], /there is none; did you mean web\/data\?/],
    [['grow', 'WEB/data'], /there is none; did you mean web\/data\?/],
    [['unexport', 'dta'], /there is none; did you mean data\?/],
    [['detach', 'other/thing'], /there is none$/m],
    // It was found there, so it is something else that is not.
    [['detach', 'web/data'], /there is none$/m],
  ];
  for (const [argv, message] of cases) assertFails(await netbus(argv), 3, message);
});

test('interrupted, at every verb that waits for the daemon: 130, and not a word', async () => {
  let asked: () => void = () => {};
  await listen(() => asked());
  const verbs = [
    ['ls'],
    ['status'],
    ['export', 'x', '--disk', '/x', '--allow', 'm2'],
    ['unexport', 'x'],
    ['attach', 'm1/x', '--vm', 'v'],
    ['detach', 'v/x'],
    ['grow', 'v/x'],
    ['doctor'],
  ];
  for (const argv of verbs) {
    const waiting = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const child = start(argv);
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    await waiting;
    child.kill('SIGINT');
    assert.equal(await new Promise((resolve) => child.on('close', resolve)), 130, argv[0]);
    assert.equal(output, '');
  }
});
