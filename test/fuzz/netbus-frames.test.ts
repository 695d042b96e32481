/**
 * A hostile stream of bytes against the frame parser: frames that were changed, cut, repeated and mixed with noise, fed in
 * pieces. Whatever comes, the parser ends with a NetbusError or goes on, hands out no byte outside its limits, and says the same for any cut.
 * NETBUS_FUZZ_SECONDS sets how long (default 2), NETBUS_FUZZ_SEED which stream.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetbusError } from '../../src/device/errors.ts';
import { encodeHeader, FRAME_HEADER_BYTES, type FrameHeader, FrameType } from '../../src/protocols/netbus/frame.ts';
import { type FrameHandler, FrameParser } from '../../src/protocols/netbus/frame-parser.ts';
import { framePayloadBytesMax } from '../../src/protocols/netbus/limits.ts';
import { decodeMessage, helloSchema, statedSchema, welcomeSchema } from '../../src/protocols/netbus/messages.ts';
import { seededRandom } from '../support/random.ts';

const seconds = Number(process.env.NETBUS_FUZZ_SECONDS ?? 2);
const seed = Number(process.env.NETBUS_FUZZ_SEED ?? Date.now() % 2 ** 31);
const types = Object.values(FrameType);
const hello = Buffer.from('{"magic":"netbus","versions":[1,1],"features":[],"purpose":"control"}');

/** Checks the parser's promises, and keeps what happened as text. */
class Witness implements FrameHandler {
  trace = '';
  #open = false;
  #position = 0;

  begin(frame: FrameHeader): void {
    assert.equal(this.#open, false);
    assert.ok(frame.payloadLength <= framePayloadBytesMax(frame.type));
    assert.ok(Number.isSafeInteger(frame.argument) && Number.isSafeInteger(frame.extent));
    this.#open = true;
    this.#position = 0;
    this.trace += `[${frame.type} ${frame.id} ${frame.payloadLength}`;
  }

  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    assert.ok(this.#open && position === this.#position && length > 0 && offset + length <= bytes.length);
    this.#position += length;
    assert.ok(this.#position <= frame.payloadLength);
  }

  end(frame: FrameHeader, text: Uint8Array | undefined): void {
    assert.ok(this.#open);
    this.#open = false;
    if (text === undefined) assert.equal(this.#position, frame.payloadLength);
    else this.#read(text);
    this.trace += ']';
  }

  #read(text: Uint8Array): void {
    for (const schema of [helloSchema, welcomeSchema, statedSchema]) {
      try {
        decodeMessage<unknown>(schema, text, 'X');
      } catch (thrown) {
        assert.ok(thrown instanceof NetbusError);
      }
    }
  }
}

function run(stream: Buffer, pieces: () => number): string {
  const witness = new Witness();
  const parser = new FrameParser(witness);
  try {
    for (let offset = 0; offset < stream.length; ) {
      const end = Math.min(stream.length, offset + pieces());
      parser.feed(stream.subarray(offset, end));
      offset = end;
    }
  } catch (thrown) {
    if (!(thrown instanceof NetbusError) || thrown.code !== 'protocol') throw thrown;
    return `${witness.trace} ${thrown.message}`;
  }
  return witness.trace;
}

test(`frames, hostile (seed ${seed})`, () => {
  const random = seededRandom(seed);
  const end = performance.now() + seconds * 1000;
  let streams = 0;
  while (performance.now() < end || streams === 0) {
    const frames: Buffer[] = [];
    for (let i = random.below(6); i >= 0; i--) {
      const type = random.below(8) === 0 ? random.below(256) : types[random.below(types.length)];
      const limit = framePayloadBytesMax(type);
      const payload = limit === 0 ? Buffer.alloc(0) : random.below(3) === 0 ? hello : random.bytes(random.below(300));
      const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
      const length = random.below(20) === 0 ? random.below(2 ** 32) : payload.length;
      encodeHeader(new DataView(bytes.buffer), 0, length, type, 1, 0, random.below(9), 0, random.below(2 ** 31), 0);
      payload.copy(bytes, FRAME_HEADER_BYTES);
      frames.push(bytes);
    }
    const stream = Buffer.concat(frames);
    for (let i = random.below(4); i > 0; i--) stream[random.below(stream.length)] = random.below(256);
    const whole = run(stream, () => stream.length);
    assert.equal(
      run(stream, () => 1 + random.below(40)),
      whole,
    );
    streams++;
  }
});
