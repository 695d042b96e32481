/**
 * The device's side of the data path: requests of a peer, checked and staged, are pushed to the granted device; its replies go back.
 * It is the device's Guest, and a row's number is the request's id.
 */
import { Batch, type Replies } from '../device/batch.ts';
import { ChunkPool } from '../device/chunk-pool.ts';
import type { Device, Guest } from '../device/device.ts';
import { NetbusError } from '../device/errors.ts';
import { MessageTable } from '../device/message-table.ts';
import type { Profile } from '../device/profile.ts';
import { encodeHeader, FRAME_HEADER_BYTES, type FrameHeader, FrameType } from '../protocols/netbus/frame.ts';
import { DATA_PAYLOAD_BYTES_MAX } from '../protocols/netbus/limits.ts';
import { EventReceiver } from './event-receiver.ts';
import { EventSender } from './event-sender.ts';
import { IdQueue } from './id-queue.ts';
import { type MessageRules, messageRules } from './message-rules.ts';
import type { FrameSource } from './outgoing.ts';
import { copyIn, copyOut } from './payload-copy.ts';
import { SEND_BUFFER_BYTES, type SendBuffer } from './send-buffer.ts';
import { type AllocateStaging, STAGING_CHUNK_BYTES, type StagingRegion, stagingBytes } from './staging.ts';

/** The session that the requests come by. */
export interface RequestPortLink {
  schedule(): void;
  credit(messages: number, bytes: number): void;
  /** The device is gone. */
  deviceLost(cause: NetbusError): void;
}

/** Where a request is. */
const Id = { free: 0, receiving: 1, held: 2, answered: 3 } as const;

export class RequestPort implements Guest, FrameSource {
  readonly requests: MessageTable;
  readonly #link: RequestPortLink;
  readonly #device: Device;
  readonly #profile: () => Profile;
  readonly #rules: MessageRules;
  readonly #creditBytes: number;
  readonly #staging: StagingRegion;
  readonly #pool: ChunkPool;
  #closing: Promise<void> | undefined;
  /** Per request id. */
  readonly #idStates: Uint8Array;
  readonly #statuses: Uint8Array;
  readonly #lengths: Float64Array;
  #held = 0;
  #heldBytes = 0;
  /** The request that is being received was refused: its payload is not kept. */
  #refused = false;
  /** Received, and not yet taken by the device. */
  readonly #batch: Batch;
  readonly #answers: IdQueue;
  /** The request whose reply is being sent, or -1, and how much of its payload is. */
  #sending = -1;
  #sentBytes = 0;
  readonly #eventSender = new EventSender();
  readonly #eventReceiver: EventReceiver;
  #deviceWaits = false;

  constructor(options: {
    link: RequestPortLink;
    device: Device;
    profile: () => Profile;
    depth: number;
    creditBytes: number;
    allocate: AllocateStaging;
  }) {
    const { depth, creditBytes } = options;
    this.#link = options.link;
    this.#device = options.device;
    this.#profile = options.profile;
    this.#rules = messageRules(options.profile());
    this.#creditBytes = creditBytes;
    this.requests = new MessageTable(depth);
    this.#staging = options.allocate(stagingBytes(depth, creditBytes));
    this.#pool = new ChunkPool(this.#staging, STAGING_CHUNK_BYTES);
    this.#idStates = new Uint8Array(depth);
    this.#statuses = new Uint8Array(depth);
    this.#lengths = new Float64Array(depth);
    this.#batch = new Batch(this.requests);
    this.#answers = new IdQueue(depth);
    this.#eventReceiver = new EventReceiver(options.allocate);
    this.#device.start(this);
  }

  /** Every request has its reply, and all of them are in the socket's hands. */
  get idle(): boolean {
    return this.#held === 0;
  }

  /** Requests that were received, at least in part, and have no reply yet. */
  get inFlight(): number {
    return this.#held;
  }

