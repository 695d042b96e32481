import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { StoredRecord } from './record.ts';
import { type RecordFiles, systemFiles } from './record-files.ts';
import { type ExportRecord, exportRecordSchema } from './records.ts';
import { RecordStore } from './store.ts';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);

function record(name: string): ExportRecord {
  return { version: 1, name, disk: '/d', readOnly: false, direct: false, allow: ['m2'], reopened: 0, createdAt: 'now' };
}

describe('record store', () => {
  let folder: string;
  let store: RecordStore<ExportRecord>;

  beforeEach(() => {
    folder = join(mkdtempSync(join(tmpdir(), 'netbus-store-')), 'exports');
    store = new RecordStore(folder, exportRecordSchema);
  });
  afterEach(() => rmSync(join(folder, '..'), { recursive: true }));

  test('keeps what was put and forgets what was removed', async () => {
    assert.equal((await store.load(NOW)).records.size, 0);
    await store.put('a', record('a'));
    await store.put('b', record('b'));
    await store.remove('a');
    await store.remove('never');
    const { records, damaged } = await new RecordStore(folder, exportRecordSchema).load(NOW);
    assert.deepEqual([...records], [['b', record('b')]]);
    assert.deepEqual(damaged, []);
  });

  test('puts of one key are kept in order', async () => {
    await store.load(NOW);
    const puts = Array.from({ length: 30 }, (_, i) => store.put('a', { ...record('a'), disk: `/${i}` }));
    await Promise.all(puts);
    assert.deepEqual(readdirSync(folder), ['a.json']);
    assert.equal((await new RecordStore(folder, exportRecordSchema).load(NOW)).records.get('a')?.disk, '/29');
  });

  test('sets damaged records aside by name and goes on with the rest', async () => {
    await store.load(NOW);
    await store.put('good', record('good'));
    writeFileSync(join(folder, 'half.json'), '{"version":1,"na');
    writeFileSync(join(folder, 'odd.json'), JSON.stringify({ ...record('odd'), allow: 3 }));
    writeFileSync(join(folder, 'later.json'), JSON.stringify({ ...record('later'), version: 2 }));
    const { records, damaged } = await store.load(NOW);
    assert.deepEqual([...records.keys()], ['good']);
    assert.deepEqual(
      damaged.map(({ file }) => file),
      ['half', 'later', 'odd'].map((name) => join(folder, `${name}.json`)),
    );
    assert.match(damaged[1].reason, /version 2/);
    assert.match(damaged[2].reason, /^allow: /);
    assert.ok(readdirSync(folder).includes('half.json.damaged-2026-01-02T03-04-05-000Z'));
    assert.deepEqual((await store.load(NOW)).damaged, []);
  });

  test('removes the temporaries of interrupted writes', async () => {
    await store.load(NOW);
    writeFileSync(join(folder, '.tmp-a'), '{"ver');
    assert.equal((await store.load(NOW)).records.size, 0);
    assert.deepEqual(readdirSync(folder), []);
  });

  test('a failed write keeps the old record, in memory too', async () => {
    await store.load(NOW);
    const stored = new StoredRecord(store, 'a', record('a'));
    await stored.save();
    rmSync(folder, { recursive: true });
    await assert.rejects(
      stored.change((value) => ({ ...value, disk: '/other' })),
      { code: 'device', message: /cannot be stored/ },
    );
    assert.equal(stored.value.disk, '/d');
  });

  test('a removed record does not come back by a late change', async () => {
    await store.load(NOW);
    const stored = new StoredRecord(store, 'a', record('a'));
    await stored.save();
    const removed = stored.remove();
    await assert.rejects(
      stored.change((value) => ({ ...value, disk: '/late' })),
      { code: 'ended' },
    );
    await removed;
    assert.deepEqual(readdirSync(folder), []);
  });

  test('a record that is there is changed by one write, and one that grows gets a new file', async () => {
    const calls: string[] = [];
    const noted = recording(calls);
    const watched = new RecordStore(folder, exportRecordSchema, noted);
    await watched.load(NOW);
    await watched.put('a', record('a'));
    calls.length = 0;
    await watched.put('a', { ...record('a'), disk: '/other' });
    // Each of these takes six characters of the file.
    await watched.put('a', { ...record('a'), disk: `/${'ä'.repeat(2000)}` });
    assert.deepEqual(calls, ['overwrite', 'write', 'rename', 'syncFolder']);
    // A daemon that starts again goes on in the same file.
    const next = new RecordStore(folder, exportRecordSchema, noted);
    await next.load(NOW);
    calls.length = 0;
    await next.put('a', { ...record('a'), disk: '/ä€😀' });
    assert.deepEqual(calls, ['overwrite']);
    assert.equal((await store.load(NOW)).records.get('a')?.disk, '/ä€😀');
  });

  test('a record that was written by hand is one, and a file that is gone is made again', async () => {
    await store.load(NOW);
    writeFileSync(join(folder, 'a.json'), JSON.stringify(record('a')));
    assert.deepEqual((await store.load(NOW)).records.get('a'), record('a'));
    await store.put('a', { ...record('a'), disk: '/other' });
    rmSync(join(folder, 'a.json'));
    await store.put('a', { ...record('a'), disk: '/third' });
    assert.equal((await store.load(NOW)).records.get('a')?.disk, '/third');
    truncateSync(join(folder, 'a.json'), 100);
    assert.equal((await store.load(NOW)).damaged.length, 1);
  });

  test('stopped at any step of a write, done or half done, it has the last record that was stored or the one on its way', async () => {
    // A new file, writes into it, one that needs a new file again, and a removal.
    const disks = ['/1', '/2', '/3', `/${'ä'.repeat(3000)}`, '/5'];
    let stopped = true;
    for (let step = 0; stopped; step++) {
      for (const how of ['before', 'half', 'after'] as const) {
        rmSync(folder, { recursive: true, force: true });
        const stop = stoppingAt(step, how);
        const doomed = new RecordStore(folder, exportRecordSchema, stop.files);
        await store.load(NOW);
        let stored: string | undefined;
        let wanted: string | undefined;
        const work = async () => {
          await doomed.load(NOW);
          for (const disk of disks) {
            wanted = disk;
            await doomed.put('a', { ...record('a'), disk });
            stored = disk;
          }
          wanted = undefined;
          await doomed.remove('a');
          stored = undefined;
        };
        await Promise.race([work(), stop.stopped]);
        const { records, damaged } = await new RecordStore(folder, exportRecordSchema).load(NOW);
        assert.deepEqual(damaged, []);
        const found = records.get('a')?.disk;
        assert.ok(found === stored || found === wanted, `${how} step ${step}: ${found?.slice(0, 9)}`);
        stopped = stop.isStopped();
      }
    }
  });
});

