/** The device's side against VM hosts that break the text, or are only slow. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { TestAuthority, TestLog, TestSessionHost, TestStaging } from '../../test/support/bus-host.ts';
import { type Frame, frame } from '../../test/support/frames.ts';
import { HeldDevice } from '../../test/support/held-device.ts';
import { MemoryRecord } from '../../test/support/lease-record.ts';
import { TlsPeer } from '../../test/support/tls-peer.ts';
import { waitFor } from '../../test/support/wait.ts';
import { openNullSource } from '../backends/null/null.ts';
import { DiskKind, DiskStatus } from '../device/disk.ts';
import { NetbusError } from '../device/errors.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { CREDIT_BYTES_MIN } from '../protocols/netbus/limits.ts';
import { Bus } from './bus.ts';
import type { Target } from './dial.ts';

const MIB = 1024 * 1024;
const DEPTH = 8;
const authority = new TestAuthority();
const m2 = await authority.identity('m2');
const { request, reply, state, stated, event, credit } = FrameType;

interface Exported {
  readonly target: Target;
  readonly host: TestSessionHost;
  readonly log: TestLog;
  readonly staging: TestStaging;
  readonly bus: Bus;
  readonly device: HeldDevice;
}

const buses: Bus[] = [];
after(() => Promise.all(buses.map((bus) => bus.close())));

/** A host m1 with an attachment a1 on a device that the test holds. */
async function serve(): Promise<Exported> {
  const host = new TestSessionHost();
  const staging = new TestStaging();
  const log = new TestLog();
  const source = openNullSource({ capacityBytes: 16 * MIB });
  const device = new HeldDevice(source.profile, 64);
  host.depth = DEPTH;
  host.add('a1', { ...source, open: () => device });
  const bus = new Bus({
    ...(await authority.endpointOptions('m1', { log })),
    ...{ sessionHost: host, handlers: {}, targetOf: () => undefined, allocate: staging.allocate },
  });
  buses.push(bus);
  const port = await bus.listen('127.0.0.1', 0);
  return { target: { host: 'm1', address: '127.0.0.1', port }, host, log, staging, bus, device };
}

const read = (id: number, length = 4096, position = 0): Frame => ({
  ...{ type: request, kind: DiskKind.read, id, inLength: length, argument: position, extent: length },
});

test('each violation ends that session with BYE protocol, frees its staging and harms no other session', async () => {
  const cases: [string, Uint8Array, RegExp][] = [
    ['an id in use', Buffer.concat([frame(read(1)), frame(read(1))]), /REQUEST with the id 1, which is in use/],
    ['an id beyond the depth', frame(read(DEPTH)), /REQUEST with the id 8, and the depth is 8/],
    ['a reply of more than the limit', frame({ ...read(0), inLength: 5 * MIB }), /REQUEST for 5242880 bytes of reply/],
    ['more bytes than the credit', Buffer.concat([0, 1, 2].map((id) => frame(read(id, 4 * MIB)))), /REQUEST beyond the credit/],
    ['a frame of the other direction', frame({ type: reply, id: 0 }), /REPLY is not for the device side of a session/],
    ['a frame of the other kind of connection', frame({ type: FrameType.call, id: 1 }, {}), /CALL is not for the device side/],
    ['a second HELLO', frame({ type: FrameType.hello }, {}), /HELLO is not for the device side/],
    ['the lease twice', frame({ type: state, kind: 1, id: 2 }), /STATE active in the state active/],
    [
      'quiesced while busy',
      Buffer.concat([frame(read(0)), frame({ type: state, kind: 2, id: 2 })]),
      /quiesced while requests have no reply/,
    ],
    ['an unknown state', frame({ type: state, kind: 7, id: 2 }), /STATE of the unknown kind 7/],
    [
      'a request as an event',
      frame({ type: event, kind: DiskKind.flush }),
      /EVENT of kind 3, which is a request in this class/,
    ],
    ['credit for nothing', frame({ type: credit, id: 1 }), /CREDIT for more than was sent/],
    ['a frame of no type', frame({ type: 200 }), /unknown type 200/],
  ];
  const { target, host, staging, device } = await serve();
  device.hold();
  host.add('a2', openNullSource({ capacityBytes: MIB }));
  const other = await TlsPeer.connect(m2, target);
  await other.activate('a2');
  const before = staging.regions;
  for (const [what, bytes, message] of cases) {
    const peer = await TlsPeer.connect(m2, target);
    await peer.activate('a1');
    peer.socket.write(bytes);
    const bye = await peer.bye();
    assert.equal(bye.code, 'protocol', what);
    assert.match(bye.message, message, what);
    await waitFor(`${what}: closed and free`, () => peer.closed && staging.regions === before);
  }
  other.send(read(0));
  assert.equal((await other.received(reply)).payload.length, 4096);
  other.socket.destroy();
});

