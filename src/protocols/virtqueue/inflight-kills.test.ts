/** The device is killed after each single store to the region and to the used index, in every step of a batch. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DATA_START, ModelGuest } from '../../../test/fuzz/model-guest.ts';
import { type SeededRandom, seededRandom } from '../../../test/support/random.ts';
import { NetbusError } from '../../device/errors.ts';
import { Chain, InflightQueue, inflightBytes, type SplitQueue } from './index.ts';

/** What the driver waits for is numbered in the order in which it was offered. */
type Awaited = Map<number, number>;

type Plain = Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;
/** The arrays behind the proxies. */
const watched = new WeakMap<Plain, Plain>();

/**
 * A guest and a device that is killed after any single store. The device is the real queue with the real region; the driver knows what it
 * waits for. After each store a copy of rings and region is recovered: that must give exactly what the driver waits for, oldest first.
 */
class KilledDevice {
  readonly guest: ModelGuest;
  readonly region: ArrayBuffer;
  readonly awaited: Awaited = new Map();
  readonly #inflight: new (
    window: ArrayBuffer,
    size: number,
  ) => InflightQueue;
  readonly #random: SeededRandom;
  readonly #chain = new Chain();
  readonly #taken: { head: number; at: number }[] = [];
  readonly size: number;
  #offered = 0;
  #checking = true;
  cuts = 0;

  constructor(size: number, base: number, random: SeededRandom, inflight = InflightQueue) {
    this.#inflight = inflight;
    this.#random = random;
    this.size = size;
    this.region = new ArrayBuffer(inflightBytes(size));
    this.guest = new ModelGuest(size, { base, inflight: this.#watchedInflight() });
    for (let head = 0; head < size; head++) this.guest.describe(head, { address: DATA_START, length: 16, flags: 0, next: 0 });
  }

  run(steps: number): void {
    const { store } = Atomics;
    // What goes through a watched array must reach the array itself.
    const atomic = (array: Uint16Array<ArrayBuffer>, at: number, value: number) => {
      const stored = store(watched.get(array) ?? array, at, value);
      this.#stored();
      return stored;
    };
    Object.assign(Atomics, { store: atomic });
    this.#checking = false;
    try {
      this.guest.queue.begin();
      for (let step = 0; step < steps; step++) this.#step();
    } finally {
      Object.assign(Atomics, { store });
    }
  }

  /** The device's own view of the region: all that it stores, atomically or not, is told. */
  #watchedInflight(): InflightQueue {
    const plain = { Uint8Array, Uint16Array, Uint32Array };
    const watch = (array: Plain) => {
      const proxy = new Proxy(array, {
        get: (target, key) => target[key as unknown as number],
        set: (target, key, value: number) => {
          target[key as unknown as number] = value;
          this.#stored();
          return true;
        },
      });
      watched.set(proxy, array);
      return proxy;
    };
    const watching = (type: object) =>
      new Proxy(type, { construct: (target, given) => watch(Reflect.construct(target as typeof Uint8Array, given) as Plain) });
    Object.assign(globalThis, {
      Uint8Array: watching(Uint8Array),
      Uint16Array: watching(Uint16Array),
      Uint32Array: watching(Uint32Array),
    });
    try {
      return new this.#inflight(this.region, this.size);
    } finally {
      Object.assign(globalThis, plain);
    }
  }

  #stored(): void {
    if (this.#checking) return;
    this.#checking = true;
    this.#check();
    this.#checking = false;
  }

  #step(): void {
    const { queue } = this.guest;
    switch (this.#random.below(7)) {
      case 0:
      case 1:
        this.#offer();
        break;
      case 2:
      case 3:
        for (let most = this.#random.below(4); most >= 0 && queue.take(this.#chain); most--) {
          this.#taken.push({ head: this.#chain.head, at: queue.takenAt });
        }
        if (this.#random.below(4) === 0 && this.#taken.at(-1)?.at === ((queue.nextAvailable - 1) & 0xffff)) {
          queue.untake(this.#taken.pop()!.head);
        }
        break;
      case 4:
        for (let most = this.#random.below(4); most >= 0 && this.#taken.length > 0; most--) {
          queue.put(this.#taken.splice(this.#random.below(this.#taken.length), 1)[0].head, 0);
        }
        if (this.#random.below(4) > 0) queue.publish();
        break;
      case 5:
        for (let used = this.guest.takeUsed(); used !== undefined; used = this.guest.takeUsed()) this.awaited.delete(used[0]);
        break;
      case 6:
        if (this.#random.below(4) === 0) this.#kill();
    }
    assert.equal(queue.fault, undefined);
  }

  #offer(): void {
    const free = Array.from({ length: this.guest.size }, (_, head) => head).filter((head) => !this.awaited.has(head));
    for (let most = this.#random.below(4); most >= 0 && free.length > 0; most--) {
      const [head] = free.splice(this.#random.below(free.length), 1);
      this.awaited.set(head, this.#offered++);
      this.guest.offer(head);
    }
    this.guest.publish();
  }

  #kill(): void {
    this.#taken.length = 0;
    this.guest.queue = this.guest.recoveredQueue(this.#watchedInflight(), false);
    this.guest.queue.begin();
  }

  /** A cut here: what would a device that comes back take? */
  #check(): void {
    this.cuts++;
    const queue = this.guest.recoveredQueue(new this.#inflight(this.region.slice(0), this.guest.size), true);
    queue.begin();
    const expected = [...this.#unanswered().values()].sort((a, b) => a - b);
    const taken = (by: SplitQueue) => takeAll(by).map((head) => this.awaited.get(head));
    assert.deepEqual(taken(queue), expected);
    this.#checkElsewhere(taken, expected);
  }

  /** And a device at another host, which has the guest and what the region says of itself? It is killed again where it begins. */
  #checkElsewhere(taken: (by: SplitQueue) => unknown, expected: readonly number[]): void {
    const { size, used } = this.guest;
    const region = new this.#inflight(this.region.slice(0), size);
    if (!region.inUse) return;
    const base = used.getUint16(2, true);
    const itsRegion = new this.#inflight(new ArrayBuffer(this.region.byteLength), size);
    const begin = () => this.guest.arrivedQueue(region.handOver()!, base, { inflight: itsRegion, copy: true });
    const queue = begin();
    queue.begin();
    assert.deepEqual(taken(begin()), expected);
    assert.deepEqual(taken(queue), expected);
  }

  /** What the driver waits for, less what is in the used ring and not seen yet. */
  #unanswered(): Awaited {
    const { used, usedIndex, size } = this.guest;
    const unanswered = new Map(this.awaited);
    const end = used.getUint16(2, true);
    for (let at = usedIndex; at !== end; at = (at + 1) & 0xffff) unanswered.delete(used.getUint32(4 + 8 * (at % size), true));
    return unanswered;
  }
}

function takeAll(queue: SplitQueue): number[] {
  const heads: number[] = [];
  const chain = new Chain();
  while (queue.take(chain)) heads.push(chain.head);
  assert.equal(queue.fault, undefined);
  return heads;
}

const schedule = fc.record({
  seed: fc.integer(),
  exponent: fc.integer({ min: 0, max: 4 }),
  base: fc.integer({ min: 0, max: 0xffff }),
});

function play(
  { seed, exponent, base }: { seed: number; exponent: number; base: number },
  inflight?: typeof InflightQueue,
): number {
  const device = new KilledDevice(2 ** exponent, base, seededRandom(seed), inflight);
  device.run(60);
  return device.cuts;
}

test('a kill after any store: exactly what has no answer is taken again, once, in order', (t) => {
  let cuts = 0;
  fc.assert(
    fc.property(schedule, (each) => {
      cuts += play(each);
    }),
    { numRuns: 120 },
  );
  t.diagnostic(`${cuts} cuts`);
  assert.ok(cuts > 3_000);
});

/** Regions that do not keep to the order. */
const broken: [string, typeof InflightQueue][] = [
  [
    'marks nothing',
    class extends InflightQueue {
      override mark(): void {}
    },
  ],
  [
    'does not link its batch',
    class extends InflightQueue {
      override link(): void {}
    },
  ],
  [
    'clears before the driver sees the answer',
    class extends InflightQueue {
      override link(head: number): void {
        super.link(head);
        this.clear(head);
      }
    },
  ],
  [
    'does not follow the used index',
    class extends InflightQueue {
      override settle(): void {}
    },
  ],
  [
    'counts from the start after each kill',
    class extends InflightQueue {
      override begin(finding: Parameters<InflightQueue['begin']>[0], usedIndex: number): void {
        super.begin(finding.name === 'in-use' ? { ...finding, lastCounter: 0 } : finding, usedIndex);
      }
    },
  ],
];

/** Wrong requests, or a region that the queue does not believe; not a mistake of this file. */
const isFinding = (error: unknown) => error instanceof assert.AssertionError || error instanceof NetbusError;

for (const [what, inflight] of broken) {
  test(`the check above catches a region that ${what}`, () => {
    assert.throws(() => {
      for (let seed = 0; seed < 300; seed++) play({ seed, exponent: 3, base: 65_530 }, inflight);
    }, isFinding);
  });
}
