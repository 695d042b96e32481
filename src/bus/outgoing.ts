/**
 * What a connection sends. Data frames are not queued as bytes: when the socket can take more, their source is asked to write
 * what waits straight into the one send buffer, so a peer that does not read costs one buffer and no more, and everything
 * that became ready meanwhile leaves in one write.
 */
import type { Writable } from 'node:stream';
import { encodeHeader, FRAME_HEADER_BYTES } from '../protocols/netbus/frame.ts';
import { SEND_BUFFER_BYTES, type SendBuffer, type SendBufferPool } from './send-buffer.ts';

/** Frames outside the data path that wait to be written, in bytes. A peer that lets more pile up does not read. */
export const UNSENT_BYTES_MAX = 8 * 1024 * 1024;

/** Where data frames come from. */
export interface FrameSource {
  /**
   * Writes what waits into [offset, SEND_BUFFER_BYTES) and returns where it ended; the offset itself where nothing waits. May end in
   * the middle of a payload, and then goes on there next time.
   */
  fill(buffer: SendBuffer, offset: number): number;
  /** True where `fill` would write something. */
  readonly waiting: boolean;
  /** True where the last `fill` ended within a frame: no other frame may come now. */
  readonly midFrame: boolean;
}

export class Outgoing {
  /** Set once the connection carries data. */
  source: FrameSource | undefined;
  readonly #socket: Writable;
  readonly #pool: SendBufferPool;
  readonly #onSent: () => void;
  /** Whole frames, oldest first. */
  #frames: Uint8Array[] = [];
  #unsentBytes = 0;
  /** Bytes of the first frame that are written already. */
  #frameOffset = 0;
  #buffer: SendBuffer | undefined;
  #state: 'idle' | 'held' | 'scheduled' | 'writing' | 'closed' = 'idle';

  /** `onSent` is told with each write, for the heartbeat. */
  constructor(socket: Writable, pool: SendBufferPool, onSent: () => void) {
    this.#socket = socket;
    this.#pool = pool;
    this.#onSent = onSent;
  }

  /** Bytes of frames outside the data path that wait. */
  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** Queues one frame outside the data path. */
  send(type: number, kind: number, id: number, argument: number, payload: Uint8Array): void {
    if (this.#state === 'closed') return;
    const frame = makeFrame(type, kind, id, argument, payload);
    this.#frames.push(frame);
    this.#unsentBytes += frame.length;
    this.schedule();
  }

  /** Something waits: it goes out when what runs now is done, together with whatever comes until then. */
  schedule(): void {
    if (this.#state === 'idle') {
      this.#state = 'scheduled';
      queueMicrotask(this.#flushScheduled);
    }
  }

  /** The caller will flush itself: nothing needs to be scheduled until then. */
  hold(): void {
    if (this.#state === 'idle') this.#state = 'held';
  }

  /** Writes now, unless a write is under way, which then goes on with what waits. */
  flush(): void {
    if (this.#state === 'writing' || this.#state === 'closed') return;
    this.#state = 'idle';
    if (this.#frames.length === 0 && this.source?.waiting !== true) return;
    this.#buffer ??= this.#pool.take();
    const end = this.#fill(this.#buffer);
    this.#state = 'writing';
    this.#onSent();
    this.#socket.write(this.#buffer.bytes.subarray(0, end), this.#written);
  }

  /** Sends the frames that wait, then `last`, then the stream's end. Data frames are left out: whoever closes wants no more of them. */
  finish(last: Uint8Array | undefined): void {
    if (this.#state === 'closed') return;
    if (this.source?.midFrame !== true) {
      const frames = last === undefined ? this.#frames : [...this.#frames, last];
      const rest = Buffer.concat(frames).subarray(this.#frameOffset);
      if (rest.length > 0) this.#socket.write(rest);
    }
    this.close();
    this.#socket.end();
  }

  /** Nothing is taken from the source any more. */
  close(): void {
    // A write that is under way still uses the buffer; its callback gives it back.
    if (this.#state !== 'writing') this.#release();
    this.#state = 'closed';
    this.source = undefined;
    this.#frames = [];
    this.#unsentBytes = 0;
  }

  #flushScheduled = (): void => {
    if (this.#state === 'scheduled') this.flush();
  };

  #written = (): void => {
    if (this.#state === 'writing') {
      this.#state = 'idle';
      this.flush();
    }
    // Kept while there is more to send.
    if (!this.#writing) this.#release();
  };

  get #writing(): boolean {
    return this.#state === 'writing';
  }

  #fill(buffer: SendBuffer): number {
    const { source } = this;
    let end = 0;
    if (source?.midFrame === true) {
      end = source.fill(buffer, end);
      if (source.midFrame) return end;
    }
    end = this.#fillFrames(buffer, end);
    if (this.#frames.length === 0 && source !== undefined) end = source.fill(buffer, end);
    return end;
  }

  #fillFrames(buffer: SendBuffer, offset: number): number {
    let done = 0;
    while (done < this.#frames.length) {
      const frame = this.#frames[done];
      const length = Math.min(frame.length - this.#frameOffset, SEND_BUFFER_BYTES - offset);
      buffer.bytes.set(frame.subarray(this.#frameOffset, this.#frameOffset + length), offset);
      offset += length;
      this.#frameOffset += length;
      this.#unsentBytes -= length;
      if (this.#frameOffset < frame.length) break;
      this.#frameOffset = 0;
      done++;
    }
    if (done > 0) this.#frames.splice(0, done);
    return offset;
  }

  #release(): void {
    if (this.#buffer !== undefined) this.#pool.give(this.#buffer);
    this.#buffer = undefined;
  }
}

/** One frame on its own. */
export function makeFrame(type: number, kind: number, id: number, argument: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  encodeHeader(new DataView(frame.buffer), 0, payload.length, type, kind, 0, id, 0, argument, 0);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}