const left = { queues: [{ fetched: 9, usedIndex: 7, heads: [3, 1], lastBatch: [] }] };

test('what is left behind is checked to its last member; a hostile one ends that session alone', async () => {
  const [queue] = left.queues;
  const many = Array.from({ length: 1024 }, (_, i) => i);
  const long = { left: { queues: Array.from({ length: 16 }, () => ({ ...queue, heads: many, lastBatch: many })) } };
  const quiesced = (json: object | undefined, more: Partial<Frame> = {}) =>
    json === undefined
      ? frame({ type: state, kind: 2, id: 2, ...more })
      : frame({ type: state, kind: 2, id: 2, ...more }, json);
  const cases: [string, string[], Uint8Array, RegExp][] = [
    ['no payload', ['hand-over'], quiesced(undefined), /STATE quiesced: the payload is not JSON/],
    ['no JSON', ['hand-over'], quiesced(undefined, { payload: new Uint8Array(9) }), /STATE quiesced: the payload is not JSON/],
    ['nothing that is left', ['hand-over'], quiesced({}), /STATE quiesced: left: /],
    ['another word', ['hand-over'], quiesced({ left: 'everything' }), /STATE quiesced: left/],
    ['an index of no ring', ['hand-over'], quiesced({ left: { queues: [{ ...queue, fetched: -1 }] } }), /STATE quiesced: left/],
    [
      'a head of no queue',
      ['hand-over'],
      quiesced({ left: { queues: [{ ...queue, heads: [1024] }] } }),
      /STATE quiesced: left/,
    ],
    ['a member that nobody knows', ['hand-over'], quiesced({ left: { ...left, more: 1 } }), /STATE quiesced: left/],
    ['queues of no disk', ['hand-over'], quiesced({ left: { queues: Array(17).fill(queue) } }), /STATE quiesced: left/],
    ['more than a frame has', ['hand-over'], quiesced(long), /STATE with \d+ bytes of payload, of at most 65536/],
    ['a payload of active', ['hand-over'], frame({ type: state, kind: 1, id: 2 }, { left }), /STATE with a payload/],
    [
      'a purpose without the feature',
      [],
      frame({ type: state, kind: 1, id: 2 }, { purpose: { fills: 2 } }),
      /STATE with a payload/,
    ],
    ['no purpose', ['swap'], frame({ type: state, kind: 1, id: 2 }, {}), /STATE active: purpose/],
    [
      'two purposes',
      ['swap'],
      frame({ type: state, kind: 1, id: 2 }, { purpose: { fills: 2, decides: 2 } }),
      /STATE active: purpose/,
    ],
    [
      'a purpose of nothing',
      ['swap'],
      frame({ type: state, kind: 1, id: 2 }, { purpose: { fills: 0 } }),
      /STATE active: purpose/,
    ],
    ['a payload without the feature', [], quiesced({ left }), /STATE with a payload, which goes with the features/],
    ['standby without the feature', [], quiesced(undefined), /STATE quiesced in the state standby/],
  ];
  const { target, host } = await serve();
  const record = new MemoryRecord();
  host.add('a3', openNullSource({ capacityBytes: MIB }), record);
  for (const [what, features, bytes, message] of cases) {
    const peer = await TlsPeer.connect(m2, target);
    await peer.hello('a3', features);
    peer.socket.write(bytes);
    const bye = await peer.bye();
    assert.equal(bye.code, 'protocol', what);
    assert.match(bye.message, message, what);
    assert.equal(record.value.handOver, undefined, what);
    peer.socket.destroy();
  }
  const peer = await TlsPeer.connect(m2, target);
  await peer.hello('a3', ['hand-over', 'unheard-of']);
  peer.socket.write(quiesced({ left, more: 1 }));
  assert.deepEqual(JSON.parse(Buffer.from((await peer.received(stated)).payload).toString()), { epoch: 0 });
  assert.deepEqual(record.value.handOver, left);
  peer.socket.destroy();
});

