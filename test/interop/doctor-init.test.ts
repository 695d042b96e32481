/** `netbus doctor` on a host that `netbus init` has just made: whoever follows the manual is told of no mistake. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Diagnosis } from '../../src/daemon/doctor/doctor.ts';
import { Cleanup } from '../support/cleanup.ts';
import { GrowingCluster } from '../support/growing-cluster.ts';

/** What init and the daemon have made; the other checks are of the machine. */
const MADE = ['config', 'keys', 'certificates', 'root key', 'state folder', 'run folder', 'port', 'member list', 'members'];

const cleanup = new Cleanup();
let cluster: GrowingCluster;
before(async () => {
  cluster = await GrowingCluster.make(['m1'], cleanup);
  // As on a new host: init makes it.
  rmSync(cluster.host('m1').stateDir, { recursive: true, force: true });
  await cluster.init('m1', 'lab');
});
after(() => cleanup.run());

async function examine(): Promise<Diagnosis> {
  const { folder, stateDir, runDir } = cluster.host('m1');
  const places = ['--config', join(folder, 'netbus.yaml'), '--state-dir', stateDir, '--run-dir', runDir];
  const { status, stdout, stderr } = await cluster.netbus('m1', 'doctor', '--json', ...places);
  assert.deepEqual([status, stderr], [0, '']);
  const diagnosis = JSON.parse(stdout) as Diagnosis;
  assert.equal(diagnosis.results.error, 0);
  for (const { check, result, found, advice } of diagnosis.checks) {
    if (result === 'warning' || result === 'hint') assert.ok(advice, `${check}: ${found}: and what is to be done?`);
  }
  return diagnosis;
}

/** Of the checks of what was made, those that are not well; that the root's key is to be put away, init has said, too. */
function notWell({ checks }: Diagnosis): string[] {
  assert.equal(checks.find(({ check }) => check === 'root key')?.result, 'hint');
  return checks
    .filter(({ check, result }) => check !== 'root key' && MADE.includes(check) && result !== 'ok')
    .map(({ check, found }) => `${check}: ${found}`);
}

test('before the daemon runs: to start it is all that is to be done', async () => {
  const diagnosis = await examine();
  const daemon = diagnosis.checks.find(({ check }) => check === 'daemon');
  assert.equal(daemon?.result, 'warning');
  assert.match(daemon?.advice ?? '', /netbus daemon --config/);
  assert.deepEqual(
    notWell(diagnosis).filter((line) => !line.startsWith('run folder: ')),
    [],
  );
});

test('with the daemon: all that was made is well', async () => {
  await cluster.start('m1');
  const diagnosis = await examine();
  assert.equal(diagnosis.checks.find(({ check }) => check === 'daemon')?.result, 'ok');
  assert.deepEqual(notWell(diagnosis), []);
});
