import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SplitQueue } from '../../protocols/virtqueue/index.ts';
import { type Left, LeftRequests } from './left-requests.ts';

/** A ring as it stands at its start. */
function queue(nextAvailable: number, usedIndex: number, pending = 0): SplitQueue {
  return { nextAvailable, usedIndex, pending: () => pending } as SplitQueue;
}

function starts(before: Left, ring: SplitQueue): boolean {
  try {
    new LeftRequests(1, before).start(0, ring);
    return true;
  } catch (thrown) {
    assert.match((thrown as Error).message, /requests of this guest were cut off/);
    return false;
  }
}

test('a ring of which nothing was left goes on from anywhere', () => {
  assert.equal(starts('nothing', queue(7, 5, 3)), true);
});

test('a driver that starts anew is served, whatever was left', () => {
  assert.equal(starts('unknown', queue(0, 0, 3)), true);
  assert.equal(starts('after-used', queue(0, 0, 3)), true);
});

test('requests that were left in order are taken again from the used index', () => {
  assert.equal(starts('after-used', queue(5, 5, 3)), true);
  assert.equal(starts('after-used', queue(7, 5)), false);
});

test('where nothing is known, only a ring that has all its answers goes on', () => {
  assert.equal(starts('unknown', queue(5, 5)), true);
  assert.equal(starts('unknown', queue(5, 5, 1)), false);
  assert.equal(starts('unknown', queue(7, 5)), false);
});

test('a ring that was refused stays so until it starts anew, and the others are not concerned', () => {
  const left = new LeftRequests(2, 'nothing');
  left.add(1, true);
  assert.equal(left.worst, 'after-used');
  left.add(1, false);
  left.add(1, true);
  assert.equal(left.worst, 'unknown');
  left.start(0, queue(9, 4));
  assert.throws(() => left.start(1, queue(9, 9, 1)), { code: 'device' });
  assert.throws(() => left.start(1, queue(9, 9, 1)), { code: 'device' });
  left.start(1, queue(0, 0, 1));
  assert.equal(left.worst, 'nothing');
});
