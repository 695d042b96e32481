import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NetbusError } from '../../device/errors.ts';
import {
  type BackendMessage,
  decodeBackendMessage,
  decodeFrontendMessage,
  decodeHeader,
  decodeReply,
  descriptorsExpected,
  encodeBackendMessage,
  encodeFrontendMessage,
  encodeReply,
  type FrontendMessage,
  HEADER_BYTES,
  MessageAssembler,
  type Reply,
  Request,
  requestTitle,
} from './index.ts';

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const place = fc.integer({ min: 0, max: 2 ** 52 });
const ring = fc.integer({ min: 0, max: 255 });
const region = record({
  guestAddress: place,
  size: fc.integer({ min: 1, max: 2 ** 51 }),
  userAddress: place,
  mmapOffset: place,
});
const inflight = record({ mmapSize: place, mmapOffset: place, queues: u16, queueSize: u16 });
const window = record({ flags: u32, data: fc.uint8Array({ maxLength: 256 }), offset: u16 }).map(({ flags, data, offset }) => ({
  offset: offset % (257 - data.length),
  flags,
  data,
}));
const addresses = record({ index: ring, flags: u32, descriptors: place, used: place, available: place, logAddress: place });

const frontendMessage: fc.Arbitrary<FrontendMessage> = fc.oneof(
  record({
    name: fc.constantFrom(
      'getFeatures',
      'setOwner',
      'resetOwner',
      'getProtocolFeatures',
      'getQueueNum',
      'getMaxMemSlots',
      'resetDevice',
      'getStatus',
      'checkDeviceState',
      'setLogFd',
      'setBackendReqFd',
    ),
  }),
  record({ name: fc.constantFrom('setFeatures', 'setProtocolFeatures'), features: u64 }),
  record({ name: fc.constant('setMemTable'), regions: fc.array(region, { maxLength: 8 }) }),
  record({ name: fc.constantFrom('addMemReg', 'remMemReg'), region }),
  record({ name: fc.constant('setLogBase'), logSize: u64, logOffset: u64 }),
  record({ name: fc.constant('setVringNum'), index: ring, size: fc.integer({ min: 0, max: 32768 }) }),
  record({ name: fc.constant('setVringBase'), index: ring, base: u16 }),
  record({ name: fc.constantFrom('getVringBase', 'vringKick'), index: ring }),
  record({ name: fc.constant('setVringEnable'), index: ring, enabled: fc.boolean() }),
  record({ name: fc.constant('setVringAddr'), addresses }),
  record({ name: fc.constantFrom('setVringKick', 'setVringCall', 'setVringErr'), index: ring, hasFd: fc.boolean() }),
  record({ name: fc.constantFrom('getConfig', 'setConfig'), window }),
  record({ name: fc.constantFrom('getInflightFd', 'setInflightFd'), inflight }),
  record({ name: fc.constant('setStatus'), status: u64 }),
  record({ name: fc.constant('setDeviceStateFd'), direction: u32, phase: u32 }),
  record({
    name: fc.constant('unsupported'),
    request: fc.integer({ min: 44, max: 0xffffffff }),
    payload: fc.uint8Array({ maxLength: 4096 }),
  }),
) as fc.Arbitrary<FrontendMessage>;

const reply: fc.Arbitrary<Reply> = fc.oneof(
  record({ name: fc.constant('getVringBase'), index: ring, base: u16 }),
  record({ name: fc.constant('getConfig'), window }),
  record({ name: fc.constant('getInflightFd'), inflight }),
  record({ name: fc.constant('u64'), request: fc.constantFrom(1, 2, 6, 15, 17, 36), value: u64 }),
  record({ name: fc.constant('empty'), request: u32 }),
) as fc.Arbitrary<Reply>;

function split(bytes: Uint8Array) {
  return { header: decodeHeader(bytes.subarray(0, HEADER_BYTES)), payload: bytes.subarray(HEADER_BYTES) };
}

/** Runs `decode`; anything that it throws must be the codec's own error. */
function decodesOrRefuses(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof NetbusError, String(error));
    assert.equal(error.code, 'protocol');
  }
}

test('every front-end message comes back as it went', () => {
  fc.assert(
    fc.property(frontendMessage, fc.boolean(), (message, needReply) => {
      const { header, payload } = split(encodeFrontendMessage(message, needReply));
      assert.equal(header.needReply, needReply);
      assert.deepEqual(decodeFrontendMessage(header, payload, descriptorsExpected(message)[0]), message);
    }),
  );
});

test('every reply comes back as it went', () => {
  fc.assert(
    fc.property(reply, (value) => {
      const { header, payload } = split(encodeReply(value));
      assert.deepEqual(decodeReply(header, payload), value);
    }),
  );
});

