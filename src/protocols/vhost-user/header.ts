import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from './numbers.ts';
import { malformed, PayloadReader, PayloadWriter } from './wire.ts';

const VERSION = 1;
const VERSION_MASK = 0b11;
const REPLY = 1 << 2;
const NEED_REPLY = 1 << 3;

/** The first 12 bytes of each message. */
export interface Header {
  readonly request: number;
  /** It answers a message of the same number. */
  readonly reply: boolean;
  /** The sender waits for an acknowledgement (only with REPLY_ACK). */
  readonly needReply: boolean;
  /** Bytes of payload that follow. */
  readonly size: number;
}

/** Throws a `protocol` error for a version other than 1 and a payload above PAYLOAD_BYTES_MAX. */
export function decodeHeader(bytes: Uint8Array): Header {
  const reader = new PayloadReader(bytes, 'a message header');
  const request = reader.u32();
  const flags = reader.u32();
  const size = reader.u32();
  reader.end();
  if ((flags & VERSION_MASK) !== VERSION)
    throw malformed(`message ${request} is of protocol version ${flags & VERSION_MASK}, not ${VERSION}`);
  if (size > PAYLOAD_BYTES_MAX)
    throw malformed(`message ${request} announces ${size} bytes of payload, the limit is ${PAYLOAD_BYTES_MAX}`);
  return { request, reply: (flags & REPLY) !== 0, needReply: (flags & NEED_REPLY) !== 0, size };
}

/** A writer for a whole message, with its header written. */
export function beginMessage(header: Header): PayloadWriter {
  const flags = VERSION | (header.reply ? REPLY : 0) | (header.needReply ? NEED_REPLY : 0);
  return new PayloadWriter(HEADER_BYTES + header.size).u32(header.request).u32(flags).u32(header.size);
}
