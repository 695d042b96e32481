import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { FrameCollector, frame } from '../../test/support/frames.ts';
import { FrameType } from '../protocols/netbus/frame.ts';
import { type FrameSource, Outgoing } from './outgoing.ts';
import { SEND_BUFFER_BYTES, type SendBuffer, SendBufferPool } from './send-buffer.ts';

/** A socket that takes a write when it is told to. */
class SlowSocket extends Writable {
  readonly collector = new FrameCollector();
  readonly sizes: number[] = [];
  ended = false;
  #done: (() => void) | undefined;

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    this.sizes.push(chunk.length);
    this.collector.parser.feed(Uint8Array.from(chunk));
    this.#done = done;
  }

  override _final(done: () => void): void {
    this.ended = true;
    done();
  }

  /** Lets the write that is under way finish. */
  async take(): Promise<void> {
    const done = this.#done;
    this.#done = undefined;
    done?.();
    await turn();
    await turn();
  }

  get busy(): boolean {
    return this.#done !== undefined;
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
  const socket = new SlowSocket();
  const pool = new SendBufferPool();
  const outgoing = new Outgoing(socket, pool, () => {});
  return { socket, pool, outgoing };
}

test('what becomes ready in one turn leaves in one write', async () => {
  const { socket, outgoing } = make();
  outgoing.source = new Frames([4096, 0, 100]);
  for (let i = 0; i < 3; i++) outgoing.send(FrameType.ping, 0, i, 0, new Uint8Array());
  outgoing.schedule();
  outgoing.schedule();
  await turn();
  assert.equal(socket.sizes.length, 1);
  const types = socket.collector.frames.map(({ type }) => type);
  const { ping, request } = FrameType;
  assert.deepEqual(types, [ping, ping, ping, request, request, request]);
});

test('one write is under way at a time; what waits comes from the source when it is done', async () => {
  const { socket, outgoing } = make();
  outgoing.source = new Frames([SEND_BUFFER_BYTES, SEND_BUFFER_BYTES, 10]);
  outgoing.schedule();
  await turn();
  for (let i = 0; i < 3; i++) outgoing.schedule();
  await turn();
  assert.deepEqual(socket.sizes, [SEND_BUFFER_BYTES]);
  while (socket.busy) await socket.take();
  assert.equal(socket.collector.frames.length, 3);
  assert.deepEqual(socket.sizes, [SEND_BUFFER_BYTES, SEND_BUFFER_BYTES, 3 * 32 + 10]);
});

test('another frame never comes in the middle of a data frame', async () => {
  const { socket, outgoing } = make();
  outgoing.source = new Frames([3 * SEND_BUFFER_BYTES]);
  outgoing.flush();
  outgoing.send(FrameType.ping, 0, 1, 0, new Uint8Array());
  while (socket.busy) await socket.take();
  assert.deepEqual(
    socket.collector.frames.map(({ type }) => type),
    [FrameType.request, FrameType.ping],
  );
});

test('a frame that is longer than the buffer goes in pieces, and the bytes that wait are counted', async () => {
  const { socket, outgoing } = make();
  const payload = Buffer.alloc(600_000, 7);
  outgoing.send(FrameType.call, 0, 1, 0, payload);
  outgoing.send(FrameType.call, 0, 2, 0, payload);
  assert.equal(outgoing.unsentBytes, 2 * (32 + 600_000));
  await turn();
  while (socket.busy) await socket.take();
  assert.equal(outgoing.unsentBytes, 0);
  assert.deepEqual(
    socket.collector.frames.map(({ id, payload: got }) => [id, payload.equals(got)]),
    [
      [1, true],
      [2, true],
    ],
  );
});

test('finish sends what waits outside the data path, then the last frame, then the end', async () => {
  const { socket, outgoing } = make();
  outgoing.send(FrameType.stated, 0, 1, 0, Buffer.from('{}'));
  outgoing.finish(frame({ type: FrameType.bye }, { code: 'ended', message: '' }));
  while (socket.busy) await socket.take();
  assert.deepEqual(
    socket.collector.frames.map(({ type }) => type),
    [FrameType.stated, FrameType.bye],
  );
  assert.equal(socket.ended, true);
});

test('finish within a data frame says nothing more', async () => {
  const { socket, outgoing } = make();
  outgoing.source = new Frames([3 * SEND_BUFFER_BYTES]);
  outgoing.flush();
  outgoing.finish(frame({ type: FrameType.bye }, { code: 'ended', message: '' }));
  while (socket.busy) await socket.take();
  assert.deepEqual(socket.sizes, [SEND_BUFFER_BYTES]);
  assert.equal(socket.ended, true);
});

test('a buffer is held only while there is something to send', async () => {
  const { socket, pool, outgoing } = make();
  const only = pool.take();
  pool.give(only);
  outgoing.send(FrameType.ping, 0, 1, 0, new Uint8Array());
  outgoing.flush();
  assert.notEqual(pool.take(), only, 'it is in use while the write is under way');
  await socket.take();
  assert.equal(pool.take(), only, 'it was given back');
  outgoing.flush();
  assert.equal(socket.sizes.length, 1, 'nothing to send, nothing written');
});
