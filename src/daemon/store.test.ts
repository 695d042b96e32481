import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { StoredRecord } from './record.ts';
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
    assert.equal(JSON.parse(readFileSync(join(folder, 'a.json'), 'utf8')).disk, '/29');
    assert.deepEqual(readdirSync(folder), ['a.json']);
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
});
