import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DATA_BYTES,
  DATA_START,
  type Descriptor,
  FAR_START,
  HOLE_START,
  INDIRECT,
  ModelGuest,
  NEXT,
  WRITE,
} from '../../../test/fuzz/model-guest.ts';
import { SegmentList } from '../../device/segments.ts';
import { AddressMap, Chain, isQueueSize, SplitQueue } from './index.ts';

test('an address map finds what is inside and nothing else, above 4 GiB, too', () => {
  const guest = new ModelGuest(4);
  const { map } = guest;
  assert.equal(map.find(DATA_START - 1), -1);
  assert.equal(map.region(map.find(DATA_START)), guest.data[0]);
  assert.equal(map.region(map.find(HOLE_START - 1)), guest.data[1]);
  assert.equal(map.find(HOLE_START), -1);
  const far = map.find(FAR_START + 5);
  assert.equal(map.offset(far, FAR_START + 5), DATA_BYTES / 2 + 5);
  assert.equal(map.left(far, FAR_START + 5), DATA_BYTES / 2 - 5);
  assert.equal(new AddressMap([]).find(0), -1);
  const twice = { start: 0, size: 2, region: guest.data[0], offset: 0 };
  assert.throws(() => new AddressMap([twice, { ...twice, start: 1 }]), RangeError);
});

/** What a chain says, as plain values. */
function parts(chain: Chain): [number, number, number][] {
  const list = new SegmentList();
  assert.ok(chain.appendReadable(list, 0, chain.readableBytes));
  assert.ok(chain.appendWritable(list, 0, chain.writableBytes));
  return Array.from({ length: list.count }, (_, i) => [list.regions[i]!.handle, list.offsets[i], list.lengths[i]]);
}

test('a chain is translated part by part, across neighbouring regions', () => {
  const guest = new ModelGuest(8);
  guest.describe(0, { address: DATA_START + 16, length: 16, flags: NEXT, next: 5 });
  guest.describe(5, { address: DATA_START + DATA_BYTES - 100, length: 300, flags: NEXT | WRITE, next: 2 });
  guest.describe(2, { address: FAR_START, length: 1, flags: WRITE, next: 0 });
  guest.offer(0);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain));
  assert.equal(chain.head, 0);
  assert.equal(chain.readableBytes, 16);
  assert.equal(chain.writableBytes, 301);
  assert.deepEqual(parts(chain), [
    [2, 16, 16],
    [2, DATA_BYTES - 100, 100],
    [3, 0, 200],
    [4, DATA_BYTES / 2, 1],
  ]);
  const status = chain.writablePart(300);
  assert.equal(chain.region(status).handle, 4);
  assert.equal(chain.writableOffset(status, 300), DATA_BYTES / 2);
  assert.equal(chain.writableOffset(chain.writablePart(100), 100), 0);
  assert.equal(guest.queue.take(chain), false);
  assert.equal(guest.queue.fault, undefined);
});

test('an indirect table may follow direct descriptors', () => {
  const guest = new ModelGuest(4);
  guest.describe(1, { address: DATA_START, length: 16, flags: NEXT, next: 3 });
  guest.describe(3, { address: DATA_START + 4096, length: 32, flags: INDIRECT, next: 0 });
  guest.describeIndirect(DATA_START + 4096, [
    { address: DATA_START + 512, length: 512, flags: NEXT | WRITE, next: 1 },
    { address: DATA_START + 2048, length: 1, flags: WRITE, next: 0 },
  ]);
  guest.offer(1);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain), guest.queue.fault);
  assert.deepEqual(parts(chain), [
    [2, 0, 16],
    [2, 512, 512],
    [2, 2048, 1],
  ]);
});

