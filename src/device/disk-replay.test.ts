import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DiskFlag, DiskKind, DiskStatus } from './disk.ts';
import { DiskReplay } from './disk-replay.ts';
import { MessageTable } from './message-table.ts';

function guest(replay: DiskReplay, rows: number) {
  const table = new MessageTable(rows);
  return {
    take: (row: number, kind: number, flags = 0) => {
      table.kind[row] = kind;
      table.flags[row] = flags;
      replay.taken(table, row);
    },
    answer: (row: number, status: number = DiskStatus.ok) => replay.answered(table, row, status),
  };
}

test('writes of which nothing is known are unflushed until the first flush', () => {
  const replay = new DiskReplay('unknown');
  const { take, answer } = guest(replay, 4);
  assert.equal(replay.unflushed, true);
  take(0, DiskKind.flush);
  answer(0);
  assert.equal(replay.unflushed, false);
});

test('an acknowledged write is unflushed until a flush that was taken after it', () => {
  const replay = new DiskReplay();
  const { take, answer } = guest(replay, 4);
  take(0, DiskKind.flush);
  take(1, DiskKind.write);
  answer(1);
  answer(0);
  assert.equal(replay.unflushed, true);
  take(0, DiskKind.flush);
  answer(0, DiskStatus.ioError);
  assert.equal(replay.unflushed, true);
  take(0, DiskKind.flush);
  answer(0);
  assert.equal(replay.unflushed, false);
});

test('what is durable, failed or a read leaves nothing to flush', () => {
  const replay = new DiskReplay();
  const { take, answer } = guest(replay, 4);
  take(0, DiskKind.write, DiskFlag.durable);
  answer(0);
  take(1, DiskKind.write);
  answer(1, DiskStatus.ioError);
  take(2, DiskKind.read);
  answer(2);
  assert.equal(replay.unflushed, false);
  take(3, DiskKind.writeZeroes);
  answer(3);
  assert.equal(replay.unflushed, true);
});

test('a later use may have a larger table', () => {
  const replay = new DiskReplay();
  const first = guest(replay, 2);
  first.take(0, DiskKind.flush);
  first.answer(0);
  const second = guest(replay, 64);
  second.take(1, DiskKind.write);
  second.answer(1);
  second.take(60, DiskKind.flush);
  second.answer(60);
  assert.equal(replay.unflushed, false);
  second.take(1, DiskKind.write);
  second.answer(1);
  assert.equal(replay.unflushed, true);
});
