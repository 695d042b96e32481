/** A guest moves from the frontend of one host to that of another, and back: no request is lost, and none is repeated that was answered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pattern } from '../../../test/support/vhost-user/disk-bench.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { cut, held, move, sectors, stop, withTwoHosts } from '../../../test/support/vhost-user/two-hosts.ts';
import { waitFor } from '../../../test/support/wait.ts';
import { featureBits, ProtocolFeature } from '../../protocols/vhost-user/index.ts';

const WITHOUT_REGION = FRONTEND_PROTOCOL_FEATURES & ~featureBits(ProtocolFeature.inflightShmfd);

for (const protocolFeatures of [FRONTEND_PROTOCOL_FEATURES, WITHOUT_REGION]) {
  const region = protocolFeatures === FRONTEND_PROTOCOL_FEATURES ? 'with a region' : 'without a region';

  test(`a clean end: the guest goes on where it was (${region})`, () =>
    withTwoHosts(async (hosts) => {
      const { m1, m2, connect } = hosts;
      const vm = await connect({ queues: 2, protocolFeatures });
      for (let i = 0; i < 5; i++) await vm.write(i, pattern(512, i), { queue: i % 2 });
      assert.deepEqual(await stop(vm), [3, 2]);
      assert.deepEqual(m1.passage.left, [
        {
          queues: [
            { fetched: 3, usedIndex: 3, heads: [], lastBatch: [] },
            { fetched: 2, usedIndex: 2, heads: [], lastBatch: [] },
          ],
          open: true,
          aborted: false,
        },
      ]);
      await waitFor('the device to be closed', () => m1.disk.openNow === 0);
      await move(vm, hosts);
      for (let i = 0; i < 5; i++) assert.deepEqual(await vm.read(i, 512, { queue: i % 2 }), pattern(512, i));
      assert.equal(m2.disk.opened, 1);
      assert.deepEqual([...m1.complaints, ...m2.complaints], []);
    }));

  for (const known of [true, false]) {
    test(`a cut while answers come out of order: none is lost, none repeated (${region}, base known: ${known})`, () =>
      withTwoHosts(async (hosts) => {
        const { m1, m2, clock, connect } = hosts;
        const vm = await connect({ queues: 2, protocolFeatures });
        m1.disk.holding = true;
        const places = [0, 10, 20, 30, 40, 50, 60];
        const work = places.map((sector, i) => vm.write(sector, pattern(512, sector), { queue: i % 2 }));
        await held(m1, 7);
        const order = sectors(m1);
        for (const i of [5, 3, 1]) {
          m1.disk.device!.releaseAt(i);
          await work[places.indexOf(order[i])];
        }
        await cut(vm, clock);
        assert.equal(m1.passage.left.length, 1);
        assert.equal(m1.passage.left[0].open, true);
        assert.equal(m1.passage.left[0].aborted, false, 'there is time left for it');
        const expected = order.filter((_, i) => ![5, 3, 1].includes(i));
        assert.equal(m1.passage.last.flatMap(({ heads }) => heads).length, 4);
        const later = vm.write(70, pattern(512, 70));
        await move(vm, hosts, known);
        await Promise.all([...work, later]);
        const byQueue = (all: readonly number[], queue: number) => all.filter((place) => places.indexOf(place) % 2 === queue);
        assert.deepEqual(byQueue(sectors(m2), 0), byQueue(expected, 0));
        assert.deepEqual(byQueue(sectors(m2), 1), byQueue(expected, 1));
        assert.equal(sectors(m2).length, 5);
        for (const place of [...places, 70]) assert.deepEqual(await vm.read(place, 512), pattern(512, place));
      }));
  }
}

test('on and on: what a host had not taken again yet goes along, before what was new there', () =>
  withTwoHosts(
    async (hosts) => {
      const { m1, m2, clock, connect } = hosts;
      const vm = await connect({ queues: 1, protocolFeatures: WITHOUT_REGION });
      m1.disk.holding = true;
      const work = [0, 1, 2, 3].map((i) => vm.write(i, pattern(512, i)));
      await held(m1, 4);
      await cut(vm, clock);
      // Here only two go at a time.
      m2.disk.holding = true;
      m2.disk.room = 2;
      await move(vm, hosts);
      await held(m2, 2);
      m2.disk.device!.releaseLast();
      await work[1];
      await held(m2, 2);
      await cut(vm, clock);
      assert.equal(m2.passage.last[0].heads.length, 3);
      m1.disk.holding = false;
      m1.disk.seen.length = 0;
      m1.passage.expect();
      await vm.moveTo(m1.path);
      m1.passage.arrive(m2.passage.last);
      await Promise.all(work);
      assert.deepEqual(sectors(m1), [0, 2, 3]);
    },
    { depth: 4 },
  ));

for (const protocolFeatures of [FRONTEND_PROTOCOL_FEATURES, WITHOUT_REGION]) {
  for (const where of ['the same connection', 'a new connection']) {
    const region = protocolFeatures === FRONTEND_PROTOCOL_FEATURES;
    test(`a cancelled migration: the rings begin again over ${where} (region ${region})`, () =>
      withTwoHosts(async ({ m1, clock, connect }) => {
        const vm = await connect({ queues: 2, protocolFeatures });
        m1.disk.holding = true;
        const work = [0, 1, 2, 3].map((i) => vm.write(i, pattern(512, i), { queue: i % 2 }));
        await held(m1, 4);
        const order = sectors(m1);
        // Without a region a new connection knows the used index alone, so that only what follows it may be left.
        m1.disk.device!.release(1);
        await work[order[0]];
        await cut(vm, clock);
        assert.equal(m1.passage.left.length, 1);
        m1.disk.holding = false;
        m1.disk.seen.length = 0;
        if (where === 'a new connection') await vm.reconnect();
        else for (const index of [0, 1]) await vm.startRing(index);
        await Promise.all(work);
        assert.deepEqual(sectors(m1).sort(), order.slice(1).sort());
        assert.equal(m1.frontend.status().lastStop, undefined);
        await stop(vm);
        assert.deepEqual(
          m1.passage.last.map(({ heads }) => heads),
          [[], []],
        );
      }));
  }
}

test('any order of answers, any moment of the stop, again and again: each request is done once where its host answered, and in order', async (t) => {
  let moves = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.array(fc.record({ asked: fc.integer({ min: 1, max: 9 }), answered: fc.array(fc.nat(20), { maxLength: 9 }) }), {
        minLength: 1,
        maxLength: 4,
      }),
      async (region, rounds) => {
        await withTwoHosts(async ({ m1, m2, clock, connect }) => {
          const vm = await connect({ queues: 2, protocolFeatures: region ? FRONTEND_PROTOCOL_FEATURES : WITHOUT_REGION });
          const asked: number[] = [];
          const done = new Set<number>();
          let [here, there] = [m1, m2];
          here.disk.holding = true;
          for (const { asked: count, answered } of rounds) {
            for (let i = 0; i < count; i++) {
              const place = asked.length;
              asked.push(place);
              void vm.write(place, pattern(512, place), { queue: place % 2 }).then(
                () => done.add(place),
                () => {},
              );
            }
            const open = () => asked.length - done.size;
            await held(here, open());
            // What the last host did not answer is taken again, each once, and in the order of each ring.
            for (const queue of [0, 1]) {
              const waiting = asked.filter((place) => place % 2 === queue && !done.has(place));
              assert.deepEqual(
                sectors(here).filter((place) => place % 2 === queue),
                waiting,
              );
            }
            for (const which of answered.slice(0, open())) {
              const before = done.size;
              here.disk.device!.releaseAt(which % here.disk.device!.held);
              await waitFor('the answer', () => done.size > before);
            }
            await cut(vm, clock);
            for (const place of done)
              assert.deepEqual(here.disk.storage.subarray(place * 512, place * 512 + 512), Buffer.from(pattern(512, place)));
            there.disk.holding = true;
            there.disk.seen.length = 0;
            // The one of an earlier stay still says that it holds something.
            there.disk.device = undefined;
            there.passage.expect();
            await vm.moveTo(there.path, which(rounds, moves));
            there.passage.arrive(here.passage.last);
            [here, there] = [there, here];
            moves++;
          }
          here.disk.holding = false;
          await waitFor(
            'all that is left to be held',
            () => here.disk.device?.held === asked.length - done.size || done.size === asked.length,
          );
          here.disk.device?.release();
          await waitFor('all to be done', () => done.size === asked.length);
        });
      },
    ),
    { numRuns: 15 },
  );
  t.diagnostic(`${moves} moves`);
});

/** Whether the VMM knows where the rings were stopped. */
function which(rounds: readonly unknown[], moves: number): boolean {
  return (rounds.length + moves) % 2 === 0;
}
