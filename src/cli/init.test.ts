/** `netbus init` as a process. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '../../test/support/process.ts';
import { netbusProgram } from '../../test/support/program.ts';

const base = mkdtempSync(join(tmpdir(), 'netbus-cli-init-'));
after(() => rmSync(base, { recursive: true }));

const netbus = (...argv: string[]) => run([...netbusProgram(), ...argv]);

function folders(name: string): string[] {
  const place = (folder: string) => join(base, name, folder);
  return ['--config', join(place('etc'), 'netbus.yaml'), '--state-dir', place('state'), '--run-dir', place('run')];
}

test('init says what it made, what to do with the root key, and what comes next', async () => {
  const config = join(base, 'text', 'etc', 'netbus.yaml');
  const argv = ['init', '--cluster', 'lab', '--host', 'm1', '--address', '10.0.0.1', ...folders('text')];
  const { status, stdout, stderr } = await netbus(...argv);
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^made cluster lab, with this host as m1 at 10\.0\.0\.1:7443\n/);
  assert.match(stdout, /pki\/ca\.key is the root key\. .*\n.*copy it to a safe place|copy it to a safe place/);
  assert.ok(stdout.includes(`  netbus daemon --config ${config}`), stdout);
  assert.match(stdout, /\n {2}netbus invite HOST/);
  for (const line of stdout.split('\n').filter((each) => each.startsWith('  /'))) assert.ok(existsSync(line.trim()), line);

  const again = await netbus(...argv);
  assert.deepEqual([again.status, again.stdout], [4, '']);
  assert.match(again.stderr, /^netbus: .*ca\.crt is there already, and nothing is overwritten: .*\n$/);
});

test('init with --json, and what is wrong in one line', async () => {
  const good = await netbus('init', '--cluster', 'lab', '--host', 'm1', '--address', '10.0.0.1', '--json', ...folders('json'));
  const answer = JSON.parse(good.stdout);
  assert.equal(answer.files.length, 9);
  assert.match(answer.caFingerprint, /^[0-9a-f]{64}$/);
  for (const [argv, told] of [
    [['--host', 'm1'], /required option '--cluster <name>' not specified/],
    [['--cluster', 'lab', '--host', 'M 1', '--address', '10.0.0.1'], /"M 1" cannot name a host/],
    [['--cluster', 'lab', '--host', 'm1', '--address', '10.0.0'], /"10\.0\.0" is not an address/],
  ] as const) {
    const { status, stdout, stderr } = await netbus('init', ...argv, ...folders('wrong'));
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, told);
    assert.match(stderr, /^netbus: [^\n]+\n$/);
  }
  assert.ok(!readdirSync(base).includes('wrong'));
});
