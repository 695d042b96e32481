import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestGuest } from '../../test/compliance/test-guest.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { openNullSource } from '../backends/null/null.ts';
import { ManualClock } from '../lib/clock.ts';
import { DiskKind, DiskStatus } from './disk.ts';
import { NetbusError } from './errors.ts';
import type { DiskProfile } from './profile.ts';
import type { Grant, Session } from './source.ts';
import { VirtualDevice, type VirtualDeviceOptions, type VirtualDeviceState } from './virtual-device.ts';

const MIB = 1024 * 1024;
const GONE = new NetbusError('unreachable', 'the host of the device is away');
const profile = openNullSource({ capacityBytes: MIB }).profile as DiskProfile;

/** The device's host as one sees it: sessions that are opened, activated, ended as the test says. */
class Host {
  reachable = true;
  refusal: NetbusError | undefined;
  instance = 'first';
  epoch = 0;
  readonly sessions: HostSession[] = [];
  /** Steps that wait for the test, instead of going on by themselves. */
  holdOpening = false;
  holdActivating = false;

  openSession = async (onEnded: (cause: NetbusError) => void): Promise<Session> => {
    if (!this.reachable) throw GONE;
    if (this.refusal !== undefined) throw this.refusal;
    const session = new HostSession(this, onEnded);
    this.sessions.push(session);
    if (this.holdOpening) await session.step();
    return session;
  };

  get last(): HostSession {
    return this.sessions[this.sessions.length - 1];
  }
}

class HostSession implements Session {
  readonly device = new HeldDevice(profile, 16);
  readonly end: (cause: NetbusError) => void;
  readonly calls: string[] = [];
  readonly #host: Host;
  #goOn: () => void = () => {};
  #fail: (cause: NetbusError) => void = () => {};

  constructor(host: Host, onEnded: (cause: NetbusError) => void) {
    this.#host = host;
    this.end = onEnded;
  }

  step(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#goOn = resolve;
      this.#fail = reject;
    });
  }

  goOn(): void {
    this.#goOn();
  }

  async activate(): Promise<Grant> {
    this.calls.push('activate');
    if (this.#host.holdActivating) await this.step();
    const { instance } = this.#host;
    return { epoch: ++this.#host.epoch, bootId: 'boot', instance, device: this.device };
  }

  async quiesced(): Promise<void> {
    this.calls.push(`quiesced, device ${this.device.closed ? 'closed' : 'open'}`);
  }

  close(): void {
    this.calls.push('close');
    this.#fail(new NetbusError('ended', 'closed'));
  }
}

function setUp(options: Partial<VirtualDeviceOptions> = {}) {
  const host = new Host();
  const clock = new ManualClock();
  const states: VirtualDeviceState[] = [];
  const virtual = new VirtualDevice({
    profile,
    depth: 16,
    openSession: host.openSession,
    clock,
    onState: (state) => states.push(state),
    ...options,
  });
  return { host, clock, states, virtual };
}

function use(virtual: VirtualDevice): TestGuest {
  return new TestGuest(virtual.open(), new MemoryRegion(MIB), 32);
}

async function ask(guest: TestGuest, kind: number): Promise<number> {
  guest.add({ kind, ...(kind === DiskKind.write && { outBytes: 4096 }) });
  guest.pushAll();
  await guest.answered();
  return guest.answers[guest.answers.length - 1].status;
}

test('it connects when the guest begins, and gives the lease back when it is quiet', async () => {
  const { host, virtual, states } = setUp();
  const guest = use(virtual);
  assert.equal(await ask(guest, DiskKind.flush), DiskStatus.ok);
  assert.deepEqual(
    states.map(({ name }) => name),
    ['connecting', 'active'],
  );
  assert.deepEqual(await guest.quiesce(new AbortController().signal), { outcome: 'clean' });
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
