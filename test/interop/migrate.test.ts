/** `netbus migrate` as a program: before a daemon that answers what the test wants, with real QEMUs that run no guest. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { shellQuote } from '../../src/lib/format.ts';
import { runState } from '../../src/vmm/machine.ts';
import type { QmpConnection } from '../../src/vmm/qmp-connection.ts';
import { STATUS } from '../support/answers.ts';
import { Cleanup } from '../support/cleanup.ts';
import { FakeDaemon } from '../support/fake-daemon.ts';
import { connectQmp, type IdleQemu, idleQemuArguments, startIdleQemu } from '../support/idle-qemu.ts';
import { assertFails } from '../support/program.ts';
import { waitFor } from '../support/wait.ts';

const cleanup = new Cleanup();
const folder = mkdtempSync(join(tmpdir(), 'nb-migrate-'));
after(async () => {
  await cleanup.run();
  rmSync(folder, { recursive: true });
});

/** Memory that QEMU shares with another one does not go along. */
const BLOCKER = ['-object', 'memory-backend-ram,id=shared,size=1M', '-device', 'ivshmem-plain,memdev=shared'];

const STOP = { at: '2030-01-31T12:00:05.000Z', outcome: 'clean', drainMs: 3, stallMs: 1.25 };

/** Not connected: no QEMU here has a disk. */
const DEVICE = { name: 'data', device: 'm1/data', socket: '/run/netbus/web/data.sock', connected: false };

let daemon: FakeDaemon;
let source: IdleQemu;
/** Of the destination that a test started. */
let arrived: QmpConnection | undefined;
let uri: string;
let incoming: string;
let number = 0;
/** What the daemon was asked for, without the words that a command is alive. */
let requests: string[];
/** By method and path; an error is thrown to the command. */
let answers: Record<string, (body: string) => object>;

beforeEach(async () => {
  number++;
  incoming = join(folder, `incoming-${number}`);
  uri = `unix:${incoming}`;
  requests = [];
  answers = {
    'POST /v1/vms/web/migration': (body) => ({ to: 'm3', devices: [DEVICE], prepared: !JSON.parse(body).check }),
    'PUT /v1/vms/web/migration/progress': () => ({ vm: 'web', to: 'm3', phase: 'copying', since: '', cancel: false }),
    'GET /v1/vms/web/switchover': () => ({ stopped: true, reasons: [] }),
    'GET /v1/vms/web/migration?to=m3': () => ({
      stop: [{ name: 'data', device: 'm1/data', ...STOP }],
      start: [{ name: 'data', state: 'active', at: '2030-01-31T12:00:05.020Z', stallMs: 2 }],
    }),
    'DELETE /v1/vms/web/migration?to=m3&undo=true': () => ({}),
    'DELETE /v1/vms/web/migration?to=m3&undo=false': () => ({}),
  };
  daemon = new FakeDaemon();
  await daemon.listen(async (request, response) => {
    const body = await textOf(request);
    const asked = `${request.method} ${request.url}`;
    if (request.method !== 'PUT') requests.push(body === '' ? asked : `${asked} ${body}`);
    const answer = answers[asked]?.(body) ?? { error: { code: 'internal', message: `no ${asked}` } };
    response.writeHead('error' in answer ? 500 : 200).end(JSON.stringify(answer));
  });
  source = await startIdleQemu(join(folder, `source-${number}`), cleanup);
});
afterEach(async () => {
  source.qmp.close();
  await source.process.stop();
  await arrived?.execute('quit').catch(() => undefined);
  arrived = undefined;
  await daemon.close();
});

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

/** The command of --start; its monitor is at `incoming`-qmp. */
const startLine = (...argv: readonly string[]) =>
  `echo starting; exec ${idleQemuArguments(`${incoming}-qmp`, '-incoming', uri, ...argv)
    .map(shellQuote)
    .join(' ')}`;

const migrate = (...more: readonly string[]) => [
  ...['migrate', 'web', '--to', 'm3', '--qmp', source.monitor, '--uri', uri],
  ...more,
];

const word = async () => (await runState(source.qmp)).word;
const CHECK = 'POST /v1/vms/web/migration {"to":"m3","check":true}';
const PREPARE = 'POST /v1/vms/web/migration {"to":"m3"}';
const SWITCHOVER = 'GET /v1/vms/web/switchover';
const UNDO = 'DELETE /v1/vms/web/migration?to=m3&undo=true';
const DONE = 'DELETE /v1/vms/web/migration?to=m3&undo=false';

async function assertStays(expected: readonly string[]): Promise<void> {
  assert.deepEqual(requests, expected);
  assert.equal(await word(), 'running');
}

