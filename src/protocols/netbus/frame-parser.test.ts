import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameCollector, frame } from '../../../test/support/frames.ts';
import type { NetbusError } from '../../device/errors.ts';
import { FRAME_HEADER_BYTES, FrameType } from './frame.ts';
import { FrameParser } from './frame-parser.ts';
import { DATA_PAYLOAD_BYTES_MAX, framePayloadBytesMax } from './limits.ts';

const types = Object.values(FrameType);
const anyFrame = fc
  .record({
    type: fc.constantFrom(...types),
    kind: fc.nat(255),
    flags: fc.nat(65535),
    id: fc.nat(0xffffffff),
    inLength: fc.nat(DATA_PAYLOAD_BYTES_MAX),
    argument: fc.maxSafeNat(),
    extent: fc.maxSafeNat(),
    payload: fc.uint8Array({ maxLength: 200 }),
  })
  .map((fields) => (framePayloadBytesMax(fields.type) === 0 ? { ...fields, payload: new Uint8Array() } : fields));

test('frames come out the same however the stream is cut', () => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }),
      (frames, cuts) => {
        const stream = Buffer.concat(frames.map((fields) => frame(fields)));
        const collector = new FrameCollector();
        for (let offset = 0, i = 0; offset < stream.length; i++) {
          const end = Math.min(offset + cuts[i % cuts.length], stream.length);
          collector.parser.feed(stream.subarray(offset, end));
          offset = end;
        }
        assert.deepEqual(
          collector.frames,
          frames.map((fields) => ({ ...fields, payload: Buffer.from(fields.payload) })),
        );
        assert.equal(collector.parser.atBoundary, true);
      },
    ),
  );
});

test('a violation is told in one line, before memory is reserved for the payload', () => {
  const tooLong = frame({ type: FrameType.request });
  tooLong.writeUInt32LE(DATA_PAYLOAD_BYTES_MAX + 1, 0);
  const tooLarge = frame({ type: FrameType.reply });
  tooLarge.writeBigUInt64LE(2n ** 53n, 16);
  const cases: [Buffer, RegExp][] = [
    [frame({ type: 99 }), /^a frame of the unknown type 99$/],
    [tooLong, /^REQUEST with 4194305 bytes of payload, of at most 4194304$/],
    [frame({ type: FrameType.ping, payload: new Uint8Array(1) }), /^PING with 1 bytes of payload, of at most 0$/],
    [tooLarge, /^REPLY with a field of 2\^53 or more$/],
  ];
  for (const [bytes, message] of cases) {
    const collector = new FrameCollector();
    assert.throws(
      () => collector.parser.feed(bytes),
      (error: NetbusError) => error.code === 'protocol' && message.test(error.message),
    );
    collector.parser.feed(frame({ type: FrameType.ping }));
    assert.equal(collector.frames.length, 0, 'nothing comes after a violation');
  }
});

test('a truncated stream is told apart from one that ended between frames', () => {
  const bytes = frame({ type: FrameType.request, payload: new Uint8Array(10) });
  for (let length = 0; length <= bytes.length; length++) {
    const { parser } = new FrameCollector();
    parser.feed(bytes.subarray(0, length));
    assert.equal(parser.atBoundary, length === 0 || length === bytes.length, `${length} bytes`);
  }
});

test('a handler that stops the parser hears nothing more, wherever it does so', () => {
  const stream = Buffer.concat([
    frame({ type: FrameType.request, payload: new Uint8Array(10) }),
    frame({ type: FrameType.ping }),
  ]);
  for (const place of ['begin', 'payload', 'end']) {
    const heard: string[] = [];
    const hear = (what: string) => {
      heard.push(what);
      if (what === place) parser.stop();
    };
    const parser = new FrameParser({ begin: () => hear('begin'), payload: () => hear('payload'), end: () => hear('end') });
    parser.feed(stream.subarray(0, FRAME_HEADER_BYTES + 4));
    parser.feed(stream.subarray(FRAME_HEADER_BYTES + 4));
    assert.equal(heard.indexOf(place), heard.length - 1);
  }
});

test('what a handler throws leaves feed and ends the parser', () => {
  let calls = 0;
  const parser = new FrameParser({
    begin() {
      calls++;
      throw new Error('refused');
    },
    payload() {},
    end() {},
  });
  assert.throws(() => parser.feed(frame({ type: FrameType.ping })), /refused/);
  parser.feed(frame({ type: FrameType.ping }));
  assert.equal(calls, 1);
});
