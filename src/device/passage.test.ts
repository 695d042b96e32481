/** A guest that leaves a virtual device for another host, and one that comes to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ask, GONE, setUp, use } from '../../test/support/scripted-host.ts';
import { abortAfter } from '../lib/clock.ts';
import { DiskKind, DiskStatus } from './disk.ts';
import { NetbusError } from './errors.ts';
import type { HandOver, QueueHandOver } from './hand-over.ts';

const never = new AbortController().signal;
const QUEUE: QueueHandOver = { fetched: 7, usedIndex: 5, heads: [3, 1], lastBatch: [] };
const IDS = { bootId: 'boot', instance: 'first' };

/** A guest that was cut off with a request without an answer. */
async function cutOff({ host, virtual }: Pick<ReturnType<typeof setUp>, 'host' | 'virtual'>) {
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  host.last.device.hold();
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  await turn();
  assert.equal((await guest.quiesce(AbortSignal.abort())).outcome, 'cut');
  return guest;
}

/** Closes it, and lets the time pass that it waits for a device's host that is away. */
async function end({ virtual, clock }: Pick<ReturnType<typeof setUp>, 'virtual' | 'clock'>): Promise<void> {
  const closed = virtual.close();
  await turn();
  clock.advance(2_000);
  await closed;
}

test('cut: what is left goes by a session of its own, once the device is there again', async () => {
  const { host, virtual, clock } = setUp();
  const guest = await cutOff({ host, virtual });
  host.reachable = false;
  const { signal } = abortAfter(clock, 1_000);
  const leaving = virtual.passage.leave([QUEUE], signal);
  await turn();
  clock.advance(1_000);
  await leaving;
  assert.deepEqual(host.left, []);
  await guest.close();
  host.reachable = true;
  clock.advance(2_000);
  await turn();
  assert.deepEqual(host.left, [{ queues: [QUEUE] }]);
  await turn();
  assert.deepEqual(host.last.calls, ['quiesced, device open', 'close']);
  await virtual.close();
});

test('cut, and the guest goes on here: nothing is handed over', async () => {
  const { host, virtual, clock } = setUp();
  const guest = await cutOff({ host, virtual });
  host.reachable = false;
  host.last.end(GONE);
  await virtual.passage.leave([QUEUE], AbortSignal.abort());
  await guest.close();
  const again = use(virtual);
  host.reachable = true;
  clock.advance(10_000);
  assert.equal(await ask(again, DiskKind.flush), DiskStatus.ok);
  assert.deepEqual(host.left, []);
  await again.close();
  await virtual.close();
});

test('a VMM that went while nobody was here: what is known of its queues is handed over, and nothing is asked for', async () => {
  const { host, virtual, clock } = setUp({ unflushed: () => IDS });
  host.reachable = false;
  await virtual.leaveBehind([QUEUE]);
  host.reachable = true;
  clock.advance(1_000);
  await turn();
  assert.deepEqual(host.left, [{ queues: [QUEUE], unflushed: IDS }]);
  await turn();
  assert.deepEqual(host.last.calls, ['quiesced, device open', 'close']);
  const guest = use(virtual);
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  await guest.close();
  await virtual.close();
});

test('what does not reach the device in time goes another way, under the last epoch, until it has or the guest goes on here', async () => {
  const sent: { epoch: number; left: HandOver; over: AbortSignal }[] = [];
  const { host, virtual, clock } = setUp({ onUndelivered: (undelivered, over) => sent.push({ ...undelivered, over }) });
  const guest = await cutOff({ host, virtual });
  host.reachable = false;
  await virtual.passage.leave([QUEUE], AbortSignal.abort());
  await guest.close();
  clock.advance(10_000);
  await turn();
  assert.deepEqual(
    sent.map(({ epoch, left, over }) => [epoch, left, over.aborted]),
    [[1, { queues: [QUEUE] }, false]],
  );
  host.reachable = true;
  clock.advance(2_000);
  await turn();
  assert.deepEqual([host.left.length, sent.length, sent[0].over.aborted], [1, 1, true]);

  const again = await cutOff({ host, virtual });
  host.reachable = false;
  await virtual.passage.leave([QUEUE], AbortSignal.abort());
  await again.close();
  assert.deepEqual([sent.length, sent[1].epoch, sent[1].over.aborted], [2, 2, false]);
  const here = use(virtual);
  assert.equal(sent[1].over.aborted, true);
  await here.close();
  await virtual.close();
});

