/**
 * A hostile guest against the virtqueue: descriptors, tables and indexes of chance, many nearly right, some of which change while they are
 * read. Whatever comes, the queue gives chains inside guest memory or says what is wrong; nothing throws, nothing loops.
 * NETBUS_FUZZ_SECONDS sets how long (default 2), NETBUS_FUZZ_SEED which guest.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkDiskRequest, DiskStatus } from '../../src/device/disk.ts';
import { MessageTable } from '../../src/device/message-table.ts';
import { BlockRequestReader, isBlockRequest } from '../../src/protocols/virtio-blk/index.ts';
import { CHAIN_DESCRIPTORS_MAX, Chain } from '../../src/protocols/virtqueue/index.ts';
import { diskProfile } from '../support/memory-disk.ts';
import { type SeededRandom, seededRandom } from '../support/random.ts';
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
} from './model-guest.ts';

const seconds = Number(process.env.NETBUS_FUZZ_SECONDS ?? 2);
const seed = Number(process.env.NETBUS_FUZZ_SEED ?? Date.now() % 2 ** 31);

/** How wild a guest is: one value in so many is not what it should be. */
type Wild = () => boolean;

function address(random: SeededRandom, wild: Wild): number {
  if (!wild()) return DATA_START + random.below(2 * DATA_BYTES - 5000);
  const near = random.below(300) - 150;
  switch (random.below(4)) {
    case 0:
      return HOLE_START + near;
    case 1:
      return FAR_START + DATA_BYTES / 2 + near;
    case 2:
      return random.below(2 ** 32) * 2 ** 21;
    default:
      return DATA_START + DATA_BYTES + near;
  }
}

/** Descriptor `i` of `entries`: readable ones before writable ones, each pointing further on, unless the guest is wild. */
function descriptor(random: SeededRandom, wild: Wild, i: number, entries: number): Descriptor {
  const last = i === entries - 1 || random.below(4) === 0;
  const direction = i >= entries / 2 || last ? WRITE : 0;
  return {
    address: address(random, wild),
    length: wild()
      ? [0, 1, random.below(2 ** 32), 16 * 1025][random.below(4)]
      : [16, 512, 1 + random.below(4096)][random.below(3)],
    flags: wild() ? random.below(0x10000) : direction | (last ? 0 : NEXT),
    next: wild() ? random.below(0x10000) : wild() ? random.below(entries) : last ? 0 : i + 1,
  };
}

/** Now and then a field is another one at the next look. */
function changeWhileRead(guest: ModelGuest, random: SeededRandom): void {
  for (const region of [guest.table, ...guest.data]) {
    const read = region.readU32.bind(region);
    region.readU32 = (offset) => {
      const value = read(offset);
      if (random.below(50) === 0) region.view.setUint8(random.below(region.size), random.below(256));
      return value;
    };
  }
}

test(`virtqueue, hostile (seed ${seed})`, (t) => {
  const random = seededRandom(seed);
  const end = performance.now() + seconds * 1000;
  const profile = diskProfile({ capacityBytes: 2 ** 40 });
  const table = new MessageTable(1);
  const reader = new BlockRequestReader();
  const chain = new Chain();
  let [guests, chains, faults] = [0, 0, 0];
  for (; performance.now() < end || guests === 0; guests++) {
    const size = 2 ** random.below(6);
    const guest = new ModelGuest(size, {
      indirect: random.below(8) > 0,
      eventIndex: random.below(2) === 0,
      base: random.below(65536),
    });
    const { queue } = guest;
    if (random.below(3) === 0) changeWhileRead(guest, random);
    const oneIn = 2 + random.below(400);
    const wild = () => random.below(oneIn) === 0;
    for (let turn = 0; turn < 20 && queue.fault === undefined; turn++) {
      for (let i = 0; i < size; i++) guest.describe(i, descriptor(random, wild, i, size));
      const tableAt = DATA_START + 16 * random.below(DATA_BYTES / 16 - 8);
      const indirect = Array.from({ length: 8 }, (_, i) => descriptor(random, wild, i, 8));
      if (random.below(3) === 0) {
        guest.describeIndirect(tableAt, indirect);
        guest.describe(0, { address: tableAt, length: 128, flags: INDIRECT, next: 0 });
      }
      const first = random.below(size);
      for (let i = random.below(size + 1) - 1; i >= 0; i--) guest.offer(wild() ? random.below(65536) : (first + i) % size);
      guest.publish();
      if (wild() && wild()) guest.forceAvailableIndex(random.below(65536));
      const held: number[] = [];
      while (queue.take(chain)) {
        chains++;
        assert.ok(chain.count >= 1 && chain.count <= CHAIN_DESCRIPTORS_MAX && held.length < size);
        held.push(chain.head);
        // Touching the ends of each part throws where it is outside.
        for (let part = 0; part < chain.count; part++) chain.region(part).readU8(0);
        if (!isBlockRequest(chain)) continue;
        const last = chain.writablePart(chain.writableBytes - 1);
        chain.region(last).readU8(chain.writableOffset(last, chain.writableBytes - 1));
        if (reader.read(chain, table, 0, false) !== DiskStatus.ok || checkDiskRequest(table, 0, profile) !== DiskStatus.ok)
          continue;
        const segments = table.segments(0);
        let bytes = 0;
        for (let i = 0; i < segments.count; i++)
          bytes += segments.regions[i]!.bytes(segments.offsets[i], segments.lengths[i]).length;
        assert.equal(bytes, table.outLength[0] + table.inLength[0]);
      }
      queue.disarm();
      for (const head of held) queue.put(head, 0);
      queue.publish();
      queue.arm();
      assert.equal(queue.inFlight, 0);
    }
    if (queue.fault !== undefined) {
      faults++;
      assert.match(queue.fault, /^queue 0, /);
    }
  }
  t.diagnostic(`${guests} guests, ${chains} chains taken, ${faults} guests refused`);
  assert.ok(chains > 0 && faults > 0);
});
