/** The VM's side: sessions with an honest host, and with one that is hostile, silent or gone. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TestAuthority, TestStaging } from '../../test/support/bus-host.ts';
import { type BusPair, busPair } from '../../test/support/bus-pair.ts';
import { type Frame, frame } from '../../test/support/frames.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRecord } from '../../test/support/lease-record.ts';
import { MemoryRegion } from '../../test/support/memory-region.ts';
import { TlsPeer } from '../../test/support/tls-peer.ts';
import { waitFor } from '../../test/support/wait.ts';
import { openNullSource } from '../backends/null/null.ts';
import { Batch, type Replies } from '../device/batch.ts';
import type { Device, Guest } from '../device/device.ts';
import { DiskKind, DiskStatus } from '../device/disk.ts';
import type { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import { MessageTable } from '../device/message-table.ts';
import { ManualClock } from '../lib/clock.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { CREDIT_BYTES_MIN, HEARTBEAT_CUT_MS } from '../protocols/netbus/limits.ts';
import { openRemoteSession, type RemoteSession } from './remote-session.ts';

const MIB = 1024 * 1024;
const authority = new TestAuthority();
const m1 = await authority.identity('m1');
const m2 = await authority.identity('m2');
const nothing = openNullSource({ capacityBytes: 16 * MIB });
const { reply, event, stated, credit } = FrameType;

const disposals: (() => unknown)[] = [];
after(() => Promise.all(disposals.map((dispose) => dispose())));

/** A guest that notes what it hears, with 16 requests over 64 KiB of memory. */
class SmallGuest implements Guest {
  readonly requests = new MessageTable(16);
  readonly region = new MemoryRegion(16 * 4096);
  readonly batch = new Batch(this.requests);
  readonly answers: [row: number, status: number, length: number][] = [];
  readonly events: number[] = [];
  readonly lostCauses: NetbusError[] = [];
  device: Device | undefined;

  begin(device: Device): void {
    this.device = device;
    device.start(this);
  }

  /** Pushes a read of 4 KiB. */
  read(row: number, position = 0): void {
    const { requests, batch, region } = this;
    requests.kind[row] = DiskKind.read;
    requests.argument[row] = position;
    requests.extent[row] = 4096;
    requests.inLength[row] = 4096;
    requests.segments(row).clear();
    requests.segments(row).add(region, row * 4096, 4096);
    batch.add(row);
    batch.drop(this.device!.push(batch));
  }

  reply(replies: Replies): void {
    for (let i = 0; i < replies.count; i++) this.answers.push([replies.rows[i], replies.statuses[i], replies.lengths[i]]);
  }

  push(events: Batch): number {
    for (let i = 0; i < events.count; i++) this.events.push(events.table.argument[events.rows[i]]);
    return events.count;
  }

  ready(): void {
    this.batch.drop(this.device!.push(this.batch));
  }

  lost(cause: NetbusError): void {
    this.lostCauses.push(cause);
  }
}

async function pair(options: Parameters<typeof busPair>[0] = {}): Promise<BusPair> {
  const made = await busPair(options);
  disposals.push(() => made.close());
  return made;
}

interface Hostile {
  readonly session: RemoteSession;
  readonly guest: SmallGuest;
  readonly peer: TlsPeer;
  readonly ended: NetbusError[];
}

/** A session whose other end is in the test's hands, with the lease granted and one read on its way. */
async function hostile(
  options: { clock?: ManualClock; features?: string[]; stated?: object; peers?: TlsPeer[] } = {},
): Promise<Hostile> {
  const { features = [], stated: more = {}, peers = [], ...host } = options;
  let peer: TlsPeer | undefined;
  const server = await TlsPeer.listen(m1, (accepted) => {
    peer = accepted;
    peers.push(accepted);
    void accepted.received(FrameType.hello).then(() => accepted.send({ type: FrameType.welcome }, { ...welcome, features }));
    void accepted
      .received(FrameType.state)
      .then(({ id }) => accepted.send({ type: stated, id }, { epoch: 7, instance: 'i2', ...more }));
  });
  const endpoint = await authority.endpoint('m2', { identity: m2, ...host });
  const ended: NetbusError[] = [];
  const { allocate } = new TestStaging();
  const session = await openRemoteSession({ endpoint, target: server.target, attachment: 'a1', allocate }, (cause) =>
    ended.push(cause),
  );
  disposals.push(() => {
    session.close();
    peer?.socket.destroy();
    server.close();
  });
  const grant = await session.activate();
  assert.deepEqual([grant.epoch, grant.instance, grant.bootId], [7, 'i2', 'boot-x']);
  const guest = new SmallGuest();
  guest.begin(grant.device);
  guest.read(3);
  await peer!.received(FrameType.request);
  return { session, guest, peer: peer!, ended };
}

