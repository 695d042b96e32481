/**
 * Bytes to frames, incrementally: whatever pieces TCP and TLS cut the stream into, the handler sees the same. The payload of
 * REQUEST, REPLY and EVENT is handed on piece by piece as it arrives, so that it is copied once, to where it belongs;
 * frames with JSON are gathered within their limit.
 */
import { NetbusError } from '../../device/errors.ts';
import { decodeHeader, FRAME_HEADER_BYTES, FrameHeader, FrameType, frameTypeName } from './frame.ts';
import { framePayloadBytesMax } from './limits.ts';

/**
 * What a parser tells. The calls come in the order begin, payload (none or more), end. Each may throw a NetbusError
 * `protocol` (or any other), which ends the parser and leaves `feed`.
 */
export interface FrameHandler {
  /** A header whose lengths are within the limits of its type. Memory for the payload is reserved after this call only. */
  begin(frame: FrameHeader): void;
  /** Bytes [offset, offset + length) of `bytes` are the payload's from `position` on. They are lent for the call. */
  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void;
  /** The frame is complete. `text` is the payload of a frame with JSON, and undefined for any other. */
  end(frame: FrameHeader, text: Uint8Array | undefined): void;
}

type State = 'header' | 'payload' | 'text' | 'stopped';

export class FrameParser {
  readonly #handler: FrameHandler;
  readonly #frame = new FrameHeader();
  /** A header that came in pieces. */
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #state: State = 'header';
  #position = 0;
  #text: Uint8Array | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** True between frames: a stream that ends here was not truncated. */
  get atBoundary(): boolean {
    return this.#state === 'header' && this.#headerBytes === 0;
  }

  /** No call comes any more, not even for the rest of a chunk that is being fed. */
  stop(): void {
    this.#state = 'stopped';
    this.#text = undefined;
  }

  /** Takes the next bytes of the stream. Throws a NetbusError `protocol` at a violation and what the handler throws; then it is stopped. */
  feed(chunk: Uint8Array): void {
    try {
      this.#feed(chunk);
    } catch (thrown) {
      this.stop();
      throw thrown;
    }
  }

  #feed(chunk: Uint8Array): void {
    const frame = this.#frame;
    let offset = 0;
    while (offset < chunk.length) {
      switch (this.#state) {
        case 'header':
          if (this.#headerBytes === 0 && chunk.length - offset >= FRAME_HEADER_BYTES) {
            this.#begin(chunk, offset);
            offset += FRAME_HEADER_BYTES;
          } else {
            offset += this.#gatherHeader(chunk, offset);
          }
          break;
        case 'payload': {
          const length = Math.min(frame.payloadLength - this.#position, chunk.length - offset);
          const position = this.#position;
          this.#position += length;
          this.#handler.payload(frame, chunk, offset, length, position);
          offset += length;
          if (this.#position === frame.payloadLength) this.#end(undefined);
          break;
        }
        case 'text': {
          const length = Math.min(frame.payloadLength - this.#position, chunk.length - offset);
          this.#text!.set(chunk.subarray(offset, offset + length), this.#position);
          this.#position += length;
          offset += length;
          if (this.#position === frame.payloadLength) this.#end(this.#text);
          break;
        }
        case 'stopped':
          return;
      }
    }
  }

  #gatherHeader(chunk: Uint8Array, offset: number): number {
    const length = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - offset);
    this.#header.set(chunk.subarray(offset, offset + length), this.#headerBytes);
    this.#headerBytes += length;
    if (this.#headerBytes === FRAME_HEADER_BYTES) {
      this.#headerBytes = 0;
      this.#begin(this.#header, 0);
    }
    return length;
  }

  #begin(source: Uint8Array, offset: number): void {
    const frame = this.#frame;
    const exact = decodeHeader(source, offset, frame);
    const limit = framePayloadBytesMax(frame.type);
    if (limit < 0) throw new NetbusError('protocol', `a frame of the unknown type ${frame.type}`);
    if (frame.payloadLength > limit) {
      const name = frameTypeName(frame.type);
      throw new NetbusError('protocol', `${name} with ${frame.payloadLength} bytes of payload, of at most ${limit}`);
    }
    if (!exact) throw new NetbusError('protocol', `${frameTypeName(frame.type)} with a field of 2^53 or more`);
    this.#handler.begin(frame);
    if (this.#state === 'stopped') return;
    this.#position = 0;
    if (!carriesText(frame.type)) {
      if (frame.payloadLength === 0) this.#end(undefined);
      else this.#state = 'payload';
      return;
    }
    this.#text = new Uint8Array(frame.payloadLength);
    if (frame.payloadLength === 0) this.#end(this.#text);
    else this.#state = 'text';
  }

  #end(text: Uint8Array | undefined): void {
    // A handler may stop the parser from any call.
    if (this.#state === 'stopped') return;
    this.#state = 'header';
    this.#text = undefined;
    this.#handler.end(this.#frame, text);
  }
}

function carriesText(type: number): boolean {
  switch (type) {
    case FrameType.hello:
    case FrameType.welcome:
    case FrameType.bye:
    case FrameType.call:
    case FrameType.result:
    case FrameType.state:
    case FrameType.stated:
      return true;
    default:
      return false;
  }
}
