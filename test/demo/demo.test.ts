/** The demo as a user runs it, and that it leaves nothing behind, however it ends. */

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Cleanup } from '../support/cleanup.ts';
import { hostKind } from '../support/hosts.ts';
import { startProcess } from '../support/process.ts';
import { waitFor } from '../support/wait.ts';

const DEMO = fileURLToPath(new URL('../../scripts/demo.ts', import.meta.url));
const DEMO_MS_MAX = 240_000;

const cleanup = new Cleanup();
/** The demo's temporary folder: everything that it makes carries this in its path. */
let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'nb-demo-'));
});
after(async () => {
  await cleanup.run();
  rmSync(folder, { recursive: true, force: true });
});

function startDemo(...argv: string[]) {
  return startProcess([process.execPath, '--import', 'tsx', DEMO, ...argv], cleanup, { env: { TMPDIR: folder } });
}

/** Processes other than this one that have the demo's folder in their command line or environment. */
function processesOfDemo(): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  return pids.filter((pid) => {
    try {
      const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8') + readFileSync(`/proc/${pid}/environ`, 'utf8');
      return text.includes(folder);
    } catch {
      return false; // It ended between two looks, or is not ours.
    }
  });
}

/** Its program's name; an empty one where it has ended. */
function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return '';
  }
}

/** Whether it descends from the process that started this one: then it is of these tests, or of others that run beside them, and nothing that was left. */
function isOfTests(pid: string): boolean {
  try {
    // The fields behind the name, which may have any characters: state, parent.
    const parent = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')[1]!;
    return parent === String(process.ppid) || (parent !== '0' && isOfTests(parent));
  } catch {
    return true; // It ended between two looks.
  }
}

/** Network and mount namespaces of these processes, this one's own left out. */
function namespacesOf(pids: readonly string[]): string[] {
  const kinds = ['net', 'mnt', 'uts'];
  const own = kinds.map((kind) => readlinkSync(`/proc/self/ns/${kind}`));
  const all = pids.flatMap((pid) =>
    kinds.flatMap((kind) => {
      try {
        return [readlinkSync(`/proc/${pid}/ns/${kind}`)];
      } catch {
        return [];
      }
    }),
  );
  return [...new Set(all)].filter((name) => !own.includes(name));
}

/** Runs the demo to its good end. The JSON line, the story, and the namespaces that must be gone. */
async function runToEnd(...argv: string[]): Promise<{ result: unknown; story: string; namespaces: string[] }> {
  const demo = startDemo(...argv, '--json');
  await demo.waitForLine(/^2\. /, DEMO_MS_MAX);
  const namespaces = namespacesOf(processesOfDemo());
  const timer = setTimeout(() => demo.signal('SIGTERM'), DEMO_MS_MAX);
  const { status } = await demo.exited;
  clearTimeout(timer);
  assert.equal(status, 0, demo.stderr);
  const lines = demo.stdout.trimEnd().split('\n');
  assert.equal(lines.length, 1, 'stdout has the JSON line and nothing else');
  return { result: JSON.parse(lines[0]!), story: demo.stderr, namespaces };
}

async function assertNothingLeft(namespaces: readonly string[]): Promise<void> {
  await waitFor('all processes of the demo to be gone', () => processesOfDemo().length === 0);
  // The kernel gives a namespace's number to the next one that is made, by whoever runs beside this.
  const others = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && !isOfTests(name));
  const present = namespacesOf(others);
  assert.deepEqual(
    namespaces.filter((name) => present.includes(name)),
    [],
  );
  assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(folder));
  // What compiles the demo's source keeps its cache there.
  const left = readdirSync(folder).filter((name) => !name.startsWith('tsx-'));
  assert.deepEqual(left, []);
}

