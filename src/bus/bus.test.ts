/** What a host does with another one as a whole: keeps a link to it, drops it, and goes on with a new certificate of its own. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { type BusPair, busPair, pairAuthority } from '../../test/support/bus-pair.ts';

import { waitFor } from '../../test/support/wait.ts';
import { openNullSource } from '../backends/null/null.ts';
import { NetbusError } from '../device/errors.ts';
import type { EndpointIdentity } from './endpoint.ts';

const pairs: BusPair[] = [];
after(() => Promise.all(pairs.map((pair) => pair.close())));

async function pair(options: Parameters<typeof busPair>[0] = {}): Promise<BusPair> {
  const made = await busPair(options);
  pairs.push(made);
  return made;
}

const linkOf = ({ m2 }: BusPair) => m2.links.status(['m1'])[0];

test('a link that is kept comes up by itself, and says what runs at the other end', async () => {
  const made = await pair();
  assert.equal(linkOf(made).state, 'idle');
  made.m2.links.keep('m1');
  await waitFor('the link', () => linkOf(made).state === 'up');
  assert.equal(linkOf(made).release, '0.0.0');
  assert.ok(linkOf(made).lastSeen !== undefined);
});

test('what a host runs and what both can is known once there is a link', async () => {
  const made = await pair({ m1: { features: ['one', 'two'] }, m2: { features: ['two', 'three'] } });
  assert.deepEqual(await made.m2.links.welcomeOf('m1'), { release: '0.0.0', features: ['two'] });
});

test('a host that is dropped loses links and sessions, in both directions, and is told why', async () => {
  const members = new Set(['m1', 'm2']);
  const admits = (host: string) => (members.has(host) ? undefined : `host ${host} was evicted`);
  const made = await pair({ m1: { admits } });
  const { m1, m2, host } = made;
  const lease = host.add('disk', openNullSource({ capacityBytes: 1024 * 1024 }));
  const ends: NetbusError[] = [];
  const session = await made.open('disk', (cause) => ends.push(cause));
  await session.activate();
  m1.links.keep('m2');
  m2.links.keep('m1');
  await waitFor('the links', () => linkOf(made).state === 'up' && m1.links.status(['m2'])[0].state === 'up');
  members.delete('m2');
  await m1.dropHost('m2', new NetbusError('denied', 'host m2 was evicted'));
  assert.equal(lease.active, false, 'its I/O has ended');
  await waitFor('the session of m2 has ended', () => ends.length === 1);
  assert.match(ends[0].message, /host m2 was evicted/);
  await waitFor('m2 knows why its link is down', () => /host m2 was evicted/.test(linkOf(made).error ?? ''));
  assert.equal(m1.links.status(['m2'])[0].state, 'idle');
  await assert.rejects(made.open('disk'), { code: 'denied', message: /m1 refuses this host: host m2 was evicted/ });
});

test('a device host that is dropped is lost to its VM side at once', async () => {
  const made = await pair();
  made.host.add('disk', openNullSource({ capacityBytes: 1024 * 1024 }));
  const ends: NetbusError[] = [];
  const session = await made.open('disk', (cause) => ends.push(cause));
  await session.activate();
  await made.m2.dropHost('m1', new NetbusError('denied', 'host m1 was evicted'));
  await waitFor('the end', () => ends.length === 1);
  assert.match(ends[0].message, /host m1 was evicted/);
  session.close();
});

test('a new certificate is used by new connections at once, and ends none that is up', async () => {
  const seen: string[] = [];
  const admits = (host: string, { serialNumber }: { serialNumber: string }) => {
    if (host === 'm2') seen.push(serialNumber);
    return undefined;
  };
  const servers: string[] = [];
  const renewed: EndpointIdentity[] = [await pairAuthority.identity('m1'), await pairAuthority.identity('m2')];
  const made = await pair({
    m1: { admits },
    m2: {
      admits: (_host, { serialNumber }) => {
        servers.push(serialNumber);
        return undefined;
      },
    },
  });
  made.host.add('disk', openNullSource({ capacityBytes: 1024 * 1024 }));
  const ends: NetbusError[] = [];
  const session = await made.open('disk', (cause) => ends.push(cause));
  await session.activate();
  made.m1.useIdentity(renewed[0]);
  made.m2.useIdentity(renewed[1]);
  const second = await made.open('disk');
  await session.quiesced({ queues: [] });
  assert.deepEqual([new Set(seen).size, new Set(servers).size], [2, 2]);
  assert.deepEqual(ends, []);
  assert.throws(() => made.m1.useIdentity(renewed[1]), /stays the same host/);
  session.close();
  second.close();
});