function recording(calls: string[]): RecordFiles {
  return new Proxy(systemFiles, {
    get: (files, name: keyof RecordFiles) => {
      return (...values: never[]) => {
        calls.push(name);
        return (files[name] as (...values: never[]) => Promise<unknown>)(...values);
      };
    },
  });
}

/** The process ends at the step of that number: nothing after it happens, and whoever waits for it waits in vain. */
function stoppingAt(
  step: number,
  how: 'before' | 'half' | 'after',
): { files: RecordFiles; stopped: Promise<void>; isStopped: () => boolean } {
  let steps = 0;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  const files = new Proxy(systemFiles, {
    get: (real, name: keyof RecordFiles) => {
      return async (...values: unknown[]) => {
        const call = real[name] as (...values: unknown[]) => Promise<unknown>;
        const number = steps++;
        if (number < step) return call(...values);
        if (number === step) {
          const content = values.findIndex((value, index) => index > 0 && typeof value === 'string' && name.endsWith('write'));
          const isHalf = how === 'half' && content > 0;
          if (isHalf) values[content] = (values[content] as string).slice(0, (values[content] as string).trimEnd().length / 2);
          if (how === 'after' || isHalf) await call(...values);
          stop();
        }
        return new Promise(() => {});
      };
    },
  });
  return { files, stopped, isStopped: () => steps > step };
}
