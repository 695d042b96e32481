/** `netbus doctor` on hosts: with daemons, without, with things wrong on purpose. It may change nothing. */
import assert from 'node:assert/strict';
import { chmodSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Status } from '../../src/api/types.ts';
import type { Finding } from '../../src/daemon/doctor/check.ts';
import type { Diagnosis } from '../../src/daemon/doctor/doctor.ts';
import { writeIdentity } from '../../src/directory/identity-files.ts';
import { issueAuthority, issueHost } from '../../src/directory/identity-issue.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { run } from '../support/process.ts';

const cleanup = new Cleanup();
let cluster: Cluster;
let m1: Host;
let m3: Host;

before(async () => {
  cluster = await startCluster(['m1', 'm2', 'm3'], { cleanup });
  [m1, m3] = [cluster.host('m1'), cluster.host('m3')];
  await cluster.stopDaemon(m3);
});
after(() => cleanup.run());

function folders(host: Host): string[] {
  return host.kind === 'namespace' ? [] : ['--run-dir', host.runDir, '--state-dir', host.stateDir];
}

interface Examined {
  readonly status: number | undefined;
  readonly ok: boolean;
  /** Of one check, `result: found → advice`. */
  told(check: string): string[];
}

async function examine(host: Host, ...argv: string[]): Promise<Examined> {
  const options = ['--config', cluster.configPath(host), ...folders(host), ...argv];
  const { status, stdout, stderr } = await run(host.command([...netbusProgram(), 'doctor', '--json', ...options]));
  assert.equal(stderr, '');
  const { ok, checks } = JSON.parse(stdout) as Diagnosis;
  assert.equal(status, ok ? 0 : 1);
  const line = ({ result, found, advice }: Finding) => `${result}: ${found}${advice === undefined ? '' : ` → ${advice}`}`;
  return { status, ok, told: (name) => checks.filter(({ check }) => check === name).map(line) };
}

function assertTold(examined: Examined, check: string, ...expected: RegExp[]): void {
  const told = examined.told(check);
  for (const pattern of expected)
    assert.ok(
      told.some((line) => pattern.test(line)),
      `${check}: ${JSON.stringify(told)}`,
    );
}

