import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { waitFor } from '../../test/support/wait.ts';
import type { EventEntry } from '../api/events.ts';
import { NetbusError } from '../device/errors.ts';
import { ManualClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { EVENTS_APART_MAX, EVENTS_MAX, Events, FOLD_MS, type NewEvent, WATCHERS_MAX } from './events.ts';

const down: NewEvent = { type: 'link.down', subject: 'm1', message: 'refused' };
const up: NewEvent = { type: 'link.up', subject: 'm1', message: 'up' };

describe('events', () => {
  let folder: string;
  let clock: ManualClock;
  let events: Events;
  const make = () => new Events({ host: 'm2', path: join(folder, 'events.ndjson'), clock, log: silentLog });
  const types = () => events.list().map(({ type, count }) => (count === 1 ? type : `${type} x${count}`));

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-events-'));
    clock = new ManualClock();
    events = make();
    await events.open();
  });
  afterEach(async () => {
    await events.close();
    rmSync(folder, { recursive: true });
  });

  test('an event has its type’s subject and severity, and the time', () => {
    clock.advance(1000);
    events.record({ type: 'session.lost', subject: 'web/data', message: 'm1 is gone', details: { code: 'unreachable' } });
    const [, { sequence, id, ...rest }] = events.list();
    assert.deepEqual([sequence, id], [2, 2]);
    assert.deepEqual(rest, {
      time: '2026-01-01T00:00:01.000Z',
      lastTime: '2026-01-01T00:00:01.000Z',
      count: 1,
      type: 'session.lost',
      severity: 'warning',
      about: 'attachment',
      subject: 'web/data',
      message: 'm1 is gone',
      details: { code: 'unreachable' },
    });
  });

  test('a link that flaps does not push everything else out', () => {
    events.record({ type: 'attachment.added', subject: 'web/data', message: 'attached' });
    for (let i = 0; i < 10 * EVENTS_MAX; i++) {
      clock.advance(1000);
      events.record(i % 2 === 0 ? down : up);
    }
    const apart = (name: string) => new Array(EVENTS_APART_MAX - 1).fill(name);
    const folded = 5 * EVENTS_MAX - EVENTS_APART_MAX + 1;
    assert.deepEqual(types().slice(0, 2), ['daemon.started', 'attachment.added']);
    assert.deepEqual(
      types().slice(2).sort(),
      [...apart('link.down'), `link.down x${folded}`, ...apart('link.up'), `link.up x${folded}`].sort(),
    );
    const last = events.list().at(-1)!;
    assert.equal(last.type, 'link.up');
    assert.equal(Date.parse(last.lastTime) - Date.parse(last.time), 1000 * 2 * (folded - 1));
  });

  test('what is another subject, another user of an export, or long after stands for itself', () => {
    for (let i = 0; i < 2 * EVENTS_APART_MAX; i++) {
      events.record({ ...down, subject: `m${i}` });
      events.record({ type: 'export.granted', subject: 'iso', message: 'granted', details: { user: `m2:vm${i}/iso` } });
      events.record({ type: 'certificate.renewed', subject: 'm2', message: 'renewed' });
      clock.advance(FOLD_MS + 1);
    }
    assert.ok(events.list().every(({ count }) => count === 1));
  });

  test('the history is bounded', () => {
    for (let i = 0; i < 3 * EVENTS_MAX; i++) events.record({ ...down, subject: `m${i}` });
    const all = events.list();
    assert.equal(all.length, EVENTS_MAX);
    assert.equal(all.at(-1)!.subject, `m${3 * EVENTS_MAX - 1}`);
    assert.equal(all[0].subject, `m${2 * EVENTS_MAX}`);
  });

  test('questions: since, limit, type', () => {
    events.record(down);
    clock.advance(60_000);
    events.record(up);
    events.record({ type: 'session.lost', subject: 'web/data', message: 'lost' });
    const ask = (query: Parameters<Events['list']>[0]) => events.list(query).map(({ type }) => type);
    assert.deepEqual(ask({ sinceMs: clock.wallTime() }), ['link.up', 'session.lost']);
    assert.deepEqual(ask({ limit: 1 }), ['session.lost']);
    assert.deepEqual(ask({ limit: 0 }), []);
    assert.deepEqual(ask({ type: 'link' }), ['link.down', 'link.up']);
    assert.deepEqual(ask({ type: 'link.up', limit: 5 }), ['link.up']);
    assert.deepEqual(ask({ type: 'lin' }), []);
  });

  test('texts are bounded, on one line, and cannot speak to a terminal', () => {
    const details = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`name${i}`, 'x'.repeat(150)]));
    events.record({ type: 'link.down', subject: 'm1', message: `a\n\x1b[31mred\u0000 ${'é'.repeat(5000)}`, details });
    const [, { message, details: kept }] = events.list();
    assert.match(message, /^a \[31mred é+…$/);
    assert.equal(message.length, 300);
    assert.equal(Object.keys(kept).length, 3);
  });

  test('a restart keeps the history, goes on counting, and tells a crash from an end', async () => {
    for (let i = 0; i < 10; i++) events.record(down);
    const before = events.list();
    await events.close();
    events = make();
    await events.open({ release: '1.2.3' });
    assert.deepEqual(events.list().slice(0, before.length), before);
    const [stopped, started] = events.list().slice(before.length);
    assert.equal(stopped.type, 'daemon.stopped');
    assert.deepEqual([started.type, started.severity, started.details], ['daemon.started', 'info', { release: '1.2.3' }]);
    events.record(down);
    assert.equal(events.list().at(-1)!.count, 10 - EVENTS_APART_MAX + 2, 'it is still the same flapping');

    // Another one, while this one has not said that it stopped.
    await stored(events);
    const crashed = make();
    await crashed.open();
    const last = crashed.list().at(-1)!;
    assert.deepEqual([last.type, last.severity], ['daemon.started', 'warning']);
    assert.match(last.message, /the one before ended without a word/);
    await crashed.close();
  });

  test('one that could not start says why, and not that it stopped in order', async () => {
    events.failed(new NetbusError('config', 'the certificate is for m9'));
    await events.close();
    events = make();
    await events.open();
    assert.deepEqual(types(), ['daemon.started', 'daemon.failed', 'daemon.started']);
    assert.match(events.list()[1].message, /could not start: the certificate is for m9/);
    assert.equal(events.list()[2].severity, 'info');
  });

  test('before it is open nothing is written: the file may be of another daemon', async () => {
    const other = make();
    other.record(down);
    other.failed(new NetbusError('in_use', 'the state folder is in use'));
    await other.close();
    await events.close();
    events = make();
    await events.open();
    assert.deepEqual(types(), ['daemon.started', 'daemon.stopped', 'daemon.started']);
  });

  test('watchers are told, bounded in number, and told of the end', async () => {
    const told: EventEntry[] = [];
    let ends = 0;
    const watcher = { changed: (entry: EventEntry) => void told.push(entry), ended: () => void ends++ };
    const unwatch = events.watch(watcher);
    for (let i = 0; i < EVENTS_APART_MAX + 2; i++) events.record(down);
    assert.deepEqual(
      told.map(({ count }) => count),
      [1, 1, 1, 2, 3],
    );
    const sequences = told.map(({ sequence }) => sequence);
    assert.deepEqual(sequences, [...new Set(sequences)], 'each change has a number of its own');
    unwatch();
    events.record(down);
    assert.equal(told.length, EVENTS_APART_MAX + 2);
    const others = Array.from({ length: WATCHERS_MAX }, () => events.watch({ ...watcher }));
    assert.throws(() => events.watch(watcher), { code: 'limit' });
    others[0]();
    events.watch(watcher);
    await events.close();
    assert.equal(ends, WATCHERS_MAX);
    assert.throws(() => events.watch(watcher), { code: 'ended' });
  });
});

/** What was recorded is in the file: at the latest when a stop would have ended, but without saying that it stopped. */
async function stored(events: Events): Promise<void> {
  await waitFor('all is stored', () => events.unstored === 0);
}