test('requests outside the state active are violations', async () => {
  const { target } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  await peer.hello('a1');
  peer.send(read(0));
  assert.match((await peer.bye()).message, /REQUEST in the state standby/);
});

test('what does not fit the profile is answered, its payload is not kept, and the session goes on', async () => {
  const { target } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  await peer.activate('a1');
  const payload = new Uint8Array(100);
  peer.send({ type: request, kind: DiskKind.write, id: 0, extent: 100, payload });
  peer.send({ type: request, kind: 99, id: 1, payload });
  peer.send(read(2, 4096, 16 * MIB));
  peer.send({ type: request, kind: DiskKind.read, id: 3, inLength: 512, extent: 1024, payload });
  peer.send(read(4));
  const replies = () => peer.collector.frames.filter(({ type }) => type === reply);
  await waitFor('five replies', () => replies().length === 5);
  const { ioError, unsupported, ok } = DiskStatus;
  assert.deepEqual(
    replies()
      .map(({ id, flags, payload: got }) => [id, flags, got.length])
      .sort(([a], [b]) => a - b),
    [
      [0, ioError, 0],
      [1, unsupported, 0],
      [2, ioError, 0],
      [3, ioError, 0],
      [4, ok, 4096],
    ],
  );
  peer.socket.destroy();
});

test('a peer that sends a byte at a time is served like any other', async () => {
  const { target } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  await peer.activate('a1');
  const payload = new Uint8Array(512).fill(3);
  const bytes = Buffer.concat([
    frame({ type: request, kind: DiskKind.write, id: 5, extent: 512, payload }),
    frame(read(6, 512)),
  ]);
  for (let i = 0; i < bytes.length; i++) {
    peer.socket.write(bytes.subarray(i, i + 1));
    if (i % 100 === 0) await pause(1);
  }
  await waitFor('two replies', () => peer.collector.frames.filter(({ type }) => type === reply).length === 2);
  peer.socket.destroy();
});

test('a peer that never reads costs its staging and one buffer, and its session ends cleanly', async () => {
  const { target, staging, bus } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  await peer.activate('a1');
  peer.socket.pause();
  const { arrayBuffers } = process.memoryUsage();
  // 4 MiB each: more than the kernel's socket buffers hold. Credit for the same ids never comes back.
  peer.send(read(0, 4 * MIB));
  peer.send(read(1, 4 * MIB));
  await pause(300);
  const grown = process.memoryUsage().arrayBuffers - arrayBuffers;
  // The staging of the test is on the heap, and here from activation on. What the kernel holds is not ours.
  assert.ok(grown < 8 * MIB, `${grown} bytes more`);
  assert.equal(bus.exporter.sessions.length, 1);
  peer.socket.destroy();
  await waitFor('the session is over', () => bus.exporter.sessions.length === 0 && staging.regions === 0);
});

test('PINGs that do not wait for PONG are bounded', async () => {
  const { target, log } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  await peer.activate('a1');
  const pings = Buffer.concat(Array.from({ length: 100 }, (_, id) => frame({ type: FrameType.ping, id })));
  peer.socket.write(pings);
  assert.match((await peer.bye()).message, /more than 64 PINGs without waiting for PONG/);
  await waitFor('it is logged', () => log.lines.some((line) => line.includes('more than 64 PINGs')));
});