test('nothing goes another way where the device has it in time, nothing was taken, or no grant is known', async () => {
  const sent: unknown[] = [];
  const onUndelivered = (undelivered: unknown) => sent.push(undelivered);
  const { virtual } = setUp({ onUndelivered });
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  await guest.quiesce(never);
  const bound = new AbortController();
  await virtual.passage.leave([QUEUE], bound.signal);
  bound.abort();
  await guest.close();
  await virtual.close();

  for (const options of [{ arriving: true }, {}]) {
    const other = setUp({ onUndelivered, ...options });
    other.host.reachable = false;
    const unused = use(other.virtual);
    await unused.quiesce(AbortSignal.abort());
    await other.virtual.passage.leave([{ ...QUEUE, fetched: 0 }], AbortSignal.abort());
    await unused.close();
    await end(other);
  }
  assert.deepEqual(sent, []);
});

test('an answer that asking again does not change ends it', async () => {
  const { host, virtual, clock } = setUp();
  const guest = await cutOff({ host, virtual });
  host.refusal = new NetbusError('fenced', 'this host was fenced');
  host.last.end(GONE);
  await virtual.passage.leave([QUEUE], never);
  host.refusal = undefined;
  clock.advance(10_000);
  await turn();
  assert.deepEqual(host.left, []);
  await guest.close();
  await virtual.close();
});

test('closed while it is handed over: that ends, and the lease stays', async () => {
  const { host, virtual, clock } = setUp();
  const guest = await cutOff({ host, virtual });
  host.reachable = false;
  void virtual.passage.leave([QUEUE], never);
  await guest.close();
  await end({ virtual, clock });
  assert.deepEqual(host.left, []);
});

test('what is not flushed, and a failure, go with the guest', async () => {
  const unflushed = { ...IDS, log: { host: 'm1', bytes: 4096 } };
  const { host, virtual } = setUp({ unflushed: (byReplay) => (byReplay ? unflushed : undefined) });
  const guest = use(virtual);
  await ask(guest, DiskKind.write);
  await guest.quiesce(never);
  await virtual.passage.leave([QUEUE], never);
  assert.deepEqual(host.left, [{ queues: [QUEUE], unflushed }]);
  await guest.close();
  host.instance = 'second';
  const failed = use(virtual);
  assert.equal(await ask(failed, DiskKind.flush), DiskStatus.ioError);
  await failed.quiesce(never);
  await virtual.passage.leave([QUEUE], never);
  assert.match((host.left[0] as HandOver).failure!, /they may be lost/);
  await failed.close();
  await virtual.close();
});

test('a guest that comes: what it left is told with the lease, and later starts are like any other', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  assert.deepEqual(await virtual.passage.arrival(), [QUEUE]);
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  await guest.quiesce(never);
  await virtual.passage.leave([{ ...QUEUE, fetched: 8 }], never);
  assert.deepEqual(host.left, [{ queues: [{ ...QUEUE, fetched: 8 }] }]);
  await guest.close();
  assert.equal(virtual.passage.arrival(), undefined);
  await virtual.close();
});

test("the driver's choice of its write cache goes along, and is there before its queues start", async () => {
  const source = setUp({ writeCache: () => false });
  const guest = use(source.virtual);
  await ask(guest, DiskKind.flush);
  await guest.quiesce(never);
  await source.virtual.passage.leave([QUEUE], never);
  assert.deepEqual(source.host.left, [{ queues: [QUEUE], writeCache: false }]);
  await guest.close();
  const order: string[] = [];
  const target = setUp({ arriving: true, onWriteCache: (enabled) => order.push(`cache ${enabled}`) });
  target.host.handOver = source.host.left[0] as HandOver;
  const there = use(target.virtual);
  await target.virtual.passage.arrival();
  order.push('queues');
  assert.deepEqual(order, ['cache false', 'queues']);
  await there.close();
  await source.virtual.close();
  await target.virtual.close();
});

test('nobody knows what it left: null', async () => {
  const { virtual } = setUp({ arriving: true });
  const guest = use(virtual);
  assert.equal(await virtual.passage.arrival(), null);
  await guest.close();
  await virtual.close();
});

test('a guest that took nothing leaves unchanged what it came with, and may come again', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  await virtual.passage.arrival();
  await guest.quiesce(never);
  // What was unfinished was finished here: that does not count.
  await virtual.passage.leave([{ ...QUEUE, usedIndex: 7, heads: [] }], never);
  assert.deepEqual(host.left, ['unchanged']);
  await guest.close();
  host.handOver = { queues: [{ ...QUEUE, fetched: 20 }] };
  const again = use(virtual);
  assert.equal((await virtual.passage.arrival())![0].fetched, 20);
  await again.close();
  await turn();
  assert.deepEqual(host.left, ['unchanged', 'unchanged']);
  await virtual.close();
});

