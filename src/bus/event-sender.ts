/** EVENTs on their way out: copied when they are taken, because they are lent only for that long, and bounded by the receiver's credit. */

import { NetbusError } from '../device/errors.ts';
import type { MessageTable } from '../device/message-table.ts';
import { gather } from '../device/segments.ts';
import { encodeHeader, FRAME_HEADER_BYTES, FrameType } from '../protocols/netbus/frame.ts';
import { EVENT_BYTES_MAX, EVENTS_MAX } from '../protocols/netbus/limits.ts';
import type { FrameSource } from './outgoing.ts';
import { SEND_BUFFER_BYTES, type SendBuffer } from './send-buffer.ts';

export class EventSender implements FrameSource {
  /** What the receiver still takes. */
  #messages = EVENTS_MAX;
  #bytes = EVENT_BYTES_MAX;
  /** Whole frames, oldest first; as many as the credit allows at most. */
  readonly #frames: (Uint8Array | undefined)[] = new Array(EVENTS_MAX).fill(undefined);
  #head = 0;
  #count = 0;
  /** Bytes of the oldest frame that are sent. */
  #sent = 0;

  get waiting(): boolean {
    return this.#count > 0;
  }

  get midFrame(): boolean {
    return this.#sent > 0;
  }

  /** Takes one message; false where the credit does not suffice. A message of more than EVENT_BYTES_MAX is a bug. */
  take(table: MessageTable, row: number): boolean {
    const length = table.outLength[row];
    if (length > EVENT_BYTES_MAX) throw new RangeError(`an event of ${length} bytes`);
    if (this.#messages === 0 || this.#bytes < length) return false;
    this.#messages--;
    this.#bytes -= length;
    const frame = new Uint8Array(FRAME_HEADER_BYTES + length);
    const { kind, flags, argument, extent } = table;
    const view = new DataView(frame.buffer);
    encodeHeader(view, 0, length, FrameType.event, kind[row], flags[row], 0, 0, argument[row], extent[row]);
    gather(table.segments(row), 0, frame, FRAME_HEADER_BYTES, length);
    this.#frames[(this.#head + this.#count++) % EVENTS_MAX] = frame;
    return true;
  }

  /** A CREDIT came. Throws `protocol` where it returns more than was taken. */
  returned(messages: number, bytes: number): void {
    this.#messages += messages;
    this.#bytes += bytes;
    if (this.#messages > EVENTS_MAX || this.#bytes > EVENT_BYTES_MAX) {
      throw new NetbusError('protocol', 'CREDIT for more than was sent');
    }
  }

  fill(buffer: SendBuffer, offset: number): number {
    while (this.#count > 0 && offset < SEND_BUFFER_BYTES) {
      const frame = this.#frames[this.#head]!;
      const length = Math.min(frame.length - this.#sent, SEND_BUFFER_BYTES - offset);
      buffer.bytes.set(frame.subarray(this.#sent, this.#sent + length), offset);
      offset += length;
      this.#sent += length;
      if (this.#sent < frame.length) break;
      this.#sent = 0;
      this.#frames[this.#head] = undefined;
      this.#head = (this.#head + 1) % EVENTS_MAX;
      this.#count--;
    }
    return offset;
  }
}
