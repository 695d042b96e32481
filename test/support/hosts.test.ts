import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Cleanup } from './cleanup.ts';
import { createHosts, hostKind } from './hosts.ts';
import { RunningProcess, run, runOk } from './process.ts';
import { NOT_POSSIBLE_HERE } from './skip.ts';
import { waitFor, waitForListener } from './wait.ts';

const cleanup = new Cleanup();
after(() => cleanup.run());

const { reason } = await hostKind();
const skip = reason === undefined ? false : `${NOT_POSSIBLE_HERE}${reason}`;

/** Listens at argv[1]:argv[2] and says so; the peer gets a greeting. */
const SERVER = `require('net').createServer((s) => s.end('hello from ' + require('os').hostname()))
  .listen(Number(process.argv[2]), process.argv[1], () => console.log('listening'))`;
const CLIENT = `require('net').connect(Number(process.argv[2]), process.argv[1]).pipe(process.stdout)`;

describe('hosts as namespaces', { skip }, () => {
  test('reach each other, have their own names and folders, and leave nothing behind', async () => {
    const hosts = await createHosts(['m1', 'm2', 'm3'], cleanup, 'namespace');
    const [m1, m2] = [hosts.get('m1'), hosts.get('m2')];

    const server = m1.spawn(['node', '-e', SERVER, m1.address, '7000']);
    await server.waitForLine(/^listening$/);
    assert.equal(await runOk(m2.command(['node', '-e', CLIENT, m1.address, '7000'])), 'hello from m1');

    await runOk(m1.command(['sh', '-c', 'echo one >/run/netbus/file; echo kept >/var/lib/netbus/file']));
    assert.equal((await run(m2.command(['test', '-e', '/run/netbus/file']))).status, 1);
    assert.equal(readFileSync(m1.path('/run/netbus/file'), 'utf8'), 'one\n');
    assert.equal(readFileSync(join(m1.folder, 'state', 'file'), 'utf8'), 'kept\n');
    assert.equal(await runOk(m2.command(['cat', join(m1.folder, 'state', 'file')])), 'kept\n');

    // A program that its starter lost sight of ends with the host too.
    await runOk(m2.command(['sh', '-c', 'setsid sleep 1000 >/dev/null 2>&1 &']));
    const namespaces = namespacesBelow(process.pid);
    assert.equal(namespaces.length, 12, 'network, mounts and name of three hosts and the bridge');
    await hosts.remove();
    assert.deepEqual(alive(namespaces), []);
    assert.equal(existsSync(m1.folder), false);
    assert.ok(!readFileSync('/proc/mounts', 'utf8').includes(dirname(m1.folder)));
    await server.exited;
  });

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
    test(`leave nothing behind when their owner ends by ${signal}`, async () => {
      const owner = new RunningProcess(
        [process.execPath, '--import', 'tsx', fileURLToPath(new URL('./hosts-owner.ts', import.meta.url))],
        {},
      );
      const [, folder] = await owner.waitForLine(/^hosts in (.*)$/);
      const namespaces = namespacesBelow(owner.pid);
      assert.equal(namespaces.length, 9);
      owner.signal(signal);
      assert.equal((await owner.exited).signal, signal);
      await waitFor('the namespaces to be gone', () => alive(namespaces).length === 0);
      // Nobody can tidy up files after SIGKILL; everything else is the kernel's to end.
      assert.equal(existsSync(folder!), signal === 'SIGKILL');
      if (signal === 'SIGKILL') await runOk(['rm', '-r', folder!]);
    });
  }
});

test('hosts as loopback addresses have their own addresses and folders, and leave nothing behind', async () => {
  const hosts = await createHosts(['m1', 'm2'], cleanup, 'loopback');
  const [m1, m2] = [hosts.get('m1'), hosts.get('m2')];
  const server = m1.spawn(['node', '-e', SERVER, m1.address, '7000']);
  await server.waitForLine(/^listening$/);
  assert.match(await runOk(m2.command(['node', '-e', CLIENT, m1.address, '7000'])), /^hello from/);
  assert.notEqual(m1.runDir, m2.runDir);
  assert.ok(existsSync(m1.runDir) && existsSync(m1.stateDir));
  assert.throws(() => hosts.get('m3'), /no host m3 among m1, m2/);
  await hosts.remove();
  assert.equal(server.ended, true);
  assert.equal(existsSync(m1.folder), false);
});

test('a listener is seen without connecting to it', async () => {
  const folder = (await runOk(['mktemp', '-d'])).trim();
  cleanup.add(folder, async () => void (await runOk(['rm', '-r', folder])));
  const path = join(folder, 'socket');
  await assert.rejects(waitForListener(path, process.pid, 30), /waited 30 ms for a listener at/);
  const server = createServer(() => assert.fail('nobody may connect'));
  server.listen(path);
  await waitForListener(path, process.pid);
  server.close();
});

/** Namespaces of the processes that `owner` started, its own left out. */
function namespacesBelow(owner: number): string[] {
  const own = namespacesOf(owner);
  const children = processes().filter((pid) => parentOf(pid) === owner);
  return [...new Set(children.flatMap(namespacesOf))].filter((name) => !own.includes(name));
}

/** Those of the namespaces that some process is still in. */
function alive(namespaces: readonly string[]): string[] {
  const present = new Set(processes().flatMap(namespacesOf));
  return namespaces.filter((name) => present.has(name));
}

function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function namespacesOf(pid: number): string[] {
  return ['net', 'mnt', 'uts'].flatMap((kind) => look(() => readlinkSync(`/proc/${pid}/ns/${kind}`)) ?? []);
}

function parentOf(pid: number): number | undefined {
  return look(() => Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]));
}

/** A process may end between two looks. */
function look<T>(at: () => T): T | undefined {
  try {
    return at();
  } catch {
    return undefined;
  }
}
