import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { waitFor } from '../../test/support/wait.ts';
import type { EventEntry } from '../api/events.ts';
import { ManualClock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { EVENT_FILE_BYTES_MAX, EventFile } from './event-file.ts';
import { boundEvent, EVENT_BYTES_MAX } from './event-text.ts';

function event(id: number, more: Partial<EventEntry> = {}): EventEntry {
  const time = new Date(Date.UTC(2026, 0, 1) + id).toISOString();
  const base = { sequence: id, id, time, lastTime: time, count: 1, type: 'link.down', severity: 'warning' } as const;
  return { ...base, about: 'host', subject: `m${id}`, message: 'refusé', details: { code: 'unreachable' }, ...more };
}

describe('the file of events', () => {
  let folder: string;
  let path: string;
  let clock: ManualClock;
  let all: EventEntry[];
  let warnings: string[];
  const log: Log = { debug() {}, info() {}, error() {}, warn: (_fields, message) => void warnings.push(message) };
  const make = (at = path) => new EventFile({ path: at, clock, log, all: () => all });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'netbus-events-'));
    path = join(folder, 'events.ndjson');
    clock = new ManualClock();
    all = [];
    warnings = [];
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function change(file: EventFile, entry: EventEntry, later = false): void {
    all = [...all.filter(({ id }) => id !== entry.id), entry];
    file.changed(entry, later);
  }

  async function written(file: EventFile): Promise<void> {
    await waitFor('all is written', () => file.unwritten === 0);
  }

  test('what was written is read, and the later line of an event counts', async () => {
    const file = make();
    assert.deepEqual(await file.load(), []);
    for (const id of [1, 2, 3]) change(file, event(id));
    const again = event(2, { sequence: 4, count: 2 });
    await written(file);
    change(file, again);
    await file.close();
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(await make().load(), [event(1), event(3), again]);
    assert.deepEqual(warnings, []);
  });

  test('cut at any byte it is read up to there, and goes on', async () => {
    const file = make();
    const [first, second, third] = [event(1), event(2), event(3)];
    for (const entry of [first, second]) change(file, entry);
    await file.close();
    const bytes = readFileSync(path);
    const firstEnd = bytes.indexOf('\n') + 1;
    for (let length = 0; length <= bytes.length; length++) {
      writeFileSync(path, bytes.subarray(0, length));
      const cut = make();
      const read = await cut.load();
      // A line is whole without its end, too.
      const expected = [...(length >= firstEnd - 1 ? [first] : []), ...(length >= bytes.length - 1 ? [second] : [])];
      assert.deepEqual(read, expected, `cut at ${length}`);
      all = read;
      change(cut, third);
      await cut.close();
      assert.deepEqual(await make().load(), [...expected, third], `cut at ${length}, and one more`);
    }
  });

  test('whatever stands in the file, it is read without harm', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.nat(3), async (noise, lines) => {
        const good = Array.from({ length: lines }, (_, i) => event(i + 1));
        writeFileSync(
          path,
          Buffer.concat([noise, Buffer.from(`\n${good.map((entry) => JSON.stringify(entry)).join('\n')}\n`)]),
        );
        assert.deepEqual(await make().load(), good);
      }),
      { numRuns: 100 },
    );
    const odd = [
      'null',
      '1',
      '{}',
      '[]',
      JSON.stringify({ ...event(1), sequence: -1 }),
      JSON.stringify({ ...event(1), details: 1 }),
    ];
    writeFileSync(path, `${odd.join('\n')}\n${JSON.stringify(event(2, { message: 'a\x1b[2Jb' }))}\n`);
    assert.deepEqual(await make().load(), [event(2, { message: 'a [2Jb' })]);
    assert.match(warnings.at(-1)!, /left out/);
  });

  test('it is written anew before it grows beyond its bound', async () => {
    const file = make();
    await file.load();
    let sequence = 0;
    const long = 'x'.repeat(300);
    let longest = 0;
    for (let round = 0; sequence < 30_000; round++) {
      for (let i = 0; i < 1000; i++) change(file, event(i + 1, { sequence: ++sequence, count: round + 1, message: long }));
      await written(file);
      longest = Math.max(longest, statSync(path).size);
    }
    assert.ok(longest > EVENT_FILE_BYTES_MAX / 2 && longest <= EVENT_FILE_BYTES_MAX, `${longest} bytes`);
    await file.close();
    assert.deepEqual(await make().load(), all);
    assert.equal(existsSync(`${path}.new`), false);
  });

  test('an event has its bound in bytes, so the history has', () => {
    const wide = '\u{1f600}'.repeat(2000);
    const details = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`${wide}${i}`, wide]));
    const entry = boundEvent(
      event(1, { sequence: Number.MAX_SAFE_INTEGER, subject: wide, message: '"\\'.repeat(2000), details }),
    );
    assert.ok(Buffer.byteLength(JSON.stringify(entry)) <= EVENT_BYTES_MAX);
    assert.ok(1000 * EVENT_BYTES_MAX < EVENT_FILE_BYTES_MAX);
  });

  test('of a file that is too long the end is read', async () => {
    const line = `${JSON.stringify(event(1, { message: 'x'.repeat(200) }))}\n`;
    writeFileSync(path, line.repeat(Math.ceil(EVENT_FILE_BYTES_MAX / line.length) + 1000));
    appendFileSync(path, `${JSON.stringify(event(2))}\n`);
    const read = await make().load();
    assert.deepEqual(
      read.map(({ id }) => id),
      [1, 2],
    );
    assert.deepEqual(warnings, []);
  });

  test('counting again is written a little later, and once', async () => {
    const file = make();
    change(file, event(1));
    await written(file);
    for (let count = 2; count < 100; count++) change(file, event(1, { sequence: count, count }), true);
    assert.equal(readFileSync(path, 'utf8').split('\n').length, 2);
    clock.advance(1000);
    await written(file);
    assert.equal(readFileSync(path, 'utf8').split('\n').length, 3);
    assert.deepEqual(await make().load(), [event(1, { sequence: 99, count: 99 })]);
  });

  test('a full disk is told once, and what was not stored is stored when there is room', async () => {
    symlinkSync('/dev/full', path);
    const file = make();
    assert.deepEqual(await file.load(), []);
    warnings = [];
    change(file, event(1));
    await waitForFailure(file);
    assert.match(file.failure!, /ENOSPC/);
    for (const id of [2, 3]) change(file, event(id));
    // A retry that has failed begins the next one's time.
    let timers = 0;
    const after = clock.after.bind(clock);
    clock.after = (...given) => {
      timers++;
      return after(...given);
    };
    clock.advance(30_000);
    await waitFor('the retry', () => timers === 1);
    assert.equal(warnings.length, 1);
    assert.equal(file.unwritten, 3);
    rmSync(path);
    clock.advance(30_000);
    await written(file);
    assert.equal(file.failure, undefined);
    assert.deepEqual(await make().load(), [event(1), event(2), event(3)]);
  });

  test('a folder, a missing folder: no events, no harm', async () => {
    mkdirSync(path);
    assert.deepEqual(await make().load(), []);
    const file = make(join(folder, 'none', 'events.ndjson'));
    assert.deepEqual(await file.load(), []);
    change(file, event(1));
    await waitForFailure(file);
    await file.close();
  });

  async function waitForFailure(file: EventFile): Promise<void> {
    await waitFor('the failure', () => file.failure !== undefined);
  }
});