const ok: Descriptor = { address: DATA_START, length: 16, flags: 0, next: 0 };
const hostile: [name: string, pattern: RegExp, play: (guest: ModelGuest) => void, options?: { indirect: boolean }][] = [
  [
    'outside memory',
    /queue 0, head 0, descriptor 0: its buffer at 0x100020000 is outside guest memory/,
    (guest) => guest.describe(0, { ...ok, address: HOLE_START }),
  ],
  ['across the end of memory', /outside guest memory/, (guest) => guest.describe(0, { ...ok, address: HOLE_START - 8 })],
  [
    'at the top of the address space',
    /at 0xfffffffffffff000 is outside/,
    (guest) => guest.describe(0, { ...ok, address: 2 ** 64 - 4096 }),
  ],
  ['length that wraps', /outside guest memory/, (guest) => guest.describe(0, { ...ok, length: 0xffffffff })],
  ['empty', /its buffer is empty/, (guest) => guest.describe(0, { ...ok, length: 0 })],
  ['loop to itself', /loops or is longer than 4 descriptors/, (guest) => guest.describe(0, { ...ok, flags: NEXT })],
  [
    'loop of two',
    /loops or is longer than 4 descriptors/,
    (guest) => {
      guest.describe(0, { ...ok, flags: NEXT, next: 1 });
      guest.describe(1, { ...ok, flags: NEXT, next: 0 });
    },
  ],
  [
    'next outside the table',
    /the next descriptor 4 is not in the table of 4/,
    (guest) => guest.describe(0, { ...ok, flags: NEXT, next: 4 }),
  ],
  [
    'readable after writable',
    /head 0, descriptor 1: its buffer is readable after a writable one/,
    (guest) => {
      guest.describe(0, { ...ok, flags: NEXT | WRITE, next: 1 });
      guest.describe(1, ok);
    },
  ],
  [
    'indirect, not negotiated',
    /which was not negotiated/,
    (guest) => guest.describe(0, { ...ok, flags: INDIRECT }),
    { indirect: false },
  ],
  ['indirect with next', /indirect and has a next/, (guest) => guest.describe(0, { ...ok, flags: INDIRECT | NEXT, next: 1 })],
  ['indirect of 0 bytes', /0 bytes, not a multiple of 16/, (guest) => guest.describe(0, { ...ok, length: 0, flags: INDIRECT })],
  [
    'indirect of 24 bytes',
    /24 bytes, not a multiple of 16/,
    (guest) => guest.describe(0, { ...ok, length: 24, flags: INDIRECT }),
  ],
  [
    'indirect too long',
    /more than 1024 descriptors/,
    (guest) => guest.describe(0, { ...ok, length: 1025 * 16, flags: INDIRECT }),
  ],
  [
    'indirect outside memory',
    /indirect table at 0x10001fff8 is outside/,
    (guest) => guest.describe(0, { ...ok, address: HOLE_START - 8, flags: INDIRECT }),
  ],
  [
    'indirect in indirect',
    /indirect inside an indirect table/,
    (guest) => {
      guest.describe(0, { ...ok, flags: INDIRECT });
      guest.describeIndirect(DATA_START, [{ ...ok, flags: INDIRECT }]);
    },
  ],
  [
    'indirect loop',
    /loops or is longer than 2 descriptors/,
    (guest) => {
      guest.describe(0, { ...ok, length: 32, flags: INDIRECT });
      guest.describeIndirect(DATA_START, [
        { ...ok, flags: NEXT, next: 1 },
        { ...ok, flags: NEXT, next: 0 },
      ]);
    },
  ],
  [
    'indirect next outside its table',
    /next descriptor 2 is not in the table of 2/,
    (guest) => {
      guest.describe(0, { ...ok, length: 32, flags: INDIRECT });
      guest.describeIndirect(DATA_START, [{ ...ok, flags: NEXT, next: 2 }]);
    },
  ],
];

for (const [name, pattern, play, options] of hostile) {
  test(`hostile descriptor: ${name}`, () => {
    const guest = new ModelGuest(4, options);
    play(guest);
    guest.offer(0);
    guest.publish();
    assert.equal(guest.queue.take(new Chain()), false);
    assert.match(guest.queue.fault!, pattern);
    // It stays out of use.
    guest.describe(1, ok);
    guest.offer(1);
    guest.publish();
    assert.equal(guest.queue.pending(), 0);
    assert.equal(guest.queue.take(new Chain()), false);
    assert.equal(guest.queue.inFlight, 0);
  });
}

