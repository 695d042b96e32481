import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { FrameCollector, frame } from '../../test/support/frames.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import type { ByteStream } from './byte-stream.ts';
import { type FrameSource, Outgoing } from './outgoing.ts';
import { makeSendBuffer, SEND_BUFFER_BYTES, type SendBuffer } from './send-buffer.ts';

/** A stream that takes one write, and the next one when it is told to. */
class SlowStream implements ByteStream {
  readonly collector = new FrameCollector();
  readonly sizes: number[] = [];
  writable = true;
  ended = false;
  outgoing: Outgoing | undefined;

  use(): void {}

  write(bytes: Uint8Array, length: number): void {
    assert.ok(this.writable && !this.ended);
    this.sizes.push(length);
    this.collector.parser.feed(bytes.slice(0, length));
    this.writable = false;
  }

  end(): void {
    this.ended = true;
  }

  destroy(): void {}

  /** Lets the write that is under way finish. */
  take(): void {
    this.writable = true;
    this.outgoing?.writable();
  }

  get busy(): boolean {
    return !this.writable;
  }
}

/** Frames of the given sizes, whatever buffer they have to fit in. */
class Frames implements FrameSource {
  #left: Buffer;
  #boundaries = new Set<number>([0]);

  constructor(sizes: number[]) {
    const frames = sizes.map((size, id) => frame({ type: FrameType.request, id, payload: new Uint8Array(size).fill(id) }));
    this.#left = Buffer.concat(frames);
    for (let left = this.#left.length, i = 0; i < frames.length; left -= frames[i++].length) this.#boundaries.add(left);
  }

  get waiting(): boolean {
    return this.#left.length > 0;
  }

  get midFrame(): boolean {
    return !this.#boundaries.has(this.#left.length);
  }

  fill(buffer: SendBuffer, offset: number): number {
    const length = Math.min(this.#left.length, SEND_BUFFER_BYTES - offset);
    this.#left.copy(buffer.bytes, offset, 0, length);
    this.#left = this.#left.subarray(length);
    return offset + length;
  }
}

function make() {
  const stream = new SlowStream();
  const outgoing = new Outgoing(stream, makeSendBuffer(), () => {});
  stream.outgoing = outgoing;
  return { stream, outgoing };
}

test('what becomes ready in one turn leaves in one write', async () => {
  const { stream, outgoing } = make();
  outgoing.source = new Frames([4096, 0, 100]);
  for (let i = 0; i < 3; i++) outgoing.send(FrameType.ping, 0, i, 0, new Uint8Array());
  outgoing.schedule();
  outgoing.schedule();
  await turn();
  assert.equal(stream.sizes.length, 1);
  const types = stream.collector.frames.map(({ type }) => type);
  const { ping, request } = FrameType;
  assert.deepEqual(types, [ping, ping, ping, request, request, request]);
});

test('one write is under way at a time; what waits comes from the source when it is done', async () => {
  const { stream, outgoing } = make();
  outgoing.source = new Frames([SEND_BUFFER_BYTES, SEND_BUFFER_BYTES, 10]);
  outgoing.schedule();
  await turn();
  for (let i = 0; i < 3; i++) outgoing.schedule();
  await turn();
  assert.deepEqual(stream.sizes, [SEND_BUFFER_BYTES]);
  while (stream.busy) stream.take();
  assert.equal(stream.collector.frames.length, 3);
  assert.deepEqual(stream.sizes, [SEND_BUFFER_BYTES, SEND_BUFFER_BYTES, 3 * 32 + 10]);
});

test('another frame never comes in the middle of a data frame', async () => {
  const { stream, outgoing } = make();
  outgoing.source = new Frames([3 * SEND_BUFFER_BYTES]);
  outgoing.flush();
  outgoing.send(FrameType.ping, 0, 1, 0, new Uint8Array());
  while (stream.busy) stream.take();
  assert.deepEqual(
    stream.collector.frames.map(({ type }) => type),
    [FrameType.request, FrameType.ping],
  );
});

test('a frame that is longer than the buffer goes in pieces, and the bytes that wait are counted', async () => {
  const { stream, outgoing } = make();
  const payload = Buffer.alloc(600_000, 7);
  outgoing.send(FrameType.call, 0, 1, 0, payload);
  outgoing.send(FrameType.call, 0, 2, 0, payload);
  assert.equal(outgoing.unsentBytes, 2 * (32 + 600_000));
  await turn();
  while (stream.busy) stream.take();
  assert.equal(outgoing.unsentBytes, 0);
  assert.deepEqual(
    stream.collector.frames.map(({ id, payload: got }) => [id, payload.equals(got)]),
    [
      [1, true],
      [2, true],
    ],
  );
});

test('finish sends what waits outside the data path, then the last frame, then the end', async () => {
  const { stream, outgoing } = make();
  outgoing.send(FrameType.stated, 0, 1, 0, Buffer.from('{}'));
  outgoing.finish(frame({ type: FrameType.bye }, { code: 'ended', message: '' }));
  while (stream.busy) stream.take();
  assert.deepEqual(
    stream.collector.frames.map(({ type }) => type),
    [FrameType.stated, FrameType.bye],
  );
  assert.equal(stream.ended, true);
});

test('finish within a data frame says nothing more', async () => {
  const { stream, outgoing } = make();
  outgoing.source = new Frames([3 * SEND_BUFFER_BYTES]);
  outgoing.flush();
  outgoing.finish(frame({ type: FrameType.bye }, { code: 'ended', message: '' }));
  while (stream.busy) stream.take();
  assert.deepEqual(stream.sizes, [SEND_BUFFER_BYTES]);
  assert.equal(stream.ended, true);
});

test('a stream that takes everything gets eight writes a turn, so that others have theirs', async () => {
  const { stream, outgoing } = make();
  Object.defineProperty(stream, 'writable', { get: () => true, set: () => {} });
  outgoing.source = new Frames([20 * SEND_BUFFER_BYTES - 32]);
  outgoing.flush();
  assert.equal(stream.sizes.length, 8);
  await turn();
  assert.equal(stream.sizes.length, 16);
  await turn();
  assert.equal(stream.sizes.length, 20);
});

test('nothing to send, nothing written', () => {
  const { stream, outgoing } = make();
  outgoing.flush();
  outgoing.source = new Frames([]);
  outgoing.flush();
  assert.deepEqual(stream.sizes, []);
});
