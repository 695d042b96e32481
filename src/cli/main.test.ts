/** How the program ends, whatever the daemon does: the program as a process, before a daemon that answers what the test wants. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { DEVICES } from '../../test/support/answers.ts';
import { FakeDaemon } from '../../test/support/fake-daemon.ts';
import { run } from '../../test/support/process.ts';
import { assertFails } from '../../test/support/program.ts';
import { type ErrorCode, errorCodes } from '../device/errors.ts';

let daemon: FakeDaemon;
before(() => {
  daemon = new FakeDaemon();
});
afterEach(() => daemon.stop());
after(() => daemon.close());

test('every code of the daemon has its exit status, as text and as JSON', async () => {
  for (const code of Object.keys(errorCodes) as ErrorCode[]) {
    await daemon.answerWith({ error: { code, message: `because of ${code}` } }, errorCodes[code].http);
    assertFails(await daemon.netbus(['ls']), errorCodes[code].exit, new RegExp(`because of ${code}`));
    if (code === 'denied') {
      const { stdout, stderr, status } = await daemon.netbus(['ls', '--json']);
      assert.deepEqual(JSON.parse(stderr), { error: { code, message: 'because of denied' } });
      assert.equal(stdout, '');
      assert.equal(status, 6);
    }
  }
});

test('no daemon: 5', async () => {
  assertFails(await daemon.netbus(['ls']), 5, /no daemon listens at .*systemctl start netbusd, or netbus daemon/);
  assertFails(await daemon.netbus(['ls', '--socket', '/nonexistent/socket']), 5, /at \/nonexistent\/socket:/);
  assertFails(await daemon.netbus(['ls', '--run-dir', '/nonexistent/']), 5, /at \/nonexistent\/netbus\.sock:/);
  assertFails(await daemon.netbus(['ls'], { env: { NETBUS_RUN_DIR: '' } }), 5, /at \/run\/netbus\/netbus\.sock:/);
  const file = join(daemon.folder, 'file');
  writeFileSync(file, '');
  assertFails(await daemon.netbus(['ls', '--socket', file]), 5, /file is not a socket: name the daemon's/);
  assertFails(await daemon.netbus(['ls', '--socket', daemon.folder]), 5, /is not a socket/);
});

test('a socket whose daemon has ended: 5', async () => {
  // The file of a unix socket outlives its listener, but not where Node closes it.
  const path = join(daemon.folder, 'left.sock');
  const script = `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  await run([process.execPath, '-e', script, path]);
  assertFails(await daemon.netbus(['ls', '--socket', path]), 5, /no daemon listens at .*left\.sock any more: start it again/);
});

test('a daemon of an older release, which does not know the question: 1, and it says so', async () => {
  const message = 'the daemon does not know GET /v1/devices: it is of another release than the command; restart it';
  await daemon.answerWith({ error: { code: 'protocol', message } }, 502);
  assertFails(await daemon.netbus(['ls']), 1, /another release than the command; restart it/);
});

test('a socket that the user may not use: 6', {
  skip: process.getuid?.() === 0 ? false : 'needs root, to become somebody else',
}, async () => {
  await daemon.answerWith(DEVICES);
  chmodSync(daemon.folder, 0o711);
  chmodSync(join(daemon.folder, 'netbus.sock'), 0o660);
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  assertFails(await daemon.netbus(['ls'], { prefix: nobody }), 6, /may not use the daemon's socket/);
});

test('a reader that has seen enough is no error', async () => {
  const device = DEVICES.devices[0];
  await daemon.answerWith({ devices: new Array(20_000).fill(device), away: [], warnings: [] });
  const prefix = ['bash', '-o', 'pipefail', '-c', '"$@" | head -n 1', 'bash'];
  const { status, stdout, stderr } = await daemon.netbus(['ls'], { prefix });
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^DEVICE[^\n]*\n$/);
});

test('interrupted, at every verb that waits for the daemon: 130, and not a word', async () => {
  let asked: () => void = () => {};
  await daemon.listen(() => asked());
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
    const program = daemon.start(argv);
    await waiting;
    program.signal('SIGINT');
    assert.equal((await program.exited).status, 130, argv[0]);
    assert.equal(program.stdout + program.stderr, '');
  }
});
