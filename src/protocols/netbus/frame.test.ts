import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeHeader, encodeHeader, FRAME_HEADER_BYTES, FrameHeader, FrameType, frameTypeName } from './frame.ts';

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const integer = fc.maxSafeNat();

test('a header comes back as it was written, at any place', () => {
  const fields = fc.tuple(u32, fc.nat(255), fc.nat(255), fc.nat(65535), u32, u32, integer, integer, fc.nat(9));
  fc.assert(
    fc.property(fields, ([payloadLength, type, kind, flags, id, inLength, argument, extent, offset]) => {
      const bytes = new Uint8Array(FRAME_HEADER_BYTES + 10);
      const view = new DataView(bytes.buffer);
      encodeHeader(view, offset, payloadLength, type, kind, flags, id, inLength, argument, extent);
      const header = new FrameHeader();
      assert.equal(decodeHeader(bytes, offset, header), true);
      assert.deepEqual({ ...header }, { payloadLength, type, kind, flags, id, inLength, argument, extent });
    }),
  );
});

test('the layout is that of the text', () => {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  encodeHeader(view, 0, 0x01020304, 34, 2, 0x0506, 0x0708090a, 0x0b0c0d0e, 0x1122334455667, 0x0fedcba987654);
  assert.equal(bytes.readUInt32LE(0), 0x01020304);
  assert.equal(bytes[4], 34);
  assert.equal(bytes[5], 2);
  assert.equal(bytes.readUInt16LE(6), 0x0506);
  assert.equal(bytes.readUInt32LE(8), 0x0708090a);
  assert.equal(bytes.readUInt32LE(12), 0x0b0c0d0e);
  assert.equal(bytes.readBigUInt64LE(16), 0x1122334455667n);
  assert.equal(bytes.readBigUInt64LE(24), 0x0fedcba987654n);
});

test('a number that a double cannot name exactly is told', () => {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  const header = new FrameHeader();
  bytes.writeBigUInt64LE(2n ** 53n - 1n, 16);
  assert.equal(decodeHeader(bytes, 0, header), true);
  assert.equal(header.argument, Number.MAX_SAFE_INTEGER);
  bytes.writeBigUInt64LE(2n ** 53n, 16);
  assert.equal(decodeHeader(bytes, 0, header), false);
  bytes.writeBigUInt64LE(0n, 16);
  bytes.writeBigUInt64LE(2n ** 64n - 1n, 24);
  assert.equal(decodeHeader(bytes, 0, header), false);
});

test('frame types have names for people', () => {
  assert.equal(frameTypeName(FrameType.request), 'REQUEST');
  assert.equal(frameTypeName(99), 'type 99');
});