test('what it takes beyond what was unfinished is told: it cannot go back any more', async () => {
  const taken: number[] = [];
  const { host, virtual } = setUp({ arriving: true, onTaken: () => taken.push(host.epoch) });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  await virtual.passage.arrival();
  for (const _ of QUEUE.heads) await ask(guest, DiskKind.flush);
  assert.deepEqual(taken, []);
  await ask(guest, DiskKind.flush);
  assert.deepEqual(taken, [1]);
  await guest.close();
  await virtual.close();
});

test('on its way to yet another host it takes along how its queues stand, although it took nothing', async () => {
  const left: string[] = [];
  const { host, virtual } = setUp({ arriving: true, onLeft: (how) => left.push(how) });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  await virtual.passage.arrival();
  virtual.passage.mayLeave(true);
  await guest.quiesce(never);
  const finished = { ...QUEUE, usedIndex: 7, heads: [] };
  await virtual.passage.leave([finished], never);
  assert.deepEqual([host.left, left], [[{ queues: [finished] }], ['for good']]);
  await guest.close();
  await virtual.close();
});

test('closed with something taken, and without a word: the lease stays, and so does what the guest came with', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  await virtual.passage.arrival();
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  await guest.close();
  await turn();
  assert.deepEqual(host.left, []);
  assert.deepEqual(await virtual.passage.arrival(), [QUEUE]);
  await virtual.close();
});

test('gone before the lease was there: it is not asked for any more', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.holdOpening = true;
  const guest = use(virtual);
  await turn();
  await guest.close();
  host.last.goOn();
  await virtual.close();
  assert.ok(!host.last.calls.includes('activate'));
});

test('closed while the lease is asked for: a host that was not yet needed keeps nothing', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.holdActivating = true;
  const guest = use(virtual);
  await turn();
  await guest.close();
  const closed = virtual.close();
  host.last.goOn();
  await closed;
  assert.deepEqual(host.left, ['unchanged']);
});

test('a guest that failed elsewhere fails here', async () => {
  const { host, virtual } = setUp({ arriving: true });
  host.handOver = { queues: [QUEUE], failure: 'acknowledged writes may be lost' };
  const guest = use(virtual);
  await virtual.passage.arrival();
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ioError);
  await guest.close();
  await virtual.close();
});

test('a guest whose unflushed writes the host of the device forgot on the way fails here', async () => {
  for (const [instance, status] of [
    ['first', DiskStatus.ok],
    ['second', DiskStatus.ioError],
  ] as const) {
    const { host, virtual } = setUp({ arriving: true, before: 'unknown' });
    host.handOver = { queues: [QUEUE], unflushed: IDS };
    host.instance = instance;
    const guest = use(virtual);
    assert.equal(await ask(guest, DiskKind.flush), status, instance);
    await guest.close();
    await virtual.close();
  }
});

test('once it is settled the guest is here: its queues start as any others do', async () => {
  const { virtual } = setUp({ arriving: true });
  const guest = use(virtual);
  await virtual.passage.arrival();
  virtual.settled();
  assert.equal(virtual.passage.arrival(), undefined);
  await guest.close();
  await virtual.close();
});

test('a grant that still has what a guest brought that is here for good: the device’s host has to be told', async () => {
  let untold = 0;
  const { host, virtual, clock } = setUp({ arriving: true, onUntold: () => untold++ });
  host.handOver = { queues: [QUEUE] };
  const guest = use(virtual);
  await virtual.passage.arrival();
  virtual.settled();
  assert.equal(untold, 0);
  host.last.end(GONE);
  await turn();
  clock.advance(50);
  await ask(guest, DiskKind.flush);
  assert.deepEqual([host.epoch, untold], [2, 1]);
  await guest.close();
  await virtual.close();
});

test('what is known does not fit the guest: the device’s host is asked again, less and less often, until it knows more', async () => {
  const { host, virtual, clock } = setUp({ arriving: true });
  const guest = use(virtual);
  assert.equal(await virtual.passage.arrival(), null);
  const again = virtual.passage.arrivalAgain();
  assert.equal(virtual.passage.arrivalAgain(), again);
  await turn();
  const asked = async (ms: number) => {
    clock.advance(ms);
    for (let i = 0; i < 10; i++) await turn();
    return host.epoch;
  };
  assert.deepEqual([await asked(999), await asked(1), await asked(1_999), await asked(1)], [1, 2, 2, 3]);
  host.handOver = { queues: [QUEUE] };
  assert.equal(await asked(4_000), 4);
  assert.deepEqual(await again, [QUEUE]);
  assert.equal(await asked(60_000), 4);
  await guest.close();
  await virtual.close();
  assert.deepEqual(host.left, ['unchanged']);
});
