/** A guest leaves the frontend of one host for that of another: what it takes along, how it is received, and what it finds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { pattern } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import { FRONTEND_PROTOCOL_FEATURES } from '../../../test/support/vhost-user/handshake.ts';
import { type TestHost, type TwoHosts, withTwoHosts } from '../../../test/support/vhost-user/two-hosts.ts';
import { waitFor } from '../../../test/support/wait.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';
import { featureBits, ProtocolFeature } from '../../protocols/vhost-user/index.ts';

const WITHOUT_REGION = FRONTEND_PROTOCOL_FEATURES & ~featureBits(ProtocolFeature.inflightShmfd);
const NEW_QUEUE: QueueHandOver = { fetched: 0, usedIndex: 0, heads: [], lastBatch: [] };

const sectors = ({ disk }: TestHost) => disk.seen.map(({ argument }) => argument / 512);
const states = ({ frontend }: TestHost) => frontend.status().rings?.map(({ state, waitsFor }) => waitsFor ?? state);
/** By the device that is open now: the one before it may have been cut off with as many. */
const held = ({ disk }: TestHost, count: number) =>
  waitFor(`${count} to be held`, () => disk.openNow > 0 && disk.device?.held === count);

/** As QEMU does it: all rings are disabled, then stopped one after the other. */
async function stop(vm: VhostUserFrontend): Promise<number[]> {
  for (const index of vm.queues.keys()) await vm.enableRing(index, false);
  const bases: number[] = [];
  for (const index of vm.queues.keys()) bases.push(await vm.stopRing(index));
  return bases;
}

/** The same where the disk of m1 holds requests: the bound is what ends it. */
async function cut(vm: VhostUserFrontend, clock: TwoHosts['clock']): Promise<number[]> {
  const before = clock.waiting;
  const stopped = stop(vm);
  let done = false;
  void stopped.finally(() => {
    done = true;
  });
  await waitFor('the stop to begin', () => clock.waiting > before);
  await waitFor('the stop to end', () => {
    if (!done) clock.advance(1_000);
    return done;
  });
  return stopped;
}

/** The guest is expected at m2, its VMM connects there, and what m1 handed over arrives. */
async function move(vm: VhostUserFrontend, { m1, m2 }: TwoHosts, known = true): Promise<void> {
  m2.passage.expect();
  await vm.moveTo(m2.path, known);
  await waitFor('the rings to wait', () => states(m2)?.includes('hand-over'));
  m2.passage.arrive(m1.passage.last);
}

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

test('the rings of an arriving guest wait for it, whatever happens meanwhile', () =>
  withTwoHosts(async (hosts) => {
    const { m1, m2, connect } = hosts;
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    await waitFor('both to wait', () => states(m2)?.join() === 'hand-over,hand-over');
    assert.equal(m2.disk.openNow, 1, 'it is open, which asks for the lease');
    const read = vm.read(0, 512);
    vm.queues[0].kick();
    await vm.enableRing(0, false);
    await vm.enableRing(0, true);
    await vm.control.tell({ name: 'setFeatures', features: vm.negotiated.features }, [], true);
    const [{ guestAddress, userAddress, sizeBytes, fileOffset, fd }] = vm.memory.regions;
    const slot = { guestAddress, userAddress, size: sizeBytes, mmapOffset: fileOffset };
    await vm.control.tell({ name: 'remMemReg', region: slot }, [], true);
    assert.deepEqual(states(m2), ['memory', 'memory']);
    m2.passage.arrive(m1.passage.last);
    await turn();
    assert.deepEqual(sectors(m2), []);
    await vm.control.tell({ name: 'addMemReg', region: slot }, [fd], true);
    assert.deepEqual(await read, pattern(512, 0));
    assert.deepEqual(states(m2), ['running', 'running']);
  }));

test('a queue that never began goes along as its VMM knows it', () =>
  withTwoHosts(async (hosts) => {
    const { m1, connect } = hosts;
    const vm = await connect({ queues: 1 });
    await vm.write(0, pattern(512, 0));
    await vm.control.tell({ name: 'setVringBase', index: 1, base: 77 }, [], true);
    await stop(vm);
    assert.deepEqual(m1.passage.last[1], { fetched: 77, usedIndex: 77, heads: [], lastBatch: [] });
  }));

test('one of two rings stops: nobody leaves; what it stopped with goes along later', () =>
  withTwoHosts(async ({ m1, clock, connect }) => {
    const vm = await connect({ queues: 2 });
    m1.disk.holding = true;
    const stuck = vm.write(0, pattern(512, 1), { queue: 0 });
    const other = vm.write(8, pattern(512, 2), { queue: 1 });
    await held(m1, 2);
    const stopped = vm.stopRing(0);
    await waitFor('the stop to begin', () => clock.waiting > 0);
    m1.disk.holding = false;
    clock.advance(10_000);
    assert.equal(await stopped, 1);
    await other;
    assert.deepEqual([m1.passage.left.length, m1.disk.opened], [0, 2]);
    assert.equal(await vm.stopRing(1), 1);
    assert.deepEqual(
      m1.passage.last.map(({ fetched, usedIndex, heads }) => [fetched, usedIndex, heads.length]),
      [
        [1, 0, 1],
        [1, 1, 0],
      ],
    );
    assert.equal(m1.frontend.status().inFlight, 1);
    // The migration is cancelled.
    await vm.startRing(0);
    await stuck;
    assert.deepEqual(sectors(m1), [0, 8, 8, 0]);
  }));

