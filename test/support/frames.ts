/** Frames for tests: made from names, and taken apart again. Slow and plain on purpose. */
import { encodeHeader, FRAME_HEADER_BYTES, type FrameHeader } from '../../src/protocols/netbus/frame.ts';
import { type FrameHandler, FrameParser } from '../../src/protocols/netbus/frame-parser.ts';

export interface Frame {
  type: number;
  kind?: number;
  flags?: number;
  id?: number;
  inLength?: number;
  argument?: number;
  extent?: number;
  payload?: Uint8Array;
}

/** The bytes of one frame. An object as payload is sent as JSON. */
export function frame(fields: Frame, json?: object): Buffer {
  const payload = json === undefined ? (fields.payload ?? new Uint8Array()) : Buffer.from(JSON.stringify(json));
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { type, kind = 0, flags = 0, id = 0, inLength = 0, argument = 0, extent = 0 } = fields;
  encodeHeader(view, 0, payload.length, type, kind, flags, id, inLength, argument, extent);
  bytes.set(payload, FRAME_HEADER_BYTES);
  return bytes;
}

/** Keeps every frame whole. */
export class FrameCollector implements FrameHandler {
  readonly frames: Required<Frame>[] = [];
  readonly parser = new FrameParser(this);
  #payload: Buffer[] = [];
  #position = 0;

  begin(): void {
    this.#payload = [];
    this.#position = 0;
  }

  payload(_frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    if (position !== this.#position) throw new Error(`a piece for ${position} after ${this.#position} bytes`);
    this.#payload.push(Buffer.from(bytes.subarray(offset, offset + length)));
    this.#position += length;
  }

  end(header: FrameHeader, text: Uint8Array | undefined): void {
    const { type, kind, flags, id, inLength, argument, extent } = header;
    const payload = text === undefined ? Buffer.concat(this.#payload) : Buffer.from(text);
    this.frames.push({ type, kind, flags, id, inLength, argument, extent, payload });
  }
}
