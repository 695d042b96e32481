import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Batch } from './batch.ts';
import { FreeRows, MessageTable, TABLE_ROWS_MAX } from './message-table.ts';

test('a table has a bound', () => {
  for (const rows of [0, -1, 1.5, TABLE_ROWS_MAX + 1]) assert.throws(() => new MessageTable(rows), RangeError);
  assert.equal(new MessageTable(TABLE_ROWS_MAX).capacity, TABLE_ROWS_MAX);
});

test('a row keeps its segments', () => {
  const table = new MessageTable(2);
  assert.equal(table.segments(1), table.segments(1));
  assert.notEqual(table.segments(0), table.segments(1));
});

test('free rows: the last returned is the first handed out, and then there are none', () => {
  const free = new FreeRows(3);
  assert.deepEqual([free.take(), free.take()], [0, 1]);
  free.give(0);
  assert.equal(free.count, 2);
  assert.deepEqual([free.take(), free.take(), free.take()], [0, 2, -1]);
});

test('a batch drops what was taken and keeps the order of the rest', () => {
  const batch = new Batch(new MessageTable(8));
  for (const row of [5, 3, 7, 1]) batch.add(row);
  batch.drop(2);
  assert.deepEqual([...batch.rows.subarray(0, batch.count)], [7, 1]);
  batch.drop(2);
  assert.equal(batch.count, 0);
});