test('the last ring stops while the device of a cut is still closing: the guest leaves all the same', () =>
  withTwoHosts(async ({ m1, clock, connect }) => {
    const vm = await connect({ queues: 2 });
    m1.disk.holding = true;
    void vm.write(0, pattern(512, 1), { queue: 0 }).catch(() => {});
    void vm.write(8, pattern(512, 2), { queue: 1 }).catch(() => {});
    await held(m1, 2);
    let closed = () => {};
    m1.disk.closing = new Promise((resolve) => {
      closed = resolve;
    });
    const first = vm.stopRing(0);
    await waitFor('the stop to begin', () => clock.waiting > 0);
    clock.advance(9_000);
    await first;
    assert.equal(m1.disk.openNow, 1);
    const before = clock.waiting;
    const second = vm.stopRing(1);
    await waitFor('the second one to begin', () => clock.waiting > before);
    closed();
    await second;
    assert.deepEqual(
      m1.passage.left.map(({ queues, open }) => [queues.map(({ heads }) => heads.length), open]),
      [[[1, 1], true]],
    );
    assert.deepEqual(sectors(m1), [0, 8], 'nothing went again');
  }));

test('a host that does not answer is waited for no longer than the bound', () =>
  withTwoHosts(async ({ m1, clock, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    m1.passage.storing = new Promise(() => {});
    const begunMs = clock.now();
    await cut(vm, clock);
    assert.ok(clock.now() - begunMs <= 11_000);
    assert.equal(m1.passage.left.length, 1);
    vm.disconnect();
    await waitFor('the VMM to be gone', () => !m1.frontend.status().connected);
    assert.equal(m1.passage.left.length, 1, 'once is enough');
  }));

test('a VMM that goes while its guest works: the guest leaves, too', () =>
  withTwoHosts(async (hosts) => {
    const { m1, m2, clock, connect } = hosts;
    const vm = await connect({ queues: 2 });
    await vm.write(5, pattern(512, 5), { queue: 1 });
    m1.disk.holding = true;
    const work = [0, 1, 2].map((i) => vm.write(i, pattern(512, i)));
    await held(m1, 3);
    m1.disk.device!.releaseLast();
    await work[2];
    vm.disconnect();
    await waitFor('the end', () => {
      clock.advance(100);
      return m1.passage.left.length === 1 && !m1.frontend.status().connected;
    });
    assert.deepEqual(
      m1.passage.last.map(({ fetched, usedIndex, heads }) => [fetched, usedIndex, heads.length]),
      [
        [3, 1, 2],
        [1, 1, 0],
      ],
    );
    assert.equal(m1.frontend.status().lastStop, undefined);
    await move(vm, hosts, false);
    await Promise.all(work);
    assert.deepEqual(sectors(m2), [0, 1]);
  }));

test('nobody knows what was left: a ring that is not new is held, with a reason', () =>
  withTwoHosts(async ({ m2, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    m2.passage.arrive(null);
    await waitFor('one to be held', () => states(m2)?.join() === 'broken,running');
    assert.match(m2.frontend.status().rings![0].reason!, /nobody knows where it stood at the last host/);
    await vm.read(0, 512, { queue: 1 });
    const lost = vm.read(0, 512);
    lost.catch(() => {});
    await vm.restart();
    await assert.rejects(lost, /reset/);
    assert.deepEqual(await vm.read(0, 512), pattern(512, 0));
    assert.match(JSON.stringify(m2.passage.left[0].queues[0]), /"fetched":1,"usedIndex":0,"heads":\[\]/, 'it fits no ring');
  }));

test('a hand-over that does not fit the guest is refused, and handed on as it was', () =>
  withTwoHosts(async ({ m1, m2, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await vm.write(0, pattern(512, 0), { queue: 1 });
    await stop(vm);
    const [good, other] = m1.passage.last;
    const wrong = [{ ...good, fetched: 9, usedIndex: 9 }, other];
    m2.passage.expect();
    await vm.moveTo(m2.path);
    m2.passage.arrive(wrong);
    await waitFor('one to be held', () => states(m2)?.join() === 'broken,running');
    assert.match(m2.frontend.status().rings![0].reason!, /it knows 9 answers, the driver has 1\): the guest waits/);
    assert.deepEqual(await stop(vm), [1, 1]);
    assert.deepEqual(m2.passage.last, wrong);
  }));

test('stopped while it waits: answered at once with what was given, and nothing was taken', () =>
  withTwoHosts(async ({ m1, m2, connect }) => {
    const vm = await connect({ queues: 2 });
    for (const queue of [0, 1]) await vm.write(0, pattern(512, 0), { queue });
    const bases = await stop(vm);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    await waitFor('both to wait', () => states(m2)?.join() === 'hand-over,hand-over');
    assert.equal(await vm.stopRing(0), bases[0]);
    assert.equal(m2.disk.openNow, 1, 'the other one still waits');
    assert.equal(await vm.stopRing(1), bases[1]);
    await waitFor('the device to be closed', () => m2.disk.openNow === 0);
    assert.deepEqual(m2.passage.left, []);
    m2.passage.arrive(m1.passage.last);
    await turn();
    assert.deepEqual(states(m2), ['stopped', 'stopped']);
    // And once more.
    m2.passage.expect();
    for (const index of [0, 1]) await vm.startRing(index);
    await waitFor('both to wait', () => states(m2)?.join() === 'hand-over,hand-over');
    m2.passage.arrive(m1.passage.last);
    assert.deepEqual(await vm.read(0, 512), pattern(512, 0));
  }));

test('a VMM that goes while its rings wait, and one that goes when they could begin', () =>
  withTwoHosts(async ({ m1, m2, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    await waitFor('both to wait', () => states(m2)?.join() === 'hand-over,hand-over');
    vm.disconnect();
    await waitFor('the VMM to be gone', () => !m2.frontend.status().connected && m2.disk.openNow === 0);
    assert.deepEqual(m2.passage.left, []);
    await vm.moveTo(m2.path);
    await waitFor('both to wait', () => states(m2)?.join() === 'hand-over,hand-over');
    m2.passage.arrive(m1.passage.last);
    await waitFor('both to run', () => states(m2)?.join() === 'running,running');
    vm.disconnect();
    await waitFor('the VMM to be gone', () => m2.passage.left.length === 1);
    assert.deepEqual(m2.passage.last, m1.passage.last);
  }));

test('a queue that stops before its memory is there hands on what it came with', () =>
  withTwoHosts(async ({ m2, connect }) => {
    const vm = await connect({ queues: 1 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    const [{ guestAddress, userAddress, sizeBytes, fileOffset }] = vm.memory.regions;
    const came = [{ fetched: 7, usedIndex: 5, heads: [3, 1], lastBatch: [1] }, NEW_QUEUE];
    m2.passage.expect();
    await vm.moveTo(m2.path);
    await waitFor('it to wait', () => states(m2)?.[0] === 'hand-over');
    const region = { guestAddress, userAddress, size: sizeBytes, mmapOffset: fileOffset };
    await vm.control.tell({ name: 'remMemReg', region }, [], true);
    m2.passage.arrive(came);
    await turn();
    assert.equal(states(m2)?.[0], 'memory');
    await vm.stopRing(0);
    assert.deepEqual(m2.passage.last, came);
  }));

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

test('how long it took, by the clock', () =>
  withTwoHosts(async (hosts) => {
    const { m1, m2, clock, connect } = hosts;
    const vm = await connect({ queues: 1 });
    await vm.write(0, pattern(512, 0));
    const startedMs = clock.wallTime();
    assert.deepEqual(m1.frontend.status().lastStart, { atMs: startedMs, stallMs: 0 });
    m1.disk.holding = true;
    const last = vm.write(1, pattern(512, 1));
    await held(m1, 1);
    clock.advance(5);
    let stored = () => {};
    m1.passage.storing = new Promise((resolve) => {
      stored = resolve;
    });
    const before = clock.waiting;
    const stopped = stop(vm);
    await waitFor('the stop to begin', () => clock.waiting > before);
    clock.advance(7);
    m1.disk.device!.release();
    await last;
    await waitFor('the guest to leave', () => m1.passage.left.length === 1);
    clock.advance(3);
    stored();
    await stopped;
    assert.deepEqual(m1.frontend.status().lastStop, { atMs: startedMs + 15, outcome: 'clean', drainMs: 7, stallMs: 3 });
    clock.advance(100);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    await waitFor('it to wait', () => states(m2)?.[0] === 'hand-over');
    assert.deepEqual(m2.frontend.status().lastStart, { atMs: startedMs + 115 });
    clock.advance(4);
    m2.passage.arrive(m1.passage.last);
    await vm.read(0, 512);
    assert.deepEqual(m2.frontend.status().lastStart, { atMs: startedMs + 115, stallMs: 4 });
    assert.equal(m1.frontend.status().lastStop?.drainMs, 7, 'its VMM has gone, and it stays');
  }));

test('a cut is the end of the drain', () =>
  withTwoHosts(async ({ m1, clock, connect }) => {
    const vm = await connect({ queues: 1 });
    m1.disk.holding = true;
    void vm.write(1, pattern(512, 1)).catch(() => {});
    await held(m1, 1);
    await cut(vm, clock);
    const { outcome, drainMs, stallMs } = m1.frontend.status().lastStop!;
    assert.equal(outcome, 'cut');
    assert.ok(drainMs >= 8_000 && drainMs + stallMs <= 10_000, `${drainMs} and ${stallMs} ms`);
  }));

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