const welcome = {
  ...{ version: 1, features: [], host: 'm1', bootId: 'boot-x', release: '9' },
  session: { instance: 'i1', profile: nothing.profile, depth: 8, bytes: CREDIT_BYTES_MIN },
};

test('a session: standby, the lease, requests, the lease given back and asked for again', async () => {
  const { host, open, staging } = await pair();
  const record = new MemoryRecord();
  const lease = host.add('a1', nothing, record);
  const session = await open('a1');
  assert.deepEqual(session.profile, nothing.profile);
  assert.equal(lease.active, false);
  for (const epoch of [1, 2]) {
    const grant = await session.activate();
    assert.equal(grant.epoch, epoch);
    assert.equal(grant.instance, 'null');
    const guest = new SmallGuest();
    guest.begin(grant.device);
    guest.region.bytes(0, guest.region.size).fill(1);
    for (let row = 0; row < 16; row++) guest.read(row, row * 4096);
    await waitFor('all answers', () => guest.answers.length === 16);
    assert.equal(guest.region.bytes(0, guest.region.size).indexOf(1), -1);
    assert.deepEqual(await grant.device.quiesce(new AbortController().signal), { outcome: 'clean' });
    if (epoch === 2) await grant.device.close();
    await session.quiesced({ queues: [] });
    assert.deepEqual(record.value.lease, { epoch, holder: null });
    assert.equal(staging.regions, 0);
    await grant.device.close();
  }
  session.close();
  session.close();
});

test('refusals come with their code', async () => {
  const { host, open } = await pair();
  await assert.rejects(open('nothing'), {
    code: 'not_found',
    message: /^m1 \(127\.0\.0\.1:\d+\) ended the connection: there is no attachment nothing$/,
  });
  host.add('a1', nothing);
  const session = await open('a1');
  await session.activate();
  await assert.rejects(session.activate(), /has the lease already/);
  session.close();
  await assert.rejects(session.activate(), { code: 'ended' });
});

test("a host's bad answers end the session: the guest is told once, what is wrong is told to the host", async () => {
  const full = new Uint8Array(4096);
  const ok: Frame = { type: reply, id: 0, payload: full };
  const cases: [string, Uint8Array, RegExp][] = [
    ['an id that is not in use', frame({ ...ok, id: 1 }), /REPLY to 1, which no request waits for/],
    ['an id beyond the depth', frame({ ...ok, id: 4000 }), /REPLY to 4000, which no request waits for/],
    [
      'more than there is room for',
      frame({ ...ok, payload: new Uint8Array(4097) }),
      /REPLY with 4097 bytes to a request with room for 4096/,
    ],
    [
      'a read that is too short',
      frame({ ...ok, payload: new Uint8Array(512) }),
      /REPLY with status 0 and 512 bytes does not fit/,
    ],
    ['a status of no class', frame({ ...ok, flags: 300, payload: new Uint8Array() }), /REPLY with status 300/],
    ['an answer twice', Buffer.concat([frame(ok), frame(ok)]), /REPLY to 0, which no request waits for/],
    ['an event of no kind', frame({ type: event, kind: 1 }), /EVENT of kind 1 with 0 bytes is not for this class/],
    ['events beyond the credit', Buffer.concat(Array(65).fill(frame({ type: event, kind: 16 }))), /EVENT beyond the credit/],
    ['credit for nothing', frame({ type: credit, id: 1 }), /CREDIT for more than was sent/],
    ['a state that was not asked for', frame({ type: stated, id: 1 }, { epoch: 8 }), /STATED that was not asked for/],
    ['a frame of the other direction', frame({ type: FrameType.request }), /REQUEST is not for the VM side/],
    ['a frame of no type', frame({ type: 77 }), /unknown type 77/],
  ];
  for (const [what, bytes, message] of cases) {
    const { guest, peer, ended } = await hostile();
    peer.socket.write(bytes);
    const bye = await peer.bye();
    assert.equal(bye.code, 'protocol', what);
    assert.match(bye.message, message, what);
    assert.match(guest.lostCauses[0].message, message, what);
    await waitFor(`${what}: told`, () => ended.length === 1);
    assert.equal(guest.lostCauses.length, 1, what);
    assert.deepEqual(await guest.device!.quiesce(new AbortController().signal), { outcome: 'cut', unfinished: [3] }, what);
    await guest.device!.close();
  }
});

