/**
 * What a connection sends. Data frames are not queued as bytes: when the stream can take more, their source is asked to write
 * what waits straight into the one send buffer, so a peer that does not read costs what the stream holds and no more, and everything
 * that became ready meanwhile leaves in one write.
 */
import { encodeHeader, FRAME_HEADER_BYTES } from '../protocols/netbus/frame.ts';
import type { ByteStream } from './byte-stream.ts';
import { SEND_BUFFER_BYTES, type SendBuffer } from './send-buffer.ts';

/** Frames outside the data path that wait to be written, in bytes. A peer that lets more pile up does not read. */
export const UNSENT_BYTES_MAX = 8 * 1024 * 1024;
/** After so many the event loop gets its turn: other connections wait, and so does what this one has received. */
const WRITES_PER_TURN_MAX = 8;

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

type State =
  | 'idle'
  /** The caller flushes. */
  | 'held'
  /** A flush will come by itself. */
  | 'scheduled'
  /** The stream takes nothing; it will say when. */
  | 'blocked'
  /** Only the frames that wait now are sent, and then the end. */
  | 'finishing'
  | 'closed';

export class Outgoing {
  /** Set once the connection carries data. */
  source: FrameSource | undefined;
  readonly #stream: ByteStream;
  readonly #buffer: SendBuffer;
  readonly #onSent: () => void;
  /** Whole frames, oldest first. */
  #frames: Uint8Array[] = [];
  #unsentBytes = 0;
  /** Bytes of the first frame that are written already. */
  #frameOffset = 0;
  #state: State = 'idle';

  /** `onSent` is told with each write, for the heartbeat. The buffer is used within calls only. */
  constructor(stream: ByteStream, buffer: SendBuffer, onSent: () => void) {
    this.#stream = stream;
    this.#buffer = buffer;
    this.#onSent = onSent;
  }

  /** Bytes of frames outside the data path that wait. */
  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** Queues one frame outside the data path. */
  send(type: number, kind: number, id: number, argument: number, payload: Uint8Array): void {
    if (this.#state === 'finishing' || this.#state === 'closed') return;
    this.#add(makeFrame(type, kind, id, argument, payload));
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

  /** Writes now what the stream takes. */
  flush(): void {
    if (this.#state === 'blocked' || this.#state === 'finishing' || this.#state === 'closed') return;
    this.#state = 'idle';
    for (let writes = 0; this.#frames.length > 0 || this.source?.waiting === true; writes++) {
      if (!this.#stream.writable) {
        this.#state = 'blocked';
        return;
      }
      if (writes === WRITES_PER_TURN_MAX) {
        this.#state = 'scheduled';
        setImmediate(this.#flushScheduled);
        return;
      }
      this.#write(this.#fill());
    }
  }

  /** The stream takes something again. */
  writable(): void {
    if (this.#state === 'blocked') {
      this.#state = 'idle';
      this.flush();
    } else if (this.#state === 'finishing') {
      this.#finishFrames();
    }
  }

  /** Sends the frames that wait, then `last`, then the stream's end. Data frames are left out: whoever closes wants no more of them. */
  finish(last: Uint8Array | undefined): void {
    if (this.#state === 'finishing' || this.#state === 'closed') return;
    if (this.source?.midFrame === true) this.#frames = [];
    else if (last !== undefined) this.#add(last);
    this.source = undefined;
    this.#state = 'finishing';
    this.#finishFrames();
  }

  /** Nothing is sent any more. */
  close(): void {
    this.#state = 'closed';
    this.source = undefined;
    this.#frames = [];
    this.#unsentBytes = 0;
  }

  #flushScheduled = (): void => {
    if (this.#state === 'scheduled') this.flush();
  };

  #finishFrames(): void {
    while (this.#frames.length > 0) {
      if (!this.#stream.writable) return;
      this.#write(this.#fillFrames(0));
    }
    this.close();
    this.#stream.end();
  }

  #write(length: number): void {
    this.#onSent();
    this.#stream.write(this.#buffer.bytes, length);
  }

  #add(frame: Uint8Array): void {
    this.#frames.push(frame);
    this.#unsentBytes += frame.length;
  }

  #fill(): number {
    const { source } = this;
    const buffer = this.#buffer;
    let end = 0;
    if (source?.midFrame === true) {
      end = source.fill(buffer, end);
      if (source.midFrame) return end;
    }
    end = this.#fillFrames(end);
    if (this.#frames.length === 0 && source !== undefined) end = source.fill(buffer, end);
    return end;
  }

  #fillFrames(offset: number): number {
    let done = 0;
    while (done < this.#frames.length) {
      const frame = this.#frames[done];
      const length = Math.min(frame.length - this.#frameOffset, SEND_BUFFER_BYTES - offset);
      this.#buffer.bytes.set(frame.subarray(this.#frameOffset, this.#frameOffset + length), offset);
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
}

/** One frame on its own. */
export function makeFrame(type: number, kind: number, id: number, argument: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  encodeHeader(new DataView(frame.buffer), 0, payload.length, type, kind, 0, id, 0, argument, 0);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}
