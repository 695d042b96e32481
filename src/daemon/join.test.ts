/** What `netbus join` refuses before it asks anybody. The whole of it: test/interop/membership.test.ts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, type TestContext, test } from 'node:test';
import { INVITATION_VALID_MS } from '../directory/invitations.ts';
import { encodeToken, type Token } from '../directory/token.ts';
import { ManualClock } from '../lib/clock.ts';
import { joinCluster } from './join.ts';

const base = mkdtempSync(join(tmpdir(), 'netbus-join-'));
after(() => rmSync(base, { recursive: true }));
const clock = new ManualClock();
let folder: string;
let number = 0;
beforeEach(() => {
  folder = join(base, `${++number}`);
  mkdirSync(folder);
});

const parts: Token = {
  ...{ cluster: 'lab', host: 'm2', issuer: 'm1', address: '127.0.0.1:1' },
  ...{ caFingerprint: new Uint8Array(32), secret: new Uint8Array(32) },
  expiresAt: clock.wallTime() + INVITATION_VALID_MS,
};

function attempt(token: Partial<Token> = {}, address?: string) {
  return joinCluster({
    ...{ token: encodeToken({ ...parts, ...token }), clock, progress: () => {} },
    ...{ config: join(folder, 'etc/netbus.yaml'), stateDir: join(folder, 'state'), runDir: join(folder, 'run') },
    ...(address !== undefined && { address }),
  });
}

test('a clock that is behind is told before the invitation is used up', async () => {
  const expiresAt = parts.expiresAt + 60 * 60 * 1000;
  await assert.rejects(attempt({ expiresAt }), {
    code: 'config',
    message:
      /clock is behind the inviting host's: it is 2026-01-01T00:00:00\.000Z here, and the token was made at 2026-01-01T01:00/,
  });
});

test('an address that is none', () =>
  assert.rejects(attempt({}, 'a b'), { code: 'usage', message: /"a b" is not an address/ }));

test('a host that is in a cluster already, by any of its files', async () => {
  for (const file of ['etc/netbus.yaml', 'etc/pki/host.crt', 'etc/pki/host.key', 'state/directory/members.list']) {
    const path = join(folder, file);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, '');
    await assert.rejects(attempt(), {
      code: 'in_use',
      message: / is there already, .*: this host is in a cluster already; .* move .* away$/,
    });
    rmSync(path);
  }
});

test('nobody at the address: nothing is left', async () => {
  await assert.rejects(attempt(), {
    code: 'unreachable',
    message: /m1 \(127\.0\.0\.1:1\) refused the connection/,
  });
  assert.deepEqual(readdirSync(folder), []);
});

test('a filesystem without the room for its files is told before anybody is asked', (t) =>
  onSmallFilesystem(t, async () => {
    const { message } = await refusal(attempt(), 'device');
    assert.match(
      message,
      /^nobody was asked yet, and the token is as good as before: there is no room for \S+\/members\.list: /,
    );
    assert.match(message, /: make room on the filesystem of \S+\/state \(df \S+\/state; df -i \S+\/state\)$/);
    assert.deepEqual([readdirSync(folder), readdirSync(join(folder, 'state'))], [['state'], []]);
  }));

test('so is a folder that this user may not write', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root can become another user: run this test as root');
  process.seteuid?.(65534);
  try {
    await assert.rejects(attempt(), {
      code: 'denied',
      message: /^nobody was asked yet, .*: \S+etc cannot be made by this user \(EACCES\): run this as root$/,
    });
  } finally {
    process.seteuid?.(0);
  }
});

test('what a join that was killed in the middle left is taken back by the next', async () => {
  const config = join(folder, 'etc/netbus.yaml');
  mkdirSync(join(folder, 'etc'));
  writeFileSync(`${config}.staged`, 'half');
  linkSync(`${config}.staged`, config);
  writeFileSync(join(folder, 'etc/.netbus-setup'), JSON.stringify({ version: 1, files: [config], folders: [] }));
  await refusal(attempt(), 'unreachable');
  assert.deepEqual(readdirSync(join(folder, 'etc')), []);
});

async function refusal(work: Promise<unknown>, code: string): Promise<Error> {
  const thrown = await work.then(
    () => assert.fail('it was not refused'),
    (reason) => reason,
  );
  assert.equal(thrown.code, code, thrown.message);
  return thrown;
}

/** Less than the member list of a large cluster needs. */
async function onSmallFilesystem(t: TestContext, work: () => Promise<void>): Promise<void> {
  const place = join(folder, 'state');
  mkdirSync(place);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'netbus-test', place], { encoding: 'utf8' });
  if (mounted.status !== 0)
    return t.skip(`no small filesystem can be mounted here (${mounted.stderr?.trim()}): run this test as root`);
  try {
    await work();
  } finally {
    spawnSync('umount', [place]);
  }
}
