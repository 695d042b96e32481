/** Memory that outgoing frames are written into before the socket takes it. */

/**
 * Large enough that a write carries many replies, small enough that the peer decrypts the first part of a batch while the rest of it is
 * encrypted. Chosen among 32, 64, 144 and 256 KiB by few and noisy runs: docs/performance.md.
 */
export const SEND_BUFFER_BYTES = 64 * 1024;
/** Buffers that are kept for the next connection that has something to send. */
const FREE_BUFFERS_MAX = 16;

export interface SendBuffer {
  readonly bytes: Buffer;
  /** Over the same memory. */
  readonly view: DataView;
}

/** A connection has a buffer only while it sends, so that idle ones cost nothing. */
export class SendBufferPool {
  readonly #free: SendBuffer[] = [];

  take(): SendBuffer {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const memory = new ArrayBuffer(SEND_BUFFER_BYTES);
    return { bytes: Buffer.from(memory), view: new DataView(memory) };
  }

  give(buffer: SendBuffer): void {
    if (this.#free.length < FREE_BUFFERS_MAX) this.#free.push(buffer);
  }
}
