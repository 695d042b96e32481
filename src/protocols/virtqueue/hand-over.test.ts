/** A queue that begins at another host, from what its last host left. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DATA_START, ModelGuest } from '../../../test/fuzz/model-guest.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import { Chain, InflightQueue, inflightBytes, type SplitQueue, UNKNOWN_QUEUE } from './index.ts';

const SIZE = 4;

/** A ring of four: heads 2 and 0 are unanswered, 1 is answered, 3 is on offer. And what its host leaves. */
function leaving(): { guest: ModelGuest; left: QueueHandOver } {
  const guest = new ModelGuest(SIZE, { base: 0xfffe });
  for (let head = 0; head < SIZE; head++) guest.describe(head, { address: DATA_START, length: 16, flags: 0, next: 0 });
  guest.queue.begin();
  for (const head of [2, 1, 0]) guest.offer(head);
  guest.publish();
  const chain = new Chain();
  while (guest.queue.take(chain));
  guest.queue.put(1, 0);
  guest.queue.publish();
  guest.offer(3);
  guest.publish();
  return { guest, left: guest.queue.leave([2, 0]) };
}

function arrive(guest: ModelGuest, handOver: QueueHandOver | null, options: { base?: number; region?: ArrayBuffer } = {}) {
  const inflight = options.region && { inflight: new InflightQueue(options.region, SIZE) };
  return guest.arrivedQueue(handOver, options.base ?? 1, { ...inflight, copy: false });
}

function takeAll(queue: SplitQueue): number[] {
  const heads: number[] = [];
  const chain = new Chain();
  while (queue.take(chain)) heads.push(chain.head);
  assert.equal(queue.fault, undefined);
  return heads;
}

test('a queue that leaves says where it stands', () => {
  assert.deepEqual(leaving().left, { fetched: 1, usedIndex: 0xffff, heads: [2, 0], lastBatch: [] });
});

for (const [what, base] of [
  ['what the last host answered', 1],
  ['the used index', 0xffff],
] as const) {
  for (const region of [undefined, new ArrayBuffer(inflightBytes(SIZE))]) {
    test(`unfinished requests first, then what is on offer; the VMM says ${what} (region ${region !== undefined})`, () => {
      const { guest, left } = leaving();
      const queue = arrive(guest, left, { base, ...(region && { region }) });
      assert.deepEqual([queue.recovered, queue.waitingAgain, queue.inFlight, queue.nextAvailable], [true, 2, 2, 1]);
      queue.begin();
      if (region !== undefined)
        assert.equal(guest.recoveredQueue(new InflightQueue(region, SIZE), true).waitingAgain, 2, 'marked before they go');
      assert.deepEqual(takeAll(queue), [2, 0, 3]);
      assert.deepEqual(queue.leave([2, 0, 3]), { fetched: 2, usedIndex: 0xffff, heads: [2, 0, 3], lastBatch: [] });
    });
  }
}

test('what was not taken again yet is handed on, behind what was', () => {
  const { guest, left } = leaving();
  const queue = arrive(guest, left);
  queue.begin();
  assert.deepEqual(queue.leave([]), left);
  queue.take(new Chain());
  assert.deepEqual(queue.leave([2]), left);
  queue.untakeAgain();
  assert.deepEqual(queue.leave([]), left);
});

test('a region that was in use knows better than the hand-over', () => {
  const region = new ArrayBuffer(inflightBytes(SIZE));
  const { guest, left } = leaving();
  const first = arrive(guest, left, { region });
  first.begin();
  const chain = new Chain();
  first.take(chain);
  first.put(chain.head, 0);
  first.publish();
  const second = arrive(guest, left, { region });
  assert.deepEqual(second.leave([]), { fetched: 1, usedIndex: 0, heads: [0], lastBatch: [] });
});

test('a kill while the region is begun: it is as it was, and begins once more', () => {
  const region = new ArrayBuffer(inflightBytes(SIZE));
  const { guest, left } = leaving();
  const killed = new (class extends InflightQueue {
    override mark(head: number): void {
      if (head === 0) throw new Error('killed');
      super.mark(head);
    }
  })(region, SIZE);
  assert.throws(() => guest.arrivedQueue(left, 1, { inflight: killed, copy: false }).begin(), /killed/);
  const again = arrive(guest, left, { region });
  again.begin();
  assert.deepEqual(takeAll(again), [2, 0, 3]);
});

test('of the last batch the used index says what is done', () => {
  const { guest, left } = leaving();
  // Its host was killed before it noted that 0 and 2 were shown: the driver has one answer more than the hand-over, or none.
  const killed = { ...left, lastBatch: [0, 2] };
  assert.deepEqual(arrive(guest, killed).leave([]).heads, [2, 0]);
  guest.queue.put(0, 0);
  guest.queue.publish();
  assert.deepEqual(arrive(guest, killed).leave([]), { fetched: 1, usedIndex: 0, heads: [2], lastBatch: [] });
  assert.throws(() => arrive(guest, left), /it knows 65535 answers, the driver has 0/);
});

const wrong: [string, Partial<QueueHandOver>, RegExp][] = [
  ['another used index', { fetched: 0, usedIndex: 0xfffe }, /it knows 65534 answers, the driver has 65535/],
  ['a used index that is ahead', { fetched: 2, usedIndex: 0 }, /it knows 0 answers, the driver has 65535/],
  ['a request that is nowhere', { heads: [2] }, /not known where it stood/],
  ['a head that the ring does not have', { heads: [2, 4] }, /names head 4, the ring has 4/],
  ['such a head in its last batch', { lastBatch: [1023] }, /names head 1023/],
  ['a head twice', { heads: [2, 2] }, /names a head twice/],
  [
    'more than the driver waits for',
    { fetched: 3, heads: [2, 0, 3, 1] },
    /4 unfinished requests, the driver of 4 entries waits for 3/,
  ],
];
for (const [what, change, reason] of wrong) {
  test(`a hand-over with ${what} is refused`, () => {
    const { guest, left } = leaving();
    for (const region of [undefined, new ArrayBuffer(inflightBytes(SIZE))])
      assert.throws(() => arrive(guest, { ...left, ...change }, { base: 0xffff, ...(region && { region }) }), {
        code: 'device',
        message: reason,
      });
  });
}

test('a base that is neither is refused, and so is one of which nobody knows', () => {
  const { guest, left } = leaving();
  assert.throws(() => arrive(guest, left, { base: 2 }), /it goes on from entry 1, the VMM from 2/);
  assert.throws(() => arrive(guest, null), /nobody knows where it stood/);
  assert.throws(() => arrive(guest, UNKNOWN_QUEUE), /not known where it stood/);
});

test('a driver that begins anew is served, whatever was left', () => {
  for (const handOver of [null, UNKNOWN_QUEUE, leaving().left]) {
    const guest = new ModelGuest(SIZE);
    guest.describe(3, { address: DATA_START, length: 16, flags: 0, next: 0 });
    guest.offer(3);
    guest.publish();
    const queue = arrive(guest, handOver, { base: 0, region: new ArrayBuffer(inflightBytes(SIZE)) });
    queue.begin();
    assert.deepEqual(takeAll(queue), [3]);
  }
});

test('the entries after the used index are told from others', () => {
  const { guest } = leaving();
  assert.equal(guest.queue.followUsed([2, 0]), false);
  assert.equal(guest.queue.followUsed([2, 1]), false);
  guest.queue.put(2, 0);
  assert.equal(guest.queue.followUsed([0]), true);
  assert.equal(guest.queue.followUsed([]), true);
});