test('a session that is cut while the device works: staging stays until the last I/O has finished', async () => {
  const { target, host, staging } = await serve();
  const nothing = openNullSource({ capacityBytes: MIB });
  const device = new HeldDevice(nothing.profile, 64, { lateMemory: true });
  const lease = host.add('late', { ...nothing, open: () => device });
  const peer = await TlsPeer.connect(m2, target);
  await peer.activate('late');
  device.hold();
  peer.send(read(0));
  await waitFor('the device has it', () => device.taken.length === 1);
  peer.socket.destroy();
  await waitFor('the device is told', () => device.closed);
  await pause(20);
  assert.equal(staging.regions, 1);
  assert.equal(lease.active, true);
  device.release();
  await waitFor('all is free', () => staging.regions === 0 && !lease.active);
});

test('a new session of the same host displaces the old one, which is told', async () => {
  const { target } = await serve();
  const first = await TlsPeer.connect(m2, target);
  await first.activate('a1');
  const second = await TlsPeer.connect(m2, target);
  await second.activate('a1');
  const answer = await second.received(stated);
  assert.equal(JSON.parse(Buffer.from(answer.payload).toString()).epoch, 2);
  const bye = await first.bye();
  assert.equal(bye.code, 'ended');
  assert.match(bye.message, /a newer session of the same host took the lease/);
});

test('an unknown attachment and a host that may not: BYE with the code, one line in the log', async () => {
  const { target, host, log } = await serve();
  const peer = await TlsPeer.connect(m2, target);
  peer.send(
    { type: FrameType.hello },
    {
      ...{
        magic: 'netbus',
        versions: [1, 1],
        features: [],
        purpose: 'session',
        attachment: 'nothing',
        state: 'standby',
        epoch: 0,
      },
    },
  );
  assert.deepEqual(await peer.bye(), { code: 'not_found', message: 'there is no attachment nothing' });
  host.open = async () => {
    throw new NetbusError('denied', 'host m2 may not use export disk1');
  };
  const second = await TlsPeer.connect(m2, target);
  second.send(
    { type: FrameType.hello },
    {
      ...{ magic: 'netbus', versions: [1, 1], features: [], purpose: 'session', attachment: 'a1', state: 'standby', epoch: 0 },
    },
  );
  assert.equal((await second.bye()).code, 'denied');
  assert.ok(log.lines.includes('warn: session refused: host m2 may not use export disk1'));
});

test('a peer that goes while its session is being opened leaves nothing behind', async () => {
  const { target, host, bus } = await serve();
  const open = host.open.bind(host);
  let closed = false;
  let go: () => void = () => {};
  const waiting = new Promise<void>((resolve) => (go = resolve));
  let isAsked = false;
  host.open = async (...call) => {
    isAsked = true;
    await waiting;
    const opened = await open(...call);
    const close = () => {
      closed = true;
    };
    return { ...opened, session: { ...opened.session, close } };
  };
  const peer = await TlsPeer.connect(m2, target);
  peer.send(
    { type: FrameType.hello },
    {
      ...{ magic: 'netbus', versions: [1, 1], features: [], purpose: 'session', attachment: 'a1', state: 'standby', epoch: 0 },
    },
  );
  await waitFor('the session is asked for', () => isAsked);
  peer.socket.destroy();
  await pause(20);
  go();
  await waitFor('the session is closed', () => closed && bus.exporter.sessions.length === 0);
});

test('the smallest credit is one message of the largest size', () => {
  assert.ok(CREDIT_BYTES_MIN >= 2 * 4 * MIB);
});

test('the lease is refused in words, and the session stays in standby', async () => {
  const { target, host } = await serve();
  const m3 = await authority.identity('m3');
  const holder = await TlsPeer.connect(m3, target);
  await holder.activate('a1');
  const peer = await TlsPeer.connect(m2, target);
  await peer.hello('a1');
  peer.send({ type: state, kind: 1, id: 9 });
  const answer = await peer.received(stated);
  assert.equal(answer.id, 9);
  assert.equal(JSON.parse(Buffer.from(answer.payload).toString()).error.code, 'in_use');
  holder.send({ type: state, kind: 2, id: 2 });
  await waitFor('given back', () => holder.collector.frames.filter(({ type }) => type === stated).length === 2);
  peer.send({ type: state, kind: 1, id: 10 });
  await waitFor('granted', () => peer.collector.frames.filter(({ type }) => type === stated).length === 2);
  assert.ok(host.depth > 0);
  for (const one of [peer, holder]) one.socket.destroy();
});
