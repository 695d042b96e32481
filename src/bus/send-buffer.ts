/** Memory that outgoing frames are written into on their way to the stream. */
import { STREAM_WRITE_BYTES_MAX } from './byte-stream.ts';

export const SEND_BUFFER_BYTES = STREAM_WRITE_BYTES_MAX;

export interface SendBuffer {
  readonly bytes: Buffer;
  /** Over the same memory. */
  readonly view: DataView;
}

/** A stream takes what is written at once, so all connections of an endpoint share one buffer. */
export function makeSendBuffer(): SendBuffer {
  const memory = new ArrayBuffer(SEND_BUFFER_BYTES);
  return { bytes: Buffer.from(memory), view: new DataView(memory) };
}