test('hostile index: it jumps by more than the queue has', () => {
  const guest = new ModelGuest(4, { base: 0xfffe });
  guest.forceAvailableIndex(0xfffe + 5);
  assert.equal(guest.queue.pending(), 0);
  assert.match(guest.queue.fault!, /available index 3 is 5 entries ahead of 65534, the queue has 4/);
});

test('hostile index: it goes back', () => {
  const guest = new ModelGuest(4, { base: 10 });
  guest.forceAvailableIndex(9);
  assert.equal(guest.queue.take(new Chain()), false);
  assert.match(guest.queue.fault!, /65535 entries ahead/);
});

test('hostile head: not in the queue, or in flight already', () => {
  const outside = new ModelGuest(4);
  outside.offer(4);
  outside.publish();
  assert.equal(outside.queue.take(new Chain()), false);
  assert.match(outside.queue.fault!, /head 4 is not in the queue of 4/);

  const twice = new ModelGuest(4);
  twice.describe(2, ok);
  twice.offer(2);
  twice.offer(2);
  twice.publish();
  assert.ok(twice.queue.take(new Chain()));
  assert.equal(twice.queue.take(new Chain()), false);
  assert.match(twice.queue.fault!, /head 2: made available again/);
});

test('descriptors that change while they are read are checked as they were read', () => {
  const guest = new ModelGuest(4);
  guest.describe(0, { ...ok, flags: WRITE });
  // Every field is read once: the length is good when it is looked at first, and deadly from then on.
  const read = guest.table.readU32.bind(guest.table);
  let looks = 0;
  guest.table.readU32 = (offset) => {
    if (offset === 8 && looks++ > 0) return 0xffffffff;
    return read(offset);
  };
  guest.offer(0);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain));
  assert.equal(looks, 1);
  assert.equal(chain.writableBytes, 16);
});

test("parts that overlap are taken as they are: what they spoil is the guest's own", () => {
  const guest = new ModelGuest(4);
  guest.describe(0, { address: DATA_START, length: 512, flags: NEXT | WRITE, next: 1 });
  guest.describe(1, { address: DATA_START + 256, length: 512, flags: NEXT | WRITE, next: 2 });
  guest.describe(2, { address: DATA_START + 300, length: 1, flags: WRITE, next: 0 });
  guest.offer(0);
  guest.publish();
  const chain = new Chain();
  assert.ok(guest.queue.take(chain));
  assert.deepEqual(parts(chain), [
    [2, 0, 512],
    [2, 256, 512],
    [2, 300, 1],
  ]);
  assert.equal(guest.queue.fault, undefined);
});

test('sizes that are none', () => {
  assert.deepEqual([0, 1, 2, 3, 6, 512, 1024, 1025, 2048, -4, 1.5].filter(isQueueSize), [1, 2, 512, 1024]);
  assert.throws(() => new SplitQueue({ index: 0, size: 3 } as never), RangeError);
});

test('chains that were taken too early go back', () => {
  const guest = new ModelGuest(4, { base: 0xffff });
  for (const head of [0, 1]) {
    guest.describe(head, ok);
    guest.offer(head);
  }
  guest.publish();
  const chain = new Chain();
  const { queue } = guest;
  queue.take(chain);
  queue.take(chain);
  assert.equal(queue.nextAvailable, 1);
  queue.untake(1);
  queue.untake(0);
  assert.equal(queue.nextAvailable, 0xffff);
  assert.equal(queue.inFlight, 0);
  assert.ok(queue.take(chain));
  assert.equal(chain.head, 0);
});

test('a queue that goes on knows what is in flight', () => {
  const guest = new ModelGuest(4, { base: 7 });
  guest.queue.resume(3);
  assert.equal(guest.queue.inFlight, 1);
  guest.describe(3, ok);
  guest.offer(3);
  guest.publish();
  assert.equal(guest.queue.take(new Chain()), false);
  assert.match(guest.queue.fault!, /head 3: made available again/);
  guest.queue.put(3, 0);
  assert.equal(guest.queue.publish(), true);
  assert.deepEqual(guest.takeUsed(), [3, 0]);
});

