import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ask, GONE, setUp, use } from '../../test/support/scripted-host.ts';
import type { ManualClock } from '../lib/clock.ts';
import { DiskKind, DiskStatus } from './disk.ts';
import { NetbusError } from './errors.ts';
import type { VirtualDeviceState } from './virtual-device.ts';

test('it connects when the guest begins, and gives the lease back when it is quiet', async () => {
  const { host, virtual, states } = setUp();
  const guest = use(virtual);
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  assert.deepEqual(
    states.map(({ name }) => name),
    ['connecting', 'active'],
  );
  assert.deepEqual(await guest.quiesce(new AbortController().signal), { outcome: 'clean' });
  await virtual.passage.leave([], new AbortController().signal);
  // The session has no hurry any more.
  await turn();
  assert.deepEqual(host.last.calls, ['activate', 'quiesced, device closed', 'close']);
  await guest.close();
  await virtual.close();
  assert.equal(virtual.state.name, 'closed');
  assert.equal(host.sessions.length, 1);
});

test('once quiet it does not take the lease back, whatever becomes of its session', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  await guest.quiesce(new AbortController().signal);
  host.last.end(GONE);
  await turn();
  clock.advance(10_000);
  await turn();
  assert.equal(host.sessions.length, 1);
  await guest.close();
});

/** One try more after each of these, and none before. */
async function triesAfter(
  waitsMs: readonly number[],
  clock: ManualClock,
  states: readonly VirtualDeviceState[],
): Promise<void> {
  for (const waitMs of waitsMs) {
    await turn();
    const before = states.length;
    clock.advance(waitMs - 1);
    await turn();
    assert.equal(states.length, before);
    clock.advance(1);
    await turn();
    assert.equal(states.length, before + 1);
  }
}

test('a host that is away is tried again, more and more slowly, and then everything goes on', async () => {
  const { host, virtual, clock, states } = setUp();
  host.reachable = false;
  const guest = use(virtual);
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  await triesAfter([50, 100, 200, 250, 250, 250], clock, states);
  const state = virtual.state;
  assert.ok(state.name === 'connecting' && state.cause === GONE);
  host.reachable = true;
  clock.advance(250);
  await guest.answered();
  assert.equal(virtual.state.name, 'active');
  await guest.close();
});

test('what does not change by itself is tried more rarely', async () => {
  const { host, virtual, clock, states } = setUp();
  host.refusal = new NetbusError('device', 'it forgot what the guest had not flushed', { lasting: true });
  const guest = use(virtual);
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  await triesAfter([50, 100, 200, 400, 800, 1_600, 2_000, 2_000], clock, states);
  // One that is away meanwhile is asked as soon as it may be back.
  host.reachable = false;
  await turn();
  clock.advance(2_000);
  await turn();
  host.reachable = true;
  host.refusal = undefined;
  clock.advance(250);
  await guest.answered();
  await guest.close();
});

test('what was lost goes again to the next session, and late signs of the old one change nothing', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  const first = host.last;
  first.device.hold();
  const rows = [guest.add({ kind: DiskKind.flush }), guest.add({ kind: DiskKind.flush })];
  guest.pushAll();
  clock.advance(1000);
  // Both say so: the device and its session.
  first.device.lose(GONE);
  first.end(GONE);
  await turn();
  assert.equal(host.sessions.length, 2);
  await guest.answered();
  assert.deepEqual(
    guest.answers.slice(1).map(({ row }) => row),
    rows,
  );
  first.end(GONE);
  await turn();
  assert.deepEqual([host.sessions.length, virtual.state.name], [2, 'active']);
  assert.deepEqual(guest.breaches, []);
  await guest.close();
});

test('a grant that is lost at once, again and again, is no busy loop', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  await turn();
  for (let i = 0; i < 5; i++) {
    host.last.end(GONE);
    await turn();
    await turn();
  }
  assert.equal(host.sessions.length, 1);
  clock.advance(50);
  await turn();
  assert.equal(host.sessions.length, 2);
  await guest.close();
});

test('a host that forgot unflushed writes: every request fails, for this guest for ever, not for the next one', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  assert.equal(await ask(guest, DiskKind.write), DiskStatus.ok);
  host.instance = 'second';
  clock.advance(1000);
  host.last.end(GONE);
  await turn();
  assert.equal(await ask(guest, DiskKind.read), DiskStatus.ioError);
  assert.equal(virtual.state.name, 'failed');
  await guest.quiesce(new AbortController().signal);
  await guest.close();
  const again = use(virtual);
  assert.equal(await ask(again, DiskKind.flush), DiskStatus.ioError);
  await again.close();
  virtual.newGuest();
  const other = use(virtual);
  assert.equal(await ask(other, DiskKind.flush), DiskStatus.ok);
  await other.close();
});

