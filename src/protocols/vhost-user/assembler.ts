import { NetbusError } from '../../device/errors.ts';
import { decodeHeader, type Header } from './header.ts';
import { HEADER_BYTES, PAYLOAD_BYTES_MAX } from './numbers.ts';
import { malformed } from './wire.ts';

/** Most descriptors of one message: a memory table's, rounded up to what one control message is received with. */
const MESSAGE_FDS_MAX = 16;

/** A message that is complete but not yet looked at. */
export interface RawMessage {
  readonly header: Header;
  /** Valid until the assembler is fed again. */
  readonly payload: Uint8Array;
  /** Descriptors that came along; whoever takes the message owns them. */
  readonly fds: readonly number[];
}

/**
 * Puts messages together from a stream that comes in pieces. It asks for exactly what is missing of one message and never for a byte of the
 * next, so that descriptors stay with the message that they were sent with.
 *
 *     const count = receive(assembler.buffer, assembler.offset, assembler.missing)
 *     const message = assembler.advance(count, fds)
 */
export class MessageAssembler {
  readonly buffer = new Uint8Array(HEADER_BYTES + PAYLOAD_BYTES_MAX);
  #filled = 0;
  #header: Header | undefined;
  #fds: number[] = [];

  /** Where the next bytes go. */
  get offset(): number {
    return this.#filled;
  }

  /** Bytes to receive next; at least 1. */
  get missing(): number {
    return HEADER_BYTES + (this.#header?.size ?? 0) - this.#filled;
  }

  /** True where a message has begun and is not complete: the peer closed in the middle of it. */
  get begun(): boolean {
    return this.#filled > 0;
  }

  /**
   * Takes note of `count` bytes that were received into the buffer, with their descriptors. Returns the message that they
   * complete. Throws a `protocol` error for a bad header; the descriptors so far are then in `takeDescriptors`.
   */
  advance(count: number, fds: readonly number[]): RawMessage | undefined {
    if (!(count >= 0 && count <= this.missing)) throw new NetbusError('internal', `the assembler was fed ${count} bytes`);
    this.#filled += count;
    for (const fd of fds) this.#fds.push(fd);
    if (this.#fds.length > MESSAGE_FDS_MAX)
      throw malformed(`a message came with more than ${MESSAGE_FDS_MAX} file descriptors`);
    if (this.missing > 0) return undefined;
    this.#header ??= decodeHeader(this.buffer.subarray(0, HEADER_BYTES));
    if (this.missing > 0) return undefined;
    const message = {
      header: this.#header,
      payload: this.buffer.subarray(HEADER_BYTES, this.#filled),
      fds: this.takeDescriptors(),
    };
    this.#filled = 0;
    this.#header = undefined;
    return message;
  }

  /** Descriptors of a message that will not be completed, for closing. */
  takeDescriptors(): number[] {
    const fds = this.#fds;
    this.#fds = [];
    return fds;
  }
}