test('backend messages come back as they went', () => {
  const messages: BackendMessage[] = [
    { name: 'configChangeMsg' },
    { name: 'unsupported', request: 9, payload: new Uint8Array([1, 2]) },
  ];
  for (const message of messages) {
    const { header, payload } = split(encodeBackendMessage(message));
    assert.deepEqual(decodeBackendMessage(header, payload), message);
  }
});

test('arbitrary bytes are decoded or refused with a protocol error', () => {
  const known = fc.constantFrom(...Object.values(Request));
  fc.assert(
    fc.property(
      fc.oneof(known, u32),
      fc.uint8Array({ maxLength: 400 }),
      fc.integer({ min: 0, max: 16 }),
      (request, payload, fds) => {
        const header = { request, reply: false, needReply: false, size: payload.length };
        decodesOrRefuses(() => decodeFrontendMessage(header, payload, fds));
        decodesOrRefuses(() => decodeReply({ ...header, reply: true }, payload));
        decodesOrRefuses(() => decodeBackendMessage(header, payload));
      },
    ),
    { numRuns: 2000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 24 }), (bytes) => decodesOrRefuses(() => decodeHeader(bytes))));
});

test('the layouts are those of the specification', () => {
  const kick = encodeFrontendMessage({ name: 'setVringKick', index: 3, hasFd: false }, true);
  assert.deepEqual([...kick], [12, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0]);
  const base = encodeReply({ name: 'getVringBase', index: 1, base: 0x1234 });
  assert.deepEqual([...base], [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0x34, 0x12, 0, 0]);
  // QEMU refuses the reply without its padding.
  const inflight = { mmapSize: 4096, mmapOffset: 0, queues: 1, queueSize: 128 };
  assert.equal(encodeReply({ name: 'getInflightFd', inflight }).length, HEADER_BYTES + 24);
  assert.equal(requestTitle(Request.setMemTable), 'SET_MEM_TABLE');
});

test('limits: what is beyond them is refused and named', () => {
  const refused = (bytes: Uint8Array, fds: number, pattern: RegExp) => {
    const { header, payload } = split(bytes);
    assert.throws(() => decodeFrontendMessage(header, payload, fds), pattern);
  };
  const region = { guestAddress: 0, size: 4096, userAddress: 0, mmapOffset: 0 };
  refused(encodeFrontendMessage({ name: 'setMemTable', regions: new Array(9).fill(region) }), 9, /9 regions, the limit is 8/);
  refused(encodeFrontendMessage({ name: 'setMemTable', regions: [region] }), 0, /0 file descriptors, expected 1/);
  refused(encodeFrontendMessage({ name: 'addMemReg', region: { ...region, size: 0 } }), 1, /empty region/);
  refused(
    encodeFrontendMessage({ name: 'addMemReg', region: { ...region, guestAddress: 2 ** 53 - 1 } }),
    1,
    /ends above 2\^53/,
  );
  refused(encodeFrontendMessage({ name: 'setVringNum', index: 0, size: 65536 }), 0, /the value 65536/);
  refused(encodeFrontendMessage({ name: 'setVringBase', index: 256, base: 0 }), 0, /ring 256/);
  const window = { offset: 250, flags: 0, data: new Uint8Array(7) };
  refused(encodeFrontendMessage({ name: 'getConfig', window }), 0, /bytes 250 to 257/);
  const oversized = encodeFrontendMessage({ name: 'unsupported', request: 99, payload: new Uint8Array(4097) });
  assert.throws(() => split(oversized), /4097 bytes/);
});

test('the assembler puts messages together however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(frontendMessage, { maxLength: 5 }),
      fc.infiniteStream(fc.integer({ min: 1, max: 64 })),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map((message) => encodeFrontendMessage(message)));
        const assembler = new MessageAssembler();
        const received: FrontendMessage[] = [];
        for (let at = 0; at < stream.length; ) {
          const count = Math.min(assembler.missing, cuts.next().value!, stream.length - at);
          assembler.buffer.set(stream.subarray(at, at + count), assembler.offset);
          const raw = assembler.advance(count, []);
          at += count;
          if (raw)
            received.push(decodeFrontendMessage(raw.header, raw.payload, descriptorsExpected(messages[received.length])[0]));
        }
        assert.equal(assembler.begun, false);
        assert.deepEqual(received, messages);
      },
    ),
  );
});

test('the assembler keeps descriptors with their message, and gives those of a broken one back', () => {
  const assembler = new MessageAssembler();
  const bytes = encodeFrontendMessage({ name: 'setVringCall', index: 0, hasFd: true });
  assembler.buffer.set(bytes.subarray(0, 12));
  assert.equal(assembler.advance(12, [7]), undefined);
  assembler.buffer.set(bytes.subarray(12), assembler.offset);
  assert.deepEqual(assembler.advance(8, [])?.fds, [7]);

  assembler.buffer.fill(0xff, 0, 12);
  assert.throws(() => assembler.advance(12, [8]), /protocol version 3/);
  assert.deepEqual(assembler.takeDescriptors(), [8]);
});