describe('migrate', () => {
  test('starts the destination, moves the VM, ends the source and tells how it went', async () => {
    const { status, stdout, stderr } = await daemon.netbus(migrate('--start', startLine(), '--json'));
    assert.deepEqual([status, stderr], [0, '']);
    const { totalMs, downtimeMs, transferredBytes, passes, ...rest } = JSON.parse(stdout);
    assert.ok(totalMs >= downtimeMs && transferredBytes > 0 && passes > 0, stdout);
    assert.deepEqual(
      { ...rest, qemu: rest.qemu.split('.').length },
      {
        ...{ vm: 'web', to: 'm3', uri, qemu: 3, addedStallMs: 3.25, longestDrainMs: 3 },
        devices: [{ name: 'data', device: 'm1/data', outcome: 'clean', drainMs: 3, stopStallMs: 1.25, startStallMs: 2 }],
        ...{ sourceEnded: true, follows: [], warnings: [] },
      },
    );
    assert.deepEqual(requests, [CHECK, PREPARE, SWITCHOVER, 'GET /v1/vms/web/migration?to=m3', DONE]);
    await source.process.exited;
    // It was started by a command that has outlived the program.
    arrived = await connectQmp(`${incoming}-qmp`);
    assert.equal((await runState(arrived)).word, 'running');
  });

  test('in words, with a destination that waits, --keep-source, and devices that are to follow', async () => {
    const destination = await startIdleQemu(`${incoming}-qmp`, cleanup, '-incoming', uri);
    const follow = [
      { name: 'data', to: 'm3/new' },
      { name: 'log', to: 'm1/log' },
    ];
    const follows = [
      { ...follow[0], job: 'j1' },
      { ...follow[1], reason: 'm1 is away' },
    ];
    answers['POST /v1/vms/web/migration/follow'] = () => ({ follows });
    const argv = follow.flatMap(({ name, to }) => ['--follow', `${name}=${to}`]);
    const { status, stdout, stderr } = await daemon.netbus(migrate('--keep-source', ...argv));
    assert.equal(status, 0, stderr);
    assert.match(
      stdout,
      /^web runs on m3: moved in [\d.]+ m?s with .*B\nits guest stood still for [\d.]+ ms; its devices added 3\.3 ms\n/,
    );
    assert.match(stdout, /^web\/data +m1\/data +clean +3 ms +1\.3 ms +2 ms$/m);
    assert.match(stdout, /the QEMU at \S+ is still there, stopped: end it, and never let it go on$/m);
    assert.match(stdout, /^web\/data goes to m3\/new: on m3, "netbus job j1 --watch" shows how far it is$/m);
    const refused =
      /^netbus: warning: web\/log does not go to m1\/log \(m1 is away\): .* "netbus swap web\/log --to m1\/log" on m3$/m;
    assert.match(stderr, refused);
    assert.equal(requests[0], `POST /v1/vms/web/migration ${JSON.stringify({ to: 'm3', check: true, follow })}`);
    assert.equal(requests.at(-1), `POST /v1/vms/web/migration/follow ${JSON.stringify({ to: 'm3', follow })}`);
    assert.match(stderr, /^netbus: migrate: handing over to m3$/m);
    assert.equal(await word(), 'postmigrate');
    destination.qmp.close();
    await destination.process.stop();
  });

  test('is refused by the daemon before anything is touched', async () => {
    answers['POST /v1/vms/web/migration'] = () => ({ error: { code: 'denied', message: 'export data of m1 is not for m3' } });
    assertFails(await daemon.netbus(migrate('--start', 'exit 9')), 6, /export data of m1 is not for m3/);
    await assertStays([CHECK]);
  });

  test('is refused for the QEMU of another VM', async () => {
    answers['POST /v1/vms/web/migration'] = () => ({ to: 'm3', devices: [{ ...DEVICE, connected: true }], prepared: false });
    assertFails(await daemon.netbus(migrate()), 2, /is not VM web, or not with all its devices: web\/data .* another VMM/);
    await assertStays([CHECK]);
  });

  test('is refused for a VM that QEMU does not migrate', async () => {
    source.qmp.close();
    await source.process.stop();
    source = await startIdleQemu(join(folder, `other-${number}`), cleanup, ...BLOCKER);
    const result = await daemon.netbus(migrate());
    assert.equal(result.status, 1);
    assert.match(result.stderr, /QEMU does not migrate this VM: /);
    await assertStays([]);
  });

  test('where a device was not stopped: cancelled, and all is undone', async () => {
    const destination = startLine();
    answers['GET /v1/vms/web/switchover'] = () => ({ stopped: false, reasons: ['web/data was not brought to rest'] });
    const result = await daemon.netbus(migrate('--start', destination, '--json'));
    assert.equal(result.status, 1);
    assert.deepEqual(JSON.parse(result.stderr), {
      error: { code: 'device', message: 'web/data was not brought to rest; the VM goes on here' },
    });
    await assertStays([CHECK, PREPARE, SWITCHOVER, UNDO]);
  });

  test('where the command that starts the destination fails: its words are shown, and all is undone', async () => {
    const result = await daemon.netbus(migrate('--start', 'echo one; echo no such host >&2; exit 3'));
    assert.equal(result.status, 1);
    assert.match(result.stderr, /^netbus: the command of --start said:\none\nno such host$/m);
    assert.match(
      result.stderr,
      /^netbus: the command of --start ended with status 3: no such host; the migration was cancelled.*; the VM .* here$/m,
    );
    await assertStays([CHECK, PREPARE, UNDO]);
  });

  test('interrupted while the destination does not listen: 130, its command is killed, and all is undone', async () => {
    const program = daemon.start(migrate('--start', 'echo $$; exec sleep 1000'));
    await program.waitForLine(/connecting to the QEMU at m3/);
    program.signal('SIGINT');
    assert.equal((await program.exited).status, 130);
    assert.match(program.stderr, /^netbus: interrupted: the migration was cancelled; the VM goes on here$/m);
    const pid = Number(/^(\d+)$/m.exec(program.stderr)![1]);
    await waitFor('the command has ended', () => !isAlive(pid));
    await assertStays([CHECK, PREPARE, UNDO]);
  });

  test('cancelled by another command', async () => {
    answers['PUT /v1/vms/web/migration/progress'] = () => ({ vm: 'web', to: 'm3', phase: 'copying', since: '', cancel: true });
    const { status, stdout, stderr } = await daemon.netbus(migrate());
    assert.deepEqual([status, stdout], [1, '']);
    // Before it is a line for each step that it came to.
    assert.match(stderr, /^netbus: cancelled by another command; the migration was cancelled.*\n$/m);
    await assertStays([CHECK, PREPARE, UNDO]);
  });

  test('a QEMU that still has the sockets at the destination is waited for', async () => {
    let refusals = 2;
    const busy = { error: { code: 'in_use', message: 'a VMM is connected to web/data already' } };
    answers['DELETE /v1/vms/web/migration?to=m3&undo=true'] = () => (refusals-- > 0 ? busy : {});
    const { status, stdout, stderr } = await daemon.netbus(migrate('--start', 'exit 1'));
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /ended with status 1; the migration was cancelled[^;]*; the VM \S+ here$/m);
    await assertStays([CHECK, PREPARE, UNDO, UNDO, UNDO]);
  });

  test('what cannot be undone is told', async () => {
    delete answers['DELETE /v1/vms/web/migration?to=m3&undo=true'];
    const { status, stderr } = await daemon.netbus(migrate('--start', 'exit 1'));
    assert.equal(status, 1);
    assert.match(stderr, /; what was made ready at host m3 may still be \(no DELETE/);
  });
});

