import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { Hono } from 'hono';
import { waitFor } from '../../test/support/wait.ts';
import { ControlClient } from '../api/client.ts';
import type { EventEntry, EventHistory } from '../api/events.ts';
import { NetbusError } from '../device/errors.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { answerEvents, WATCH_BACKLOG_MAX } from './event-routes.ts';
import { Events, WATCHERS_MAX } from './events.ts';
import { type ControlServer, serveControl } from './server.ts';

describe('GET /v1/events', () => {
  let folder: string;
  let events: Events;
  let app: Hono;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-events-'));
  });
  after(() => rmSync(folder, { recursive: true }));
  beforeEach(async () => {
    rmSync(join(folder, 'events.ndjson'), { force: true });
    events = new Events({ host: 'm2', path: join(folder, 'events.ndjson'), clock: systemClock, log: silentLog });
    await events.open();
    app = new Hono();
    app.get('/v1/events', (context) => answerEvents(context, events));
    app.onError((error, context) => context.json({ error: { ...NetbusError.from(error), message: error.message } }, 400));
  });
  afterEach(() => events.close());

  const lost = (i: number) =>
    events.record({
      type: 'session.lost',
      subject: `vm${i}/data`,
      message: 'x'.repeat(250),
      details: { reason: 'y'.repeat(150) },
    });
  const types = async (query: string) => {
    const response = await app.request(`/v1/events${query}`);
    return ((await response.json()) as EventHistory).events.map(({ type }) => type);
  };

  test('the history, and what is asked of it', async () => {
    lost(1);
    events.record({ type: 'link.up', subject: 'm1', message: 'up' });
    assert.deepEqual(await types(''), ['daemon.started', 'session.lost', 'link.up']);
    assert.deepEqual(await types('?limit=1'), ['link.up']);
    assert.deepEqual(await types('?type=session'), ['session.lost']);
    assert.deepEqual(await types('?since=2100-01-01'), []);
    assert.deepEqual(await types('?since=2000-01-01T00:00:00Z&type=daemon.started'), ['daemon.started']);
  });

  test('what makes no sense is refused', async () => {
    for (const [query, message] of [
      ['since=yesterday', /since: "yesterday" is no time/],
      ['limit=-1', /limit: "-1"/],
      ['limit=1e9', /limit/],
      ['limit=1001', /from 0 to 1000/],
      ['type=links', /no events "links": take a type, .*session/],
      ['type=', /no events ""/],
    ] as const) {
      const response = await app.request(`/v1/events?${query}`);
      assert.equal(response.status, 400);
      assert.match(((await response.json()) as { error: { message: string } }).error.message, message);
    }
  });

  test('a watch that nobody reads ends with a line that says so, and costs nobody else anything', async () => {
    const response = await app.request('/v1/events?watch=true&type=session');
    for (let i = 0; i < 2 * WATCH_BACKLOG_MAX; i++) lost(i);
    const lines = (await response.text()).trimEnd().split('\n');
    assert.equal(lines.length, WATCH_BACKLOG_MAX + 1);
    assert.equal((JSON.parse(lines[0]) as EventEntry).subject, 'vm0/data');
    assert.match(lines.at(-1)!, /^\{"error":\{"code":"limit","message":"more than 256 events were waiting/);
    assert.equal(events.list({ type: 'session' }).length, 2 * WATCH_BACKLOG_MAX);
    // It is none of the watchers any more.
    const others = Array.from({ length: WATCHERS_MAX }, () => events.watch({ changed() {}, ended() {} }));
    for (const unwatch of others) unwatch();
  });

  describe('over the control socket', () => {
    let server: ControlServer;
    let client: ControlClient;
    const socketPath = () => join(folder, 'netbus.sock');
    beforeEach(async () => {
      server = await serveControl(socketPath(), app);
      client = new ControlClient({ socketPath: socketPath() });
    });
    afterEach(async () => {
      events.endWatchers();
      await server.close();
    });

    test('what was and what comes, until the daemon ends', async () => {
      lost(1);
      const seen: string[] = [];
      const watching = client.watchEvents({ limit: 2, type: 'session' }, (entry) => {
        seen.push(entry.subject);
        if (seen.length === 1) lost(2);
        if (seen.length === 2) events.endWatchers();
      });
      await assert.rejects(watching, { code: 'unreachable', message: /the daemon at .* has ended/ });
      assert.deepEqual(seen, ['vm1/data', 'vm2/data']);
      await assert.rejects(
        client.watchEvents({ type: 'links' }, () => {}),
        { code: 'usage', message: /no events "links"/ },
      );
    });

    test('a watcher that goes makes room for another', async () => {
      const sockets = Array.from({ length: WATCHERS_MAX }, () => connect(socketPath()));
      const answered = sockets.map((socket) => new Promise((resolve) => socket.once('data', resolve)));
      for (const socket of sockets) socket.write('GET /v1/events?watch=true&limit=1 HTTP/1.1\r\nhost: netbus\r\n\r\n');
      await Promise.all(answered);
      await assert.rejects(
        client.watchEvents({}, () => {}),
        { message: /32 others watch/ },
      );
      sockets[0].destroy();
      const free = () =>
        waitFor('room', () => {
          try {
            return events.watch({ changed() {}, ended() {} });
          } catch {
            return undefined;
          }
        });
      (await free())();
      for (const socket of sockets) socket.destroy();
    });

    test('one that does not read is let go, and reads at its end why', async () => {
      const socket = connect(socketPath());
      socket.write('GET /v1/events?watch=true HTTP/1.1\r\nhost: netbus\r\n\r\n');
      await new Promise((resolve) => socket.once('readable', resolve));
      // The socket's own buffers take some, and then the backlog fills.
      let dropped = false;
      for (let i = 0; i < 20_000 && !dropped; i++) {
        lost(i);
        if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
        dropped = i % 500 === 0 && events.watching === 0;
      }
      assert.equal(events.watching, 0);
      let text = '';
      for await (const chunk of socket.setEncoding('utf8')) {
        text += chunk;
        if (text.includes('"code":"limit"')) break;
      }
      assert.match(text, /"error":\{"code":"limit","message":"more than 256 events/);
    });
  });
});