test('where a daemon runs it asks the others, and says how they are', async () => {
  const examined = await examine(m1);
  assertTold(examined, 'daemon', /^ok: netbus \d+\.\d+\.\d+ runs, pid \d+/);
  assertTold(examined, 'config', /^ok: .*host m1 of cluster lab/);
  assertTold(examined, 'members', /^ok: m2 \(.*\) answers in \d+\.\d ms, release/, /^warning: m3 .*refused.* → is m3 up/);
  assertTold(examined, 'clock', /^ok: the clock of m2 is within/);
  assertTold(examined, 'certificates', /^ok: .* is for m1 of lab/, /^ok: this host's certificate is valid until .*29 days/);
  assertTold(examined, 'keys', /^ok: .*host\.key has mode 0600/);
  assertTold(examined, 'port', /^ok: the daemon listens at/);
  assertTold(examined, 'state folder', /^ok: .* free of/);
  assert.equal(examined.ok, true);
});

test('text for people: a line each, what to do below it, and a sum at the end', async () => {
  const result = await run(m1.command([...netbusProgram(), 'doctor', '--config', cluster.configPath(m1), ...folders(m1)]));
  assert.equal(result.status, 0);
  assert.match(result.stdout, /^ok +node +Node\.js \d+/m);
  assert.match(result.stdout, /^warning +members +m3 .*\n +→ is m3 up/m);
  assert.match(result.stdout, /\n\n\d+ warnings?.*, \d+ ok\n$/);
});

test("where no daemon runs it asks the others itself, changes nothing, and is in nobody's way", async () => {
  const before = [snapshot(m3.folder), (await cluster.ask<Status>('m1', 'status')).pid];
  const examined = await examine(m3);
  assertTold(examined, 'daemon', /^warning: no daemon listens at .* → .*netbus daemon --config/);
  assertTold(examined, 'members', /^ok: m1 .* answers in/, /^ok: m2 .* answers in/);
  assertTold(examined, 'clock', /^ok: the clock of m1/);
  assertTold(examined, 'port', /^ok: .* is free/);
  assert.equal(examined.ok, true);
  assert.deepEqual([snapshot(m3.folder), (await cluster.ask<Status>('m1', 'status')).pid], before);
});

test('a daemon elsewhere on this host, by the lock of the state folder: its links are left alone', async () => {
  const elsewhere = join(m1.folder, 'elsewhere.sock');
  const examined = await examine(m1, '--socket', elsewhere);
  assertTold(examined, 'members', /^skipped: not asked: a daemon has locked/);
});

test('another program at the port', async () => {
  const script = `require('node:net').createServer().listen(7443, '${m3.address}', () => console.log('ready'))`;
  const other = m3.spawn([process.execPath, '-e', script]);
  await other.waitForLine(/ready/);
  const examined = await examine(m3);
  assertTold(examined, 'port', /^error: .*:7443 is in use by node \(pid \d+\) → stop that one/);
  assert.equal(examined.ok, false);
  await other.stop();
});

test('a key that others may read, with the chmod to type; and typed, it is well', async () => {
  const key = join(m3.folder, 'pki', 'host.key');
  chmodSync(key, 0o644);
  const examined = await examine(m3);
  assertTold(examined, 'keys', /^error: .*mode 0644.* → chmod 0600 /);
  assertTold(examined, 'members', /^skipped: not asked: without this host's certificate/);
  const advice = examined.told('keys')[0].split(' → ')[1];
  assert.equal((await run(['sh', '-c', advice])).status, 0);
  assert.equal((await examine(m3)).ok, true);
});

test('a certificate that ends soon, one of another CA, and a config with mistakes', async () => {
  const certificate = { certificate: join(m3.folder, 'pki', 'host.crt'), key: join(m3.folder, 'pki', 'host.key') };
  const kept = Object.values(certificate).map((path) => [path, readFileSync(path)] as const);
  const stranger = await issueAuthority({ cluster: 'lab', clock: systemClock });
  await writeIdentity(
    certificate,
    await issueHost({ authority: stranger, cluster: 'lab', host: 'm3', clock: systemClock, validDays: 5 }),
  );
  const examined = await examine(m3);
  assertTold(examined, 'certificates', /^error: .*was not issued by the CA/, /^warning: .*(4|5) days → /);
  assert.equal(examined.ok, false);
  for (const [path, bytes] of kept) writeFileSync(path, bytes);

  const path = join(m3.folder, 'broken.yaml');
  writeFileSync(path, readFileSync(cluster.configPath(m3), 'utf8').replace('listen:', 'lisen:'));
  const broken = await examine(m3, '--config', path);
  assertTold(broken, 'config', /^error: .*broken\.yaml:3: unknown key "lisen"; did you mean "listen"\?/);
  assertTold(broken, 'certificates', /^skipped/);
  rmSync(path);
  const missing = await examine(m3, '--config', path);
  assertTold(missing, 'config', /^hint: there is no .*broken\.yaml/);
  assert.equal(missing.status, 0);
});

test('a full state folder', { skip: process.getuid?.() === 0 ? false : 'mounting needs root' }, async () => {
  const script = `mount -t tmpfs -o size=64k,mode=0700 tmpfs "$1" && { dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null; shift; exec "$@"; }`;
  const doctor = [...netbusProgram(), 'doctor', '--json', '--config', cluster.configPath(m3), ...folders(m3)];
  const argv = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', m3.stateDir, ...doctor];
  const { status, stdout } = await run(m3.command(argv));
  const { checks } = JSON.parse(stdout) as Diagnosis;
  const found = checks
    .filter(({ check, result }) => check === 'state folder' && result === 'error')
    .map((finding) => finding.found);
  assert.match(found.join('\n'), /0 bytes free of 64 KiB: no export, attachment or lease can be stored/);
  assert.match(found.join('\n'), /nothing can be written.*ENOSPC/);
  assert.equal(status, 1);
});

test('a user who is not root: what cannot be seen is said, and the daemon is not asked past its permissions', {
  skip: process.getuid?.() === 0 ? false : 'needs root, to become somebody else',
}, async () => {
  const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const command = [...nobody, ...netbusProgram(), 'doctor', '--json', '--config', '/nonexistent', ...folders(m1)];
  const { stdout, stderr } = await run(m1.command(command), { cwd: '/' });
  assert.equal(stderr, '');
  const { checks } = JSON.parse(stdout) as Diagnosis;
  const user = checks.find(({ check }) => check === 'user');
  assert.equal(user?.result, 'warning');
  assert.match(user?.advice ?? '', /usermod -aG netbus/);
  assert.equal(checks.find(({ check }) => check === 'daemon')?.result, 'warning');
});

test('interrupted: 130', async () => {
  // A host that takes connections and says nothing keeps the doctor waiting.
  const script = `require('node:net').createServer(() => console.log('asked')).listen(7443, '${m3.address}', () => console.log('ready'))`;
  const silent = m3.spawn([process.execPath, '-e', script]);
  await silent.waitForLine(/ready/);
  await cluster.stopDaemon(m1);
  const doctor = m1.spawn([...netbusProgram(), 'doctor', '--config', cluster.configPath(m1), ...folders(m1)]);
  await silent.waitForLine(/asked/);
  doctor.signal('SIGINT');
  assert.deepEqual(await doctor.exited, { status: 130, signal: undefined });
  assert.equal(doctor.stderr, '');
  await silent.stop();
  await cluster.startDaemon(m1);
});

/** Every file of a folder with its size and times. */
function snapshot(folder: string): string[] {
  const files = readdirSync(folder, { recursive: true }) as string[];
  return files.sort().map((file) => {
    const { size, mode, mtimeMs } = statSync(join(folder, file));
    return `${file} ${size} ${mode} ${mtimeMs}`;
  });
}
