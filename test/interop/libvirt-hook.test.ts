/** The example hook of libvirt, called as libvirt calls it, with a `netbus` that notes what it is asked. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../support/process.ts';

const HOOK = fileURLToPath(new URL('../../examples/libvirt/netbus', import.meta.url));
const DOMAIN = "<domain><name>web</name><source type='unix' path='/run/netbus/web/data.sock'/></domain>";
const MEMBERS = JSON.stringify({
  cluster: 'lab',
  members: [
    { host: 'm2', address: '10.0.0.2:7443', state: 'member' },
    { host: 'm1', address: '10.0.0.1:7443', state: 'member' },
    { host: 'm3', address: '10.0.0.3:7443', state: 'member' },
  ],
});

const folder = mkdtempSync(join(tmpdir(), 'nb-hook-'));
const asked = join(folder, 'asked');
after(() => rmSync(folder, { recursive: true }));
beforeEach(() => rmSync(asked, { force: true }));

/** `netbus`, as a shell's `case` branches of its arguments. */
function becomes(...branches: readonly string[]): void {
  const path = join(folder, 'netbus');
  writeFileSync(path, `#!/bin/sh\necho "$*" >> ${asked}\ncase "$*" in\n${branches.join('\n')}\nesac\n`);
  chmodSync(path, 0o755);
}

const members = `'members --json') echo '${MEMBERS}' ;;`;

async function hook(argv: readonly string[], input = DOMAIN) {
  const env = { PATH: `${folder}:${process.env.PATH}`, NETBUS_RUN_DIR: '/run/netbus' };
  const { status, stdout, stderr } = await run([HOOK, ...argv], { env, input });
  // At "migrate begin" libvirt takes what is printed for the domain.
  assert.equal(stdout, '');
  return { status, stderr, asked: existsSync(asked) ? readFileSync(asked, 'utf8').trim().split('\n') : [] };
}

test('a domain that comes: the host that has it is found, and its devices stand ready', async () => {
  becomes(members, "'prepare web --from m1') echo ready ;;", 'prepare*) echo "netbus: not here" >&2; exit 3 ;;');
  const { status, stderr, asked } = await hook(['web', 'migrate', 'begin', '-']);
  assert.deepEqual([status, stderr], [0, 'netbus: web: its devices stand ready; it comes from m1\n']);
  assert.deepEqual(asked, ['members --json', 'prepare web --from m2', 'prepare web --from m1']);
});

test('one whose devices cannot be made ready is refused, with every reason', async () => {
  becomes(members, 'prepare*) echo "netbus: no $4" >&2; exit 6 ;;');
  const { status, stderr } = await hook(['web', 'migrate', 'begin', '-']);
  assert.equal(status, 1);
  assert.match(stderr, /the migration is refused\nm2: netbus: no m2\nm1: netbus: no m1\nm3: netbus: no m3\n$/);
});

test('one is refused where the daemon does not answer', async () => {
  becomes("members*) echo 'netbus: no daemon' >&2; exit 5 ;;");
  const { status, stderr } = await hook(['web', 'migrate', 'begin', '-']);
  assert.equal(status, 1);
  assert.match(stderr, /the daemon of this host does not answer/);
});

test('one without a device of ours, and all that happens elsewhere, is left alone', async () => {
  becomes('*) exit 1 ;;');
  assert.deepEqual(await hook(['db', 'migrate', 'begin', '-']), { status: 0, stderr: '', asked: [] });
  for (const operation of [
    ['prepare', 'begin', '-'],
    ['start', 'begin', '-'],
    ['started', 'begin', '-'],
    ['stopped', 'end', '-'],
    ['reconnect', 'begin', '-'],
    ['release', 'end', 'migrated'],
  ]) {
    assert.deepEqual(await hook(['web', ...operation]), { status: 0, stderr: '', asked: [] }, operation.join(' '));
  }
});

test('one that did not arrive is not expected any more; a failure of that fails nothing', async () => {
  becomes('*) exit 0 ;;');
  assert.deepEqual((await hook(['web', 'release', 'end', 'failed'])).asked, ['prepare web --cancel']);
  becomes('*) exit 5 ;;');
  const { status, stderr } = await hook(['web', 'release', 'end', 'failed']);
  assert.equal(status, 0);
  assert.match(stderr, /was not taken back/);
});