test('calls without EVENT_IDX follow the flag of the driver', () => {
  const guest = new ModelGuest(4, { eventIndex: false });
  guest.queue.resume(0);
  guest.queue.resume(1);
  guest.queue.put(0, 0);
  assert.equal(guest.queue.publish(), true);
  assert.equal(guest.queue.publish(), false);
  guest.available.setUint16(0, 1, true);
  guest.queue.put(1, 0);
  assert.equal(guest.queue.publish(), false);
});

test('kicks without EVENT_IDX follow the flag of the device', () => {
  const guest = new ModelGuest(4, { eventIndex: false });
  guest.queue.disarm();
  guest.offer(0);
  assert.equal(guest.publish(), false);
  assert.equal(guest.queue.arm(), false, 'one came in while no kick was asked for');
  guest.offer(1);
  assert.equal(guest.publish(), true);
});

/** Steps of a driver and a device that take turns in any order. */
const step = fc.constantFrom('offer', 'offer two', 'take', 'put', 'arm', 'drive');

test('every chain comes back once, and neither side sleeps while there is work', () => {
  const property = (eventIndex: boolean, base: number, sizeLog: number, steps: string[]) => {
    const size = 2 ** sizeLog;
    const guest = new ModelGuest(size, { eventIndex, base });
    const { queue } = guest;
    const chain = new Chain();
    const free = Array.from({ length: size }, (_, i) => i);
    const held: number[] = [];
    const offered: number[] = [];
    let kicked = true;
    let asleep = false;
    const offer = () => {
      const head = free.pop();
      if (head === undefined) return;
      guest.describe(head, { address: DATA_START + head * 16, length: 16, flags: WRITE, next: 0 });
      guest.offer(head);
      offered.push(head);
      if (guest.publish()) kicked = true;
    };
    const take = () => {
      if (!queue.take(chain)) return;
      assert.equal(chain.head, offered.shift());
      held.push(chain.head);
      asleep = false;
    };
    const put = () => {
      const head = held.shift();
      if (head === undefined) return;
      queue.put(head, head + 1);
      queue.publish();
    };
    const drive = () => {
      for (let used = guest.takeUsed(); used; used = guest.takeUsed()) {
        assert.equal(used[1], used[0] + 1);
        assert.ok(!free.includes(used[0]));
        free.push(used[0]);
      }
      guest.armCall();
    };
    for (const name of steps) {
      switch (name) {
        case 'offer two':
          offer();
          offer();
          break;
        case 'offer':
          offer();
          break;
        case 'take':
          take();
          break;
        case 'put':
          put();
          break;
        case 'arm':
          queue.disarm();
          kicked = false;
          asleep = queue.arm();
          break;
        case 'drive':
          drive();
          break;
      }
      assert.equal(queue.fault, undefined);
      assert.ok(!(asleep && offered.length > 0 && !kicked), 'asleep with work and without a kick');
    }
    while (queue.pending() > 0) take();
    while (held.length > 0) put();
    drive();
    assert.equal(free.length, size);
    assert.equal(queue.inFlight, 0);
  };
  const base = fc.oneof(fc.constant(0), fc.integer({ min: 65500, max: 65535 }));
  fc.assert(fc.property(fc.boolean(), base, fc.integer({ min: 0, max: 4 }), fc.array(step, { maxLength: 80 }), property), {
    numRuns: 500,
  });
});

test('with EVENT_IDX the driver is called exactly when its event is passed', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff }),
      fc.array(fc.record({ puts: fc.integer({ min: 1, max: 8 }), event: fc.integer({ min: 0, max: 12 }) }), { maxLength: 20 }),
      (base, rounds) => {
        const guest = new ModelGuest(16, { base });
        let index = base;
        let first = true;
        for (const { puts, event } of rounds) {
          const wanted = (index + event) & 0xffff;
          guest.available.setUint16(4 + 2 * 16, wanted, true);
          for (let i = 0; i < puts; i++) {
            guest.queue.resume(i);
            guest.queue.put(i, 0);
          }
          index = (index + puts) & 0xffff;
          assert.equal(guest.queue.publish(), first || event < puts);
          first = false;
        }
      },
    ),
  );
});