test('a reply that is cut off within its payload is no reply', async () => {
  const { guest, peer, ended } = await hostile();
  peer.socket.end(frame({ type: reply, id: 0, payload: new Uint8Array(4096) }).subarray(0, 2000));
  await waitFor('the end', () => ended.length === 1);
  assert.equal(guest.lostCauses.length, 1);
  assert.match(ended[0].message, /closed by the peer within a frame/);
  assert.deepEqual(guest.answers, []);
});

test('after a cut no byte of a reply that is on its way reaches the guest', async () => {
  const { guest, peer } = await hostile();
  guest.region.bytes(0, guest.region.size).fill(0xa5);
  const bytes = frame({ type: reply, id: 0, payload: new Uint8Array(4096) });
  peer.socket.write(bytes.subarray(0, 1000));
  await waitFor('the first piece', () => guest.region.bytes(3 * 4096, 1)[0] === 0);
  const bound = new AbortController();
  const quiescing = guest.device!.quiesce(bound.signal);
  await turn();
  bound.abort();
  guest.region.bytes(0, guest.region.size).fill(0xa5);
  peer.socket.write(bytes.subarray(1000));
  assert.deepEqual(await quiescing, { outcome: 'cut', unfinished: [3] });
  await waitFor('the connection is gone', () => peer.closed);
  assert.equal(
    guest.region.bytes(0, guest.region.size).findIndex((byte) => byte !== 0xa5),
    -1,
  );
  assert.deepEqual(guest.answers, []);
});

test('events come in order, and their credit goes back', async () => {
  const { guest, peer, session } = await hostile();
  for (let i = 0; i < 200; i++) {
    peer.send({ type: event, kind: DiskKind.capacityChanged, argument: i });
    if (i % 50 === 49) await waitFor(`event ${i}`, () => guest.events.length === i + 1);
  }
  assert.deepEqual(
    guest.events,
    Array.from({ length: 200 }, (_, i) => i),
  );
  const credits = () => peer.collector.frames.filter(({ type }) => type === credit);
  await waitFor('all credit', () => credits().reduce((sum, { id }) => sum + id, 0) === 200);
  session.close();
});

test('a host that falls silent is cut after 15 s, and hears PING before', async () => {
  const clock = new ManualClock();
  const { guest, peer, ended } = await hostile({ clock });
  clock.advance(HEARTBEAT_CUT_MS - 1);
  await peer.received(FrameType.ping);
  assert.equal(ended.length, 0);
  clock.advance(1);
  await waitFor('the cut', () => ended.length === 1);
  assert.equal(ended[0].code, 'unreachable');
  assert.match(ended[0].message, /^the connection with m1 \(127\.0\.0\.1:\d+\) was cut: nothing was heard for 15 s$/);
  assert.equal(guest.lostCauses.length, 1);
});

test('PONG gives the round trip, and keeps the connection', async () => {
  const clock = new ManualClock();
  const { peer, ended, session } = await hostile({ clock });
  for (let i = 0; i < 10; i++) {
    const before = peer.collector.frames.length;
    clock.advance(5_000);
    await waitFor('PING', () => peer.collector.frames.length > before);
    clock.advance(3);
    const { id } = peer.collector.frames.at(-1)!;
    peer.send({ type: FrameType.pong, id });
    await waitFor('PONG', () => session.rttMs === 3);
    peer.send({ type: event, kind: DiskKind.capacityChanged, argument: i });
  }
  assert.equal(ended.length, 0);
});

test('BYE says why, and ends the session once', async () => {
  const { guest, peer, ended, session } = await hostile();
  peer.send({ type: FrameType.bye }, { code: 'ended', message: 'the export was\nremoved' });
  peer.socket.end();
  await waitFor('the end', () => ended.length === 1);
  assert.match(ended[0].message, /^m1 \(.*\) ended the connection: the export was removed$/);
  assert.equal(guest.lostCauses.length, 1);
  session.close();
  await turn();
  assert.equal(ended.length, 1);
});

test('a device that is closed while it has requests ends its session', async () => {
  const { guest, peer, ended } = await hostile();
  await guest.device!.close();
  await guest.device!.close();
  await waitFor('the end', () => peer.closed && ended.length === 1);
  assert.equal(ended[0].code, 'ended');
  assert.equal(guest.lostCauses.length, 0);
});