describe('the demo', () => {
  test('verifies what a guest wrote to a disk of another host, and cleans up', async () => {
    const { result, story, namespaces } = (await runToEnd()) as {
      result: { demo: string; ok: boolean; verifiedBytes: number };
      story: string;
      namespaces: string[];
    };
    assert.equal(result.demo, 'disk');
    assert.equal(result.ok, true);
    assert.ok(result.verifiedBytes >= 64 * 1024 * 1024);
    assert.match(story, /m1# .*netbus export data --disk \S+ --allow m2/);
    await assertNothingLeft(namespaces);
  });

  test('moves a guest over three hosts while it works, and cleans up', async (t) => {
    const { kind, reason } = await hostKind();
    if (kind !== 'namespace') return t.skip(reason);
    const { result, story, namespaces } = (await runToEnd('migrate')) as {
      result: { ok: boolean; errors: number; migrations: { from: string; to: string }[]; svg: string };
      story: string;
      namespaces: string[];
    };
    assert.equal(result.ok, true);
    assert.equal(result.errors, 0);
    assert.deepEqual(
      result.migrations.map(({ from, to }) => `${from} ${to}`),
      ['m1 m2', 'm2 m3', 'm3 m1'],
    );
    assert.match(readFileSync(result.svg, 'utf8'), />m2 to m3: stopped for /);
    // The picture is for the user, and stays.
    rmSync(dirname(result.svg), { recursive: true });
    assert.match(story, /m1# netbus migrate web --to m2 --qmp /);
    await assertNothingLeft(namespaces);
  });

  test('swaps the disk of a guest that works to the host where it is, and cleans up', async (t) => {
    const { kind, reason } = await hostKind();
    if (kind !== 'namespace') return t.skip(reason);
    const { result, story, namespaces } = (await runToEnd('swap')) as {
      result: { demo: string; ok: boolean; errors: number; copiedBytes: number; phases: object[]; svg: string };
      story: string;
      namespaces: string[];
    };
    assert.deepEqual([result.demo, result.ok, result.errors, result.phases.length], ['swap', true, 0, 3]);
    assert.ok(result.copiedBytes >= 64 * 1024 * 1024);
    assert.match(readFileSync(result.svg, 'utf8'), />the switch: [\d.]+ ms without an answer</);
    rmSync(dirname(result.svg), { recursive: true });
    assert.match(story, /m2# netbus swap web\/data --to m2\/data /);
    await assertNothingLeft(namespaces);
  });

  test('leaves nothing behind when it is interrupted while the guest moves', async (t) => {
    const { kind, reason } = await hostKind();
    if (kind !== 'namespace') return t.skip(reason);
    const demo = startDemo('migrate');
    await demo.waitForLine(/^3\. /, DEMO_MS_MAX);
    const namespaces = namespacesOf(processesOfDemo());
    demo.signal('SIGINT');
    assert.deepEqual(await demo.exited, { status: undefined, signal: 'SIGINT' });
    await assertNothingLeft(namespaces);
  });

  // A step of the story, at which the demo is interrupted: daemons start, the guest boots. While it works: see above.
  for (const step of [2, 3]) {
    test(`leaves nothing behind when it is interrupted in step ${step}`, async () => {
      const demo = startDemo();
      await demo.waitForLine(new RegExp(`^${step}\\. `), DEMO_MS_MAX);
      const namespaces = namespacesOf(processesOfDemo());
      demo.signal('SIGINT');
      assert.deepEqual(await demo.exited, { status: undefined, signal: 'SIGINT' });
      await assertNothingLeft(namespaces);
    });
  }

  test('leaves nothing behind when it fails, and says why', async () => {
    const demo = startDemo('--json');
    await demo.waitForLine(/^3\. /, DEMO_MS_MAX);
    const namespaces = namespacesOf(processesOfDemo());
    const qemu = await waitFor('QEMU to run', () => processesOfDemo().find((pid) => nameOf(pid).startsWith('qemu-system')));
    process.kill(Number(qemu), 'SIGKILL');
    const { status } = await demo.exited;
    assert.equal(status, 1);
    const result = JSON.parse(demo.stdout.trimEnd().split('\n').at(-1)!) as { ok: boolean; error: string };
    assert.equal(result.ok, false);
    assert.match(result.error, /guest/);
    await assertNothingLeft(namespaces);
  });

  test('refuses options that it does not have', async () => {
    const demo = startDemo('--jsn');
    assert.equal((await demo.exited).status, 2);
    assert.match(demo.stderr, /usage: npm run demo/);
  });
});
