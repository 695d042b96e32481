/** A guest leaves the frontend of one host for that of another: what it takes along, how it is received, and what it finds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pattern } from '../../../test/support/vhost-user/disk-bench.ts';
import type { VhostUserFrontend } from '../../../test/support/vhost-user/frontend.ts';
import type { Step } from '../../../test/support/vhost-user/handshake.ts';
import {
  cut,
  held,
  move,
  sectors,
  states,
  stop,
  type TestHost,
  withTwoHosts,
} from '../../../test/support/vhost-user/two-hosts.ts';
import { waitFor } from '../../../test/support/wait.ts';
import type { QueueHandOver } from '../../device/hand-over.ts';

const NEW_QUEUE: QueueHandOver = { fetched: 0, usedIndex: 0, heads: [], lastBatch: [] };

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

/** The VMM of the guest comes to `host`, and has said no more than which features its driver wants. Returns what it has to say yet. */
async function beginAt(host: TestHost, vm: VhostUserFrontend): Promise<Step[]> {
  const steps = vm.stepsTo(host.path);
  const first = steps.findIndex(({ name }) => name === 'setFeatures') + 1;
  for (const step of steps.slice(0, first)) await step.run();
  await waitFor('the device to be open', () => host.disk.openNow === 1);
  return steps.slice(first);
}

test('the device is asked for with the first word of an arriving guest’s VMM: its rings begin at once', () =>
  withTwoHosts(async ({ m1, m2, clock, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    const rest = await beginAt(m2, vm);
    m2.passage.arrive(m1.passage.last);
    await turn();
    assert.deepEqual(states(m2), ['stopped', 'stopped']);
    clock.advance(5);
    for (const step of rest) await step.run();
    await waitFor('both to run', () => states(m2)?.join() === 'running,running');
    assert.equal(m2.frontend.status().lastStart?.stallMs, 0);
    assert.deepEqual(await vm.read(0, 512), pattern(512, 0));
    assert.equal(m2.disk.opened, 1);
  }));

test('a VMM that goes after its first word', () =>
  withTwoHosts(async ({ m1, m2, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    await beginAt(m2, vm);
    vm.disconnect();
    await waitFor('the VMM to be gone', () => !m2.frontend.status().connected && m2.disk.openNow === 0);
    assert.deepEqual(m2.passage.left, []);
    await beginAt(m2, vm);
    m2.passage.arrive(m1.passage.last);
    await turn();
    vm.disconnect();
    await waitFor('the VMM to be gone', () => !m2.frontend.status().connected && m2.disk.openNow === 0);
    assert.deepEqual(m2.passage.last, m1.passage.last, 'it is given back as it came');
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
    const vm = await connect({ queues: 1 });
    await vm.write(0, pattern(512, 0));
    m1.passage.storing = new Promise(() => {});
    await cut(vm, clock);
    assert.equal(m1.frontend.status().lastStop?.stallMs, 10_000);
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

test('a VMM that begins to copy the guest’s memory announces that it may leave, until it says otherwise or goes', () =>
  withTwoHosts(async ({ m1, connect }) => {
    const vm = await connect();
    const features = (extra: bigint) =>
      vm.control.tell({ name: 'setFeatures', features: vm.negotiated.features | extra }, [], true);
    const logAll = 1n << 26n;
    await features(logAll);
    await features(logAll);
    await features(0n);
    await features(logAll);
    vm.close();
    await waitFor('the end', () => m1.passage.mayLeaveTold.length === 4);
    assert.deepEqual(m1.passage.mayLeaveTold, [true, false, true, false]);
  }));

test('a ring that is held begins when its last host is heard after all', () =>
  withTwoHosts(async ({ m1, m2, connect }) => {
    const vm = await connect({ queues: 2 });
    await vm.write(0, pattern(512, 0));
    await stop(vm);
    m2.passage.expect();
    await vm.moveTo(m2.path);
    m2.passage.arrive(null);
    await waitFor('one to be held', () => states(m2)?.join() === 'broken,running');
    assert.equal(m2.passage.arrivedCount, 0, 'nothing is settled before that');
    m2.passage.arrive(m1.passage.last);
    await waitFor('both to run', () => states(m2)?.join() === 'running,running');
    assert.deepEqual(await vm.read(0, 512), pattern(512, 0));
    assert.equal(m2.passage.arrivedCount, 1);
  }));