test('a capacity that grew at the other end reaches the guest, and the new bytes can be used', async () => {
  const { host, open } = await pair();
  const device = new HeldDevice(nothing.profile, 64);
  let { profile } = nothing;
  host.add('a1', {
    ...nothing,
    get profile() {
      return profile;
    },
    open: () => device,
  });
  const session = await open('a1');
  const { device: remote } = await session.activate();
  const guest = new SmallGuest();
  guest.begin(remote);
  guest.read(0, 16 * MIB);
  await waitFor('refused', () => guest.answers.length === 1);
  assert.equal(guest.answers[0][1], DiskStatus.ioError);
  profile = { ...profile, capacityBytes: 32 * MIB };
  device.changeCapacity(32 * MIB);
  await waitFor('the event', () => guest.events.length === 1);
  assert.deepEqual(guest.events, [32 * MIB]);
  guest.read(1, 16 * MIB);
  await waitFor('let through', () => device.taken.length + guest.answers.length >= 2);
  session.close();
});

const left: HandOver = {
  queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [1] }],
  unflushed: { bootId: 'b', instance: 'i', log: { host: 'm2', bytes: 4096 } },
};

test('what a guest left travels with the lease: over its own session, over one in standby, and back with the next grant', async () => {
  const { host, open } = await pair();
  const record = new MemoryRecord();
  const lease = host.add('a1', nothing, record);
  const first = await open('a1');
  await first.activate();
  await first.quiesced(left);
  assert.deepEqual(record.value.handOver, left);
  const causes: NetbusError[] = [];
  const cut = await open('a1', (cause) => causes.push(cause));
  assert.equal((await cut.activate()).handOver, undefined);
  const standby = await open('a1');
  await standby.quiesced(left);
  assert.deepEqual([record.value.lease, record.value.handOver, lease.active], [{ epoch: 2, holder: null }, left, false]);
  await waitFor('the session that was cut is over', () => causes.length === 1);
  assert.match(causes[0].message, /a newer session of the same host gave the lease back/);
  // As if it had come from another host.
  record.value = { ...record.value, host: 'm9', standby: { host: 'm2' } };
  assert.deepEqual((await standby.activate()).handOver, left);
  await standby.quiesced('unchanged');
  assert.deepEqual([record.value.host, record.value.handOver], ['m9', left]);
  for (const session of [first, standby]) session.close();
});

test('a release in standby that is refused leaves the session in standby', async () => {
  const { host, open } = await pair();
  const record = new MemoryRecord({ host: 'm9' });
  host.add('a1', nothing, record);
  const session = await open('a1');
  await assert.rejects(session.quiesced(left), { code: 'denied', message: /the VM is at host m9: host m2 has nothing of it/ });
  await session.activate();
  session.close();
});

test('with a host of an older release a clean release is what it was, and anything else is refused in words', async () => {
  const { host, open } = await pair({ m1: { features: [], release: '0.0.9' }, m2: { release: '0.2.0' } });
  const record = new MemoryRecord();
  host.add('a1', nothing, record);
  const session = await open('a1');
  const refused = { code: 'protocol', message: /m1 .* runs release 0\.0\.9.*upgrade it to the one of this host, 0\.2\.0$/ };
  await assert.rejects(session.quiesced({ queues: [] }), refused);
  await session.activate();
  for (const what of [left, 'unchanged'] as const) await assert.rejects(session.quiesced(what), refused);
  const clean = { queues: [{ fetched: 9, usedIndex: 9, heads: [], lastBatch: [] }] };
  await session.quiesced(clean);
  assert.deepEqual(record.value, { host: 'm2', lease: { epoch: 1, holder: null } });
  session.close();
});

test('a hand-over that no guest can have left ends the session', async () => {
  const cases: [string, object, RegExp][] = [
    ['an index of no ring', { queues: [{ ...left.queues[0], fetched: 65536 }] }, /STATED: /],
    ['a head of no queue', { queues: [{ ...left.queues[0], heads: [1024] }] }, /STATED: /],
    ['an unknown member', { ...left, colour: 'red' }, /STATED: /],
  ];
  for (const [what, handOver, message] of cases) {
    const peers: TlsPeer[] = [];
    await assert.rejects(hostile({ features: ['hand-over'], stated: { handOver }, peers }), { code: 'protocol' }, what);
    assert.match((await peers[0].bye()).message, message, what);
  }
});
