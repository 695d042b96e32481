import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES } from '../faults/block-ledger.ts';
import { BlockRecorder } from './recorder.ts';

const zeroes = () => new Uint8Array(BLOCK_BYTES);

test('what was acknowledged has to be there, what was flushed is known', () => {
  const recorder = new BlockRecorder(8, 1);
  recorder.feed(Buffer.from('w 3 1\nw 5 2\na 3\nf 0\ng 0\na '));
  recorder.feed(Buffer.from('5\nw 5 3\n'));
  assert.equal(recorder.acknowledged, 3);
  assert.deepEqual(recorder.ledger.check(3, zeroes()), { what: 'lost', block: 3, expected: 1, found: 0, flushed: true });
  assert.deepEqual(recorder.ledger.check(5, zeroes()), { what: 'lost', block: 5, expected: 2, found: 0, flushed: false });
  assert.equal(recorder.ledger.check(0, zeroes()), undefined);
});

test('a write that failed may be there or not; a flush that failed covers nothing', () => {
  const recorder = new BlockRecorder(8, 1);
  recorder.feed(Buffer.from('w 3 1\ne 3\nw 4 2\na 4\nf 1\nh 1\n'));
  assert.equal(recorder.errors, 2);
  assert.equal(recorder.ledger.check(3, zeroes()), undefined);
  assert.deepEqual(recorder.ledger.check(4, zeroes()), { what: 'lost', block: 4, expected: 2, found: 0, flushed: false });
});

test('what is not of the writer, or out of its order, is a problem', () => {
  for (const text of ['x 1\n', 'w 1 2\n', 'w 1\n', 'w 1 1\nw 1 2\n', 'a'.repeat(100)]) {
    const recorder = new BlockRecorder(8, 1);
    recorder.feed(Buffer.from(text));
    assert.notEqual(recorder.problem, undefined, text);
  }
});