  /** Ends it at any time, also twice. Resolves when the device's last I/O has finished and the staging is free. */
  close(): Promise<void> {
    this.#closing ??= this.#device.close().then(() => {
      this.#staging.release();
      this.#eventReceiver.release();
    });
    return this.#closing;
  }

  // --- from the connection -------------------------------------------------------------------------------------------------

  /** A REQUEST, EVENT or CREDIT. Throws `protocol` where it breaks the text; what only does not fit the profile is answered. */
  begin(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.request:
        this.#beginRequest(frame);
        break;
      case FrameType.event:
        if (this.#rules.hasReply(frame.kind)) {
          throw new NetbusError('protocol', `EVENT of kind ${frame.kind}, which is a request in this class`);
        }
        this.#eventReceiver.begin(frame);
        break;
    }
  }

  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    if (frame.type !== FrameType.request) this.#eventReceiver.payload(bytes, offset, length, position);
    else if (!this.#refused) copyIn(this.requests.segments(frame.id), position, bytes, offset, length);
  }

  end(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.request:
        if (this.#refused) {
          this.#answer(frame.id, this.#statuses[frame.id], 0);
          this.#link.schedule();
        } else {
          this.#idStates[frame.id] = Id.held;
          this.#batch.add(frame.id);
        }
        break;
      case FrameType.event:
        this.#eventReceiver.end();
        break;
      case FrameType.credit:
        this.#eventSender.returned(frame.id, frame.argument);
        break;
    }
  }

  /** All that arrived together has been read: hands it on. */
  arrived(): void {
    if (this.#closing !== undefined) return;
    this.#submit();
    this.#eventReceiver.deliver(
      (events) => this.#device.push(events),
      (messages, bytes) => this.#link.credit(messages, bytes),
    );
    if (this.#deviceWaits) {
      this.#deviceWaits = false;
      this.#device.ready();
    }
  }

  // --- Guest -----------------------------------------------------------------------------------------------------------------

  reply(replies: Replies): void {
    if (this.#closing !== undefined) return;
    for (let i = 0; i < replies.count; i++) this.#answer(replies.rows[i], replies.statuses[i], replies.lengths[i]);
    this.#link.schedule();
  }

  push(events: Batch): number {
    if (this.#closing !== undefined) return events.count;
    let count = 0;
    while (count < events.count && this.#eventSender.take(events.table, events.rows[count])) count++;
    if (count < events.count) this.#deviceWaits = true;
    if (count > 0) this.#link.schedule();
    return count;
  }

  ready(): void {
    this.arrived();
  }

  lost(cause: NetbusError): void {
    if (this.#closing === undefined) this.#link.deviceLost(cause);
  }

  // --- FrameSource -----------------------------------------------------------------------------------------------------------

  get waiting(): boolean {
    return this.#answers.count > 0 || this.#sending >= 0 || this.#eventSender.waiting;
  }

  get midFrame(): boolean {
    return this.#sending >= 0 || this.#eventSender.midFrame;
  }

  fill(buffer: SendBuffer, offset: number): number {
    if (this.#eventSender.midFrame) offset = this.#eventSender.fill(buffer, offset);
    for (;;) {
      if (this.#sending < 0) {
        if (this.#answers.count === 0) return this.#eventSender.fill(buffer, offset);
        if (SEND_BUFFER_BYTES - offset < FRAME_HEADER_BYTES) return offset;
        const id = this.#answers.take();
        encodeHeader(buffer.view, offset, this.#lengths[id], FrameType.reply, 0, this.#statuses[id], id, 0, 0, 0);
        offset += FRAME_HEADER_BYTES;
        this.#sending = id;
        this.#sentBytes = 0;
      }
      const id = this.#sending;
      const length = Math.min(this.#lengths[id] - this.#sentBytes, SEND_BUFFER_BYTES - offset);
      if (length > 0) {
        const skip = this.requests.outLength[id] + this.#sentBytes;
        copyOut(this.requests.segments(id), skip, buffer.bytes, offset, length);
      }
      offset += length;
      this.#sentBytes += length;
      if (this.#sentBytes < this.#lengths[id]) return offset;
      this.#sending = -1;
      this.#free(id);
    }
  }

  // --- inside ------------------------------------------------------------------------------------------------------------------

  #beginRequest(frame: FrameHeader): void {
    const { id, payloadLength, inLength } = frame;
    const table = this.requests;
    if (id >= table.capacity)
      throw new NetbusError('protocol', `REQUEST with the id ${id}, and the depth is ${table.capacity}`);
    if (this.#idStates[id] !== Id.free) throw new NetbusError('protocol', `REQUEST with the id ${id}, which is in use`);
    if (inLength > DATA_PAYLOAD_BYTES_MAX) throw new NetbusError('protocol', `REQUEST for ${inLength} bytes of reply`);
    if (this.#heldBytes + payloadLength + inLength > this.#creditBytes) {
      throw new NetbusError('protocol', `REQUEST beyond the credit of ${this.#creditBytes} bytes`);
    }
    table.kind[id] = frame.kind;
    table.flags[id] = frame.flags;
    table.argument[id] = frame.argument;
    table.extent[id] = frame.extent;
    table.outLength[id] = payloadLength;
    table.inLength[id] = inLength;
    this.#held++;
    this.#heldBytes += payloadLength + inLength;
    this.#idStates[id] = Id.receiving;
    this.#statuses[id] = this.#rules.check(table, id, this.#profile());
    this.#refused = this.#statuses[id] !== 0;
    if (!this.#refused) this.#stage(id, payloadLength, inLength);
  }

  #stage(id: number, out: number, room: number): void {
    const segments = this.requests.segments(id);
    if (out > 0 && !this.#pool.take(segments, out)) throw new Error('staging is smaller than the credit');
    if (room > 0 && !this.#pool.take(segments, room)) throw new Error('staging is smaller than the credit');
  }

  #submit(): void {
    if (this.#batch.count > 0) this.#batch.drop(this.#device.push(this.#batch));
  }

  #answer(id: number, status: number, length: number): void {
    this.#idStates[id] = Id.answered;
    this.#statuses[id] = status;
    this.#lengths[id] = length;
    this.#answers.add(id);
  }

  #free(id: number): void {
    const table = this.requests;
    this.#pool.give(table.segments(id));
    this.#idStates[id] = Id.free;
    this.#held--;
    this.#heldBytes -= table.outLength[id] + table.inLength[id];
  }
}