describe('migrate --cancel', () => {
  test('waits until the command that migrates has undone everything', async () => {
    const entry = { vm: 'web', to: 'm3', phase: 'copying', since: '', cancel: true };
    let looks = 0;
    const gone = { error: { code: 'not_found', message: 'no command migrates web' } };
    answers['POST /v1/vms/web/migration/cancellation'] = () => entry;
    answers['GET /v1/vms/web/migration/progress'] = () => (looks++ < 2 ? entry : gone);
    answers['GET /v1/status'] = () => STATUS;
    const { status, stdout } = await daemon.netbus(['migrate', 'web', '--cancel']);
    assert.deepEqual([status, stdout], [0, 'the migration of web to m3 is cancelled: it goes on here\n']);
    assert.equal(looks, 3);
    answers['GET /v1/status'] = () => ({ ...STATUS, attachments: [] });
    assertFails(await daemon.netbus(['migrate', 'web', '--cancel']), 1, /too late: VM web has gone to host m3/);
    answers['POST /v1/vms/web/migration/cancellation'] = () => gone;
    assertFails(await daemon.netbus(['migrate', 'web', '--cancel']), 3, /no command migrates web/);
  });

  test('at the monitor, where the command was killed at the switch-over', async () => {
    const destination = await startIdleQemu(`${incoming}-qmp`, cleanup, '-incoming', uri);
    let asked: () => void = () => {};
    const switchover = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const program = daemon.start(migrate());
    answers['GET /v1/vms/web/switchover'] = () => {
      program.signal('SIGKILL');
      asked();
      return {};
    };
    await switchover;
    await program.exited;
    assert.equal(await word(), 'finish-migrate');
    answers['POST /v1/vms/web/migration/cancellation'] = () => ({ error: { code: 'not_found', message: 'none' } });
    const { status, stdout, stderr } = await daemon.netbus([
      'migrate',
      'web',
      '--cancel',
      '--qmp',
      source.monitor,
      '--to',
      'm3',
    ]);
    assert.deepEqual([status, stderr], [0, '']);
    assert.equal(stdout, 'the migration of web to m3 is cancelled: it goes on here\n');
    assert.equal(requests.at(-1), UNDO);
    assert.equal(await word(), 'running');
    destination.qmp.close();
    await destination.process.stop();
  });
});

test('what is typed wrong', async () => {
  assertFails(await daemon.netbus(['migrate', 'web', '--to', 'm3']), 2, /type: netbus migrate web --to <host> --qmp <socket>/);
  assertFails(
    await daemon.netbus(['migrate', 'web', '--cancel', '--keep-source']),
    2,
    /--cancel goes with --qmp and --to alone/,
  );
  for (const follow of ['data', 'data=m3', 'data=m3/a/b', '=m3/new', 'a b=m3/new']) {
    assertFails(await daemon.netbus(migrate('--follow', follow)), 2, /It is DISK=HOST\/NAME/);
  }
  assertFails(await daemon.netbus(migrate('--uri', 'exec:cat')), 2, /It is tcp:HOST:PORT, or unix:PATH/);
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