for (const how of ['the session is ended', 'a session is refused'] as const) {
  test(`fenced, ${how}: what is kept fails, and all that comes; nothing is sent again`, async () => {
    const { host, virtual, clock } = setUp();
    const fenced = new NetbusError('fenced', 'host m3 was evicted');
    const guest = use(virtual);
    await ask(guest, DiskKind.flush);
    const { last } = host;
    last.device.hold();
    guest.add({ kind: DiskKind.write, outBytes: 4096 });
    guest.pushAll();
    clock.advance(1000);
    if (how === 'a session is refused') host.refusal = fenced;
    last.end(how === 'a session is refused' ? GONE : fenced);
    await guest.answered();
    assert.equal(guest.answers.at(-1)?.status, DiskStatus.ioError);
    assert.deepEqual([virtual.state.name, 'cause' in virtual.state && virtual.state.cause], ['failed', fenced]);
    assert.equal(await ask(guest, DiskKind.read), DiskStatus.ioError);
    host.refusal = undefined;
    clock.advance(100_000);
    await turn();
    assert.equal(host.sessions.length, 1, 'it does not ask again');
    await guest.close();
    const again = use(virtual);
    assert.equal(await ask(again, DiskKind.read), DiskStatus.ioError, 'the same guest');
    await again.close();
    assert.deepEqual(guest.breaches, []);
  });
}

test('what a guest left unflushed is not stable for the next one either: errors where the host forgot it, unless it was flushed since', async () => {
  for (const flushes of [false, true]) {
    const { host, virtual, clock } = setUp();
    const first = use(virtual);
    assert.equal(await ask(first, DiskKind.write), DiskStatus.ok);
    await first.close();
    virtual.newGuest();
    const guest = use(virtual);
    await turn();
    if (flushes) assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
    host.instance = 'second';
    clock.advance(1000);
    host.last.end(GONE);
    await turn();
    assert.equal(await ask(guest, DiskKind.flush), flushes ? DiskStatus.ok : DiskStatus.ioError);
    await guest.close();
  }
});

test('a host that forgot what was written under an earlier daemon: errors, unless this guest has flushed since', async () => {
  for (const flushes of [false, true]) {
    const { host, virtual, clock } = setUp({ before: 'unknown' });
    const guest = use(virtual);
    await turn();
    if (flushes) assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
    host.instance = 'second';
    clock.advance(1000);
    host.last.end(GONE);
    await turn();
    assert.equal(await ask(guest, DiskKind.flush), flushes ? DiskStatus.ok : DiskStatus.ioError);
    await guest.close();
  }
});

test('a host that forgot nothing that matters: the guest goes on', async () => {
  const { host, virtual, clock } = setUp();
  const guest = use(virtual);
  assert.equal(await ask(guest, DiskKind.write), DiskStatus.ok);
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  host.instance = 'second';
  clock.advance(1000);
  host.last.end(GONE);
  await turn();
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  assert.equal(virtual.state.name, 'active');
  await guest.close();
});

test('closed while a session is opened: it is closed when it comes, and asks for nothing', async () => {
  const { host, virtual } = setUp();
  host.holdOpening = true;
  const guest = use(virtual);
  await turn();
  await guest.close();
  host.last.goOn();
  await turn();
  assert.deepEqual(host.last.calls, ['close']);
  assert.equal(virtual.state.name, 'idle');
});

test('closed while the lease is asked for: the session is closed', async () => {
  const { host, virtual } = setUp();
  host.holdActivating = true;
  const guest = use(virtual);
  await turn();
  await guest.close();
  await virtual.close();
  assert.deepEqual(host.last.calls, ['activate', 'close']);
});

test('quiet while the lease is asked for: what comes is given back', async () => {
  const { host, virtual } = setUp();
  host.holdActivating = true;
  const guest = use(virtual);
  await turn();
  const quiescing = guest.quiesce(new AbortController().signal);
  await turn();
  host.last.goOn();
  assert.deepEqual(await quiescing, { outcome: 'clean' });
  await virtual.passage.leave([], new AbortController().signal);
  // The session has no hurry any more.
  await turn();
  assert.deepEqual(host.last.calls, ['activate', 'quiesced, device closed', 'close']);
  await guest.close();
});

test('closed while it waits for the next try', async () => {
  const { host, virtual, clock } = setUp();
  host.reachable = false;
  const guest = use(virtual);
  await turn();
  await guest.close();
  await virtual.close();
  host.reachable = true;
  clock.advance(10_000);
  await turn();
  assert.equal(host.sessions.length, 0);
});

test('a session that ends while the lease is asked for is tried again', async () => {
  const { host, virtual, clock } = setUp();
  host.holdActivating = true;
  const guest = use(virtual);
  await turn();
  host.last.end(GONE);
  host.last.goOn();
  await turn();
  assert.equal(host.last.device.closed, true);
  host.holdActivating = false;
  clock.advance(50);
  await turn();
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  await guest.close();
});

test('a cut keeps the lease with this host, and the next use gets it again', async () => {
  const { host, virtual } = setUp();
  const guest = use(virtual);
  await ask(guest, DiskKind.flush);
  host.last.device.hold();
  guest.add({ kind: DiskKind.flush });
  guest.pushAll();
  const quiesced = await guest.quiesce(AbortSignal.abort());
  assert.equal(quiesced.outcome, 'cut');
  assert.deepEqual(host.last.calls, ['activate', 'close']);
  await guest.close();
  const again = use(virtual);
  assert.equal(await ask(again, DiskKind.flush), DiskStatus.ok);
  assert.equal(host.epoch, 2);
  await again.close();
});

test('one guest at a time', async () => {
  const { virtual } = setUp();
  const guest = use(virtual);
  assert.throws(() => virtual.open(), /one guest at a time/);
  await guest.close();
  await use(virtual).close();
});
