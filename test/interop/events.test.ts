/** `netbus events` and `netbus status` as processes before real daemons: what is watched, how it ends, and what a restart keeps. */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ControlClient, controlSocket } from '../../src/api/client.ts';
import type { EventEntry, EventHistory } from '../../src/api/events.ts';
import { Cleanup } from '../support/cleanup.ts';
import { type Cluster, netbusProgram, startCluster } from '../support/cluster.ts';
import type { Host } from '../support/hosts.ts';
import { startProcess } from '../support/process.ts';
import { waitFor } from '../support/wait.ts';

const cleanup = new Cleanup();
let cluster: Cluster;
let m1: Host;

before(async () => {
  cluster = await startCluster(['m1', 'm2'], { cleanup });
  m1 = cluster.host('m1');
});
after(() => cleanup.run());

/** `netbus ARGV` on m1, in the background. */
function start(...argv: string[]) {
  const env: Record<string, string> = m1.kind === 'namespace' ? {} : { NETBUS_RUN_DIR: m1.runDir };
  return startProcess(m1.command([...netbusProgram(), ...argv]), cleanup, { env });
}

function image(name: string): string {
  const path = join(m1.folder, name);
  writeFileSync(path, '');
  truncateSync(path, 1024 * 1024);
  return path;
}

test('watched events come as they happen, and Ctrl-C ends it', async () => {
  const text = start('events', '--watch');
  const json = start('events', '--watch', '--json', '--type', 'export');
  await text.waitForLine(/daemon\.started +m1 +the daemon starts/);
  const client = new ControlClient({ socketPath: m1.path(controlSocket(m1.runDir)) });
  // The second one has nothing to say yet: ask until it is certainly there.
  await waitFor('an event', async () => {
    await client.export({ name: 'seen', disk: image('seen.img'), allow: ['m2'] });
    await client.unexport('seen');
    return json.stdout !== '';
  });
  await text.waitForLine(/export\.added +seen +.*seen\.img is exported, read and write, for m2/);
  await json.waitForLine(/"type":"export\.removed"/);
  for (const line of json.stdout.trimEnd().split('\n')) assert.match((JSON.parse(line) as EventEntry).type, /^export\./);
  for (const process of [text, json]) {
    process.signal('SIGINT');
    assert.deepEqual(await process.exited, { status: 130, signal: undefined });
    assert.equal(process.stderr, '');
  }
});

test('a restart ends the watch with a word and 5, and keeps the events; a kill is told', async () => {
  await cluster.ask('m1', 'export', 'kept', '--disk', image('kept.img'), '--allow', 'm2');
  const watch = start('events', '--watch');
  await watch.waitForLine(/export\.added +kept/);
  await cluster.stopDaemon(m1);
  assert.equal((await watch.exited).status, 5);
  assert.match(watch.stderr, /^netbus: the daemon at \S+ has ended: [^\n]+\n$/);
  await cluster.startDaemon(m1);
  const { events } = await cluster.ask<EventHistory>('m1', 'events', '--since', '1h');
  assert.ok(events.some(({ type, subject }) => type === 'export.added' && subject === 'kept'));
  assert.equal(events.filter(({ type }) => type === 'daemon.started').length, 2);
  assert.ok(events.every(({ severity }) => severity === 'info'));

  await waitFor(
    'the export',
    async () => (await cluster.ask<EventHistory>('m1', 'events', '--type', 'export.ready')).events.length > 0,
  );
  const daemon = cluster.daemon('m1');
  daemon.signal('SIGKILL');
  await daemon.exited;
  await cluster.startDaemon(m1);
  const last = (await cluster.ask<EventHistory>('m1', 'events', '--type', 'daemon', '--limit', '1')).events[0];
  assert.equal(last.severity, 'warning');
  assert.match(last.message, /the one before ended without a word/);
  await cluster.ask('m1', 'unexport', 'kept');
});

test('a host that is away is told by ls and by status, with when it was seen', async () => {
  await cluster.ask('m1', 'ls');
  await cluster.stopDaemon(cluster.host('m2'));
  await waitFor('the loss', async () =>
    /^the link with m2 is down since /m.test((await cluster.netbus('m1', 'status')).stdout),
  );
  const ls = await cluster.netbus('m1', 'ls');
  assert.equal(ls.status, 0);
  assert.match(ls.stderr, /^netbus: warning: m2: [^\n]+; last seen [^\n]+ ago\n$/);
  await cluster.startDaemon(cluster.host('m2'));
});
