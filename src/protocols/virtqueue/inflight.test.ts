import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DATA_START, ModelGuest } from '../../../test/fuzz/model-guest.ts';
import { Chain, InflightQueue, inflightBytes, type SplitQueue } from './index.ts';

function takeAll(queue: SplitQueue): number[] {
  const heads: number[] = [];
  const chain = new Chain();
  while (queue.take(chain)) heads.push(chain.head);
  assert.equal(queue.fault, undefined);
  return heads;
}

/** A ring of four with heads 2 and 0 in flight, 1 answered, 3 on offer. */
function working(): { guest: ModelGuest; region: ArrayBuffer } {
  const region = new ArrayBuffer(inflightBytes(4));
  const guest = new ModelGuest(4, { base: 7, inflight: new InflightQueue(region, 4) });
  for (let head = 0; head < 4; head++) guest.describe(head, { address: DATA_START, length: 16, flags: 0, next: 0 });
  const chain = new Chain();
  guest.queue.begin();
  for (const head of [2, 1, 0]) guest.offer(head);
  guest.publish();
  while (guest.queue.take(chain));
  guest.queue.put(1, 0);
  guest.queue.publish();
  guest.offer(3);
  guest.publish();
  return { guest, region };
}

test('the layout is that of the specification', () => {
  const { region } = working();
  const view = new DataView(region);
  assert.equal(region.byteLength, 128);
  // features, version, desc_num, last_batch_head, used_idx
  assert.equal(view.getBigUint64(0, true), 0n);
  assert.deepEqual(
    [8, 10, 12, 14].map((at) => view.getUint16(at, true)),
    [1, 4, 1, 8],
  );
  assert.deepEqual(
    [0, 1, 2, 3].map((head) => view.getUint8(16 + 16 * head)),
    [1, 0, 1, 0],
  );
  assert.deepEqual(
    [2, 1, 0].map((head) => view.getBigUint64(24 + 16 * head, true)),
    [1n, 2n, 3n],
  );
});

test('what is in flight comes first, whatever base the front-end says, and a driver may not offer it again', () => {
  const { guest, region } = working();
  const queue = guest.recoveredQueue(new InflightQueue(region, 4), false);
  assert.deepEqual(
    [queue.recovered, queue.waitingAgain, queue.inFlight, queue.nextAvailable, queue.pending()],
    [true, 2, 2, 10, 3],
  );
  queue.begin();
  assert.deepEqual(takeAll(queue), [2, 0, 3]);
  guest.offer(2);
  guest.publish();
  assert.equal(queue.take(new Chain()), false);
  assert.match(queue.fault!, /head 2: made available again before it was used/);
});

test('a chain that cannot be read again is a fault, and stays in flight', () => {
  const { guest, region } = working();
  guest.describe(2, { address: 0, length: 16, flags: 0, next: 0 });
  const queue = guest.recoveredQueue(new InflightQueue(region, 4), false);
  queue.begin();
  assert.equal(queue.take(new Chain()), false);
  assert.match(queue.fault!, /outside guest memory/);
  assert.equal(guest.recoveredQueue(new InflightQueue(region, 4), true).waitingAgain, 2);
});

test("a head is the driver's own again once it can see the answer, not before", () => {
  const guest = new ModelGuest(4, { inflight: new InflightQueue(new ArrayBuffer(inflightBytes(4)), 4) });
  guest.describe(0, { address: DATA_START, length: 16, flags: 0, next: 0 });
  guest.queue.begin();
  guest.offer(0);
  guest.offer(0);
  guest.publish();
  assert.ok(guest.queue.take(new Chain()));
  guest.queue.put(0, 0);
  assert.equal(guest.queue.take(new Chain()), false);
  assert.match(guest.queue.fault!, /before it was used/);
});

/** Examines a ring of four that stands at (used, available) with what `change` made of a region in use. */
function examine(change: (view: DataView) => void, start: Partial<Parameters<InflightQueue['examine']>[0]> = {}) {
  const { region } = working();
  change(new DataView(region));
  const found = new InflightQueue(region, 4).examine({ size: 4, base: 8, usedIndex: 8, availableIndex: 11, ...start });
  return found.name === 'mismatch' ? found.reason : found.name;
}

test('a region that cannot be right is not believed', () => {
  assert.equal(
    examine(() => {}),
    'in-use',
  );
  assert.match(
    examine((view) => view.setUint16(8, 9, true)),
    /version 9/,
  );
  assert.match(
    examine((view) => view.setUint16(10, 5, true)),
    /says that it has 5 entries/,
  );
  assert.match(
    examine((view) => view.setUint16(14, 9, true)),
    /knows 9 answers, the driver has 8/,
  );
  assert.match(
    examine((view) => {
      view.setUint16(14, 7, true);
      view.setUint16(12, 4, true);
    }),
    /knows 7 answers/,
  );
  assert.match(
    examine((view) => view.setUint32(28, 0xffffffff, true)),
    /beyond 2\^53/,
  );
  assert.match(
    examine(() => {}, { availableIndex: 9 }),
    /notes 2 requests, the driver of 4 entries waits for 1/,
  );
  assert.match(
    examine(() => {}, { availableIndex: 13 }),
    /waits for 5/,
  );
  assert.match(
    examine(() => {}, { size: 2 }),
    /notes head 2, the ring has 2 entries/,
  );
  assert.match(
    examine(() => {}, { size: 8 }),
    /room for 4 entries and the ring has 8/,
  );
});

test('a driver that begins anew is told apart from one that goes on', () => {
  // Its VMM let the region go: the usual case.
  assert.equal(
    examine((view) => view.setUint16(8, 0, true)),
    'new',
  );
  assert.equal(
    examine((view) => view.setUint16(8, 0, true), { base: 0, usedIndex: 0, availableIndex: 3 }),
    'new',
  );
  // It kept the region.
  assert.equal(
    examine(() => {}, { base: 0, usedIndex: 0, availableIndex: 3 }),
    'new',
  );
  // The first requests of a driver, none of them answered.
  assert.equal(
    examine((view) => view.setUint16(14, 0, true), { base: 0, usedIndex: 0, availableIndex: 3 }),
    'in-use',
  );
  // New, and its ring not: what is between is nobody's.
  assert.match(
    examine((view) => view.setUint16(8, 0, true), { base: 10 }),
    /go on from entry 10 while its driver has 8 answers/,
  );
});

test('whatever is in the region, looking at it ends, and what it gives is in the ring', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 128, maxLength: 128 }),
      fc.nat(0xffff),
      fc.nat(8),
      fc.boolean(),
      (bytes, used, ahead, sane) => {
        const view = new DataView(bytes.buffer);
        if (sane) {
          const header = [1, 4, bytes[12] % 4, used - (bytes[14] % 5)];
          for (const [i, value] of header.entries()) view.setUint16(8 + 2 * i, value, true);
        }
        const start = { size: 4, base: used, usedIndex: used, availableIndex: (used + ahead) & 0xffff };
        const region = new InflightQueue(bytes.buffer, 4);
        const found = region.examine(start);
        if (found.name !== 'in-use') return;
        assert.ok(found.heads.length <= ahead && found.heads.every((head) => head < 4));
        region.begin(found, used);
        assert.deepEqual(new InflightQueue(bytes.buffer, 4).examine(start), { ...found, lastBatch: [] });
      },
    ),
    { numRuns: 2_000 },
  );
});
