import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, BlockLedger, describeFinding } from './block-ledger.ts';

const SEED = 7;

function acknowledged(ledger: BlockLedger, block: number): Uint8Array {
  const { data } = ledger.beginWrite(block);
  ledger.acknowledge(block);
  return data;
}

test('what was acknowledged is expected, zeroes before', () => {
  const ledger = new BlockLedger(4, SEED);
  assert.equal(ledger.check(2, new Uint8Array(BLOCK_BYTES)), undefined);
  const data = acknowledged(ledger, 2);
  assert.equal(ledger.check(2, data), undefined);
});

test('an older content, or none, is a lost write', () => {
  const ledger = new BlockLedger(4, SEED);
  const old = acknowledged(ledger, 1);
  acknowledged(ledger, 1);
  assert.deepEqual(ledger.check(1, old), { what: 'lost', block: 1, expected: 2, found: 1, flushed: false });
  ledger.beginFlush()();
  const finding = ledger.check(1, new Uint8Array(BLOCK_BYTES));
  assert.deepEqual(finding, { what: 'lost', block: 1, expected: 2, found: 0, flushed: true });
  assert.equal(describeFinding(finding!), 'block 1: write 2 was acknowledged and flushed, and zeroes are there');
});

test('an older content after a newer one was read is a stale one', () => {
  const ledger = new BlockLedger(4, SEED);
  const old = acknowledged(ledger, 1);
  const newer = acknowledged(ledger, 1);
  assert.equal(ledger.check(1, newer), undefined);
  assert.equal(ledger.check(1, old)?.what, 'stale');
});

test('a write on its way may be there or not; so may one that failed, until the next', () => {
  const ledger = new BlockLedger(4, SEED);
  const first = acknowledged(ledger, 0);
  const second = ledger.beginWrite(0).data;
  assert.ok(ledger.isPending(0));
  assert.throws(() => ledger.beginWrite(0), /block 0 has a write on its way/);
  for (const data of [first, second]) assert.equal(ledger.check(0, data), undefined);
  ledger.fail(0);
  for (const data of [first, second]) assert.equal(ledger.check(0, data), undefined);
  acknowledged(ledger, 0);
  for (const data of [first, second]) assert.notEqual(ledger.check(0, data), undefined);
});

test('a flush covers what was acknowledged before it was sent, and nothing later', () => {
  const ledger = new BlockLedger(4, SEED);
  acknowledged(ledger, 0);
  const flushed = ledger.beginFlush();
  acknowledged(ledger, 1);
  flushed();
  const zeroes = new Uint8Array(BLOCK_BYTES);
  const findings = [0, 1].map((block) => ledger.check(block, zeroes));
  assert.deepEqual(
    findings.map((finding) => finding?.what === 'lost' && finding.flushed),
    [true, false],
  );
});

test("a torn block, and another block's content, are corrupt", () => {
  const ledger = new BlockLedger(4, SEED);
  const one = acknowledged(ledger, 0);
  const other = acknowledged(ledger, 0);
  const torn = new Uint8Array([...one.subarray(0, 512), ...other.subarray(512)]);
  assert.equal(ledger.check(0, torn)?.what, 'corrupt');
  assert.equal(ledger.check(1, one)?.what, 'corrupt');
  const flipped = other.slice();
  flipped[4000] ^= 1;
  assert.deepEqual(ledger.check(0, flipped), { what: 'corrupt', block: 0, expected: 2 });
});

test('a discarded block expects nothing of before', () => {
  const ledger = new BlockLedger(4, SEED);
  const data = acknowledged(ledger, 3);
  ledger.forget(3);
  for (const content of [data, new Uint8Array(BLOCK_BYTES)]) assert.equal(ledger.check(3, content), undefined);
  acknowledged(ledger, 3);
  assert.equal(ledger.check(3, data)?.what, 'lost');
});
