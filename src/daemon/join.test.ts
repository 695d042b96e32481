/** What `netbus join` refuses before it asks anybody. The whole of it: test/interop/membership.test.ts. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
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
    await assert.rejects(attempt(), { code: 'in_use', message: /is in a cluster already, .* is there: .* move .* away$/ });
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
