/**
 * The VM's side of a granted session: a Device whose requests travel. A request's payload is copied once, from where the guest has
 * it into the send buffer; a reply's once, from what TLS gave to where the guest wants it.
 */
import { type Batch, Replies } from '../device/batch.ts';
import type { Device, Guest, Quiesced } from '../device/device.ts';
import { NetbusError } from '../device/errors.ts';
import { FreeRows, type MessageTable } from '../device/message-table.ts';
import type { Profile } from '../device/profile.ts';
import type { BusyPoll } from '../lib/busy-poll.ts';
import { encodeHeader, FRAME_HEADER_BYTES, type FrameHeader, FrameType } from '../protocols/netbus/frame.ts';
import { DATA_PAYLOAD_BYTES_MAX } from '../protocols/netbus/limits.ts';
import { EventReceiver } from './event-receiver.ts';
import { EventSender } from './event-sender.ts';
import { IdQueue } from './id-queue.ts';
import { type MessageRules, messageRules } from './message-rules.ts';
import type { FrameSource } from './outgoing.ts';
import { copyIn, copyOut } from './payload-copy.ts';
import { SEND_BUFFER_BYTES, type SendBuffer } from './send-buffer.ts';
import type { AllocateStaging } from './staging.ts';

/** The session that the device travels by. */
export interface RemoteDeviceLink {
  /** Something waits to be sent. */
  schedule(): void;
  credit(messages: number, bytes: number): void;
  /** The device is closed with nothing on its way: the session goes on without it. */
  detach(device: RemoteDevice): void;
  /** Requests have no reply and never will: ends the session and its connection at once. */
  cut(cause: NetbusError): void;
}

type State =
  | 'open'
  | 'quiescing'
  /** Quiesced: takes nothing, has nothing. */
  | 'quiet'
  /** The connection is gone, or was cut. What has no reply stays known until `close`. */
  | 'lost'
  | 'closed';

/** Most requests on their way that are awaited awake. */
const BUSY_POLL_REQUESTS_MAX = 4;

/** Where a request id is. */
const Id = { free: 0, queued: 1, sent: 2, receiving: 3, answered: 4 } as const;

export class RemoteDevice implements Device, FrameSource {
  readonly profile: Profile;
  readonly depth: number;
  readonly #link: RemoteDeviceLink;
  readonly #rules: MessageRules;
  readonly #creditBytes: number;
  #state: State = 'open';
  #lostCause: NetbusError | undefined;
  #guest: Guest | undefined;
  #table: MessageTable | undefined;
  /** Per request id. Ids are this device's own: the guest's table may have more rows than the peer takes requests. */
  readonly #idStates: Uint8Array;
  readonly #rows: Uint16Array;
  /** When it was taken: 1, 2, 3 … */
  readonly #order: Float64Array;
  readonly #freeIds: FreeRows;
  readonly #sendQueue: IdQueue;
  /** The request whose payload is being sent, or -1, and how much of it is. */
  #sending = -1;
  #sentBytes = 0;
  /** Ids whose replies came in this turn, and the replies as the guest gets them. */
  readonly #answered: IdQueue;
  readonly #replies: Replies;
  #taken = 0;
  #held = 0;
  #heldBytes = 0;
  #guestWaits = false;
  #wakeQuiesce: (() => void) | undefined;
  readonly #replyPoll: BusyPoll;
  readonly #eventSender = new EventSender();
  readonly #eventReceiver: EventReceiver;

  constructor(options: {
    link: RemoteDeviceLink;
    profile: Profile;
    depth: number;
    creditBytes: number;
    allocate: AllocateStaging;
    /** For replies. */
    replyPoll: BusyPoll;
  }) {
    const { depth } = options;
    this.#replyPoll = options.replyPoll;
    this.#link = options.link;
    this.profile = options.profile;
    this.depth = depth;
    this.#creditBytes = options.creditBytes;
    this.#rules = messageRules(options.profile);
    this.#idStates = new Uint8Array(depth);
    this.#rows = new Uint16Array(depth);
    this.#order = new Float64Array(depth);
    this.#freeIds = new FreeRows(depth);
    this.#sendQueue = new IdQueue(depth);
    this.#answered = new IdQueue(depth);
    this.#replies = new Replies(depth);
    this.#eventReceiver = new EventReceiver(options.allocate);
  }

  // --- Device --------------------------------------------------------------------------------------------------------

  start(guest: Guest): void {
    this.#guest = guest;
    this.#table = guest.requests;
    // What came before there was anybody to hear it.
    queueMicrotask(() => {
      if (this.#state === 'lost') this.#guest?.lost(this.#lostCause!);
      else this.arrived();
    });
  }

  push(batch: Batch): number {
    if (this.#state !== 'open') return 0;
    const { table, rows } = batch;
    let count = 0;
    while (count < batch.count && this.#take(table, rows[count])) count++;
    if (count < batch.count) this.#guestWaits = true;
    if (count > 0) this.#link.schedule();
    return count;
  }

  ready(): void {
    // Not from inside the guest's call.
    queueMicrotask(() => this.arrived());
  }

  async quiesce(signal: AbortSignal): Promise<Quiesced> {
    if (this.#state === 'open') this.#state = 'quiescing';
    if (this.#state === 'quiescing' && this.#held > 0 && !signal.aborted) await this.#drained(signal);
    if (this.#held === 0 && this.#state === 'quiescing') {
      this.#state = 'quiet';
      return { outcome: 'clean' };
    }
    const unfinished = this.#unfinished();
    this.#cut('it was cut while requests had no reply');
    return { outcome: 'cut', unfinished };
  }

  close(): Promise<void> {
    if (this.#state !== 'closed') {
      if (this.#held > 0 || this.midFrame) this.#cut('its device was closed while requests had no reply');
      this.#state = 'closed';
      this.#guest = undefined;
      this.#wakeQuiesce?.();
      this.#eventReceiver.release();
      this.#link.detach(this);
    }
    return Promise.resolve();
  }

  // --- from the session ------------------------------------------------------------------------------------------------

  /** The connection is gone. */
  lost(cause: NetbusError): void {
    if (this.#state === 'lost' || this.#state === 'closed') return;
    this.#state = 'lost';
    this.#lostCause = cause;
    this.#wakeQuiesce?.();
    this.#guest?.lost(cause);
  }

  /** A REPLY, EVENT or CREDIT. Throws `protocol` where it does not fit. */
  begin(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.reply:
        this.#beginReply(frame);
        break;
      case FrameType.event:
        if (!this.#rules.deviceEventFits(frame.kind, frame.payloadLength)) {
          throw new NetbusError(
            'protocol',
            `EVENT of kind ${frame.kind} with ${frame.payloadLength} bytes is not for this class`,
          );
        }
        this.#eventReceiver.begin(frame);
        break;
    }
  }

  payload(frame: FrameHeader, bytes: Uint8Array, offset: number, length: number, position: number): void {
    if (frame.type === FrameType.reply) {
      const table = this.#table!;
      const row = this.#rows[frame.id];
      copyIn(table.segments(row), table.outLength[row] + position, bytes, offset, length);
    } else {
      this.#eventReceiver.payload(bytes, offset, length, position);
    }
  }

  end(frame: FrameHeader): void {
    switch (frame.type) {
      case FrameType.reply:
        this.#idStates[frame.id] = Id.answered;
        this.#answered.add(frame.id);
        this.#replies.add(this.#rows[frame.id], frame.flags, frame.payloadLength);
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
    if (this.#guest === undefined || this.#state === 'lost') return;
    if (this.#replies.count > 0) this.#deliverReplies();
    // The guest may have closed it just now.
    const guest = this.#guest;
    if (guest === undefined) return;
    this.#eventReceiver.deliver(
      (events) => guest.push(events),
      (messages, bytes) => this.#link.credit(messages, bytes),
    );
    if (this.#guestWaits && this.#state === 'open') {
      this.#guestWaits = false;
      guest.ready();
    }
  }

  // --- FrameSource -----------------------------------------------------------------------------------------------------

  get waiting(): boolean {
    return this.#sendQueue.count > 0 || this.#sending >= 0 || this.#eventSender.waiting;
  }

  get midFrame(): boolean {
    return this.#sending >= 0 || this.#eventSender.midFrame;
  }

  fill(buffer: SendBuffer, offset: number): number {
    if (this.#eventSender.midFrame) offset = this.#eventSender.fill(buffer, offset);
    for (;;) {
      if (this.#sending < 0) {
        if (this.#sendQueue.count === 0) return this.#eventSender.fill(buffer, offset);
        if (SEND_BUFFER_BYTES - offset < FRAME_HEADER_BYTES) return offset;
        this.#beginRequest(buffer, offset, this.#sendQueue.take());
        offset += FRAME_HEADER_BYTES;
      }
      const table = this.#table!;
      const id = this.#sending;
      const row = this.#rows[id];
      const length = Math.min(table.outLength[row] - this.#sentBytes, SEND_BUFFER_BYTES - offset);
      if (length > 0) copyOut(table.segments(row), this.#sentBytes, buffer.bytes, offset, length);
      offset += length;
      this.#sentBytes += length;
      if (this.#sentBytes < table.outLength[row]) return offset;
      this.#idStates[id] = Id.sent;
      this.#sending = -1;
      this.#awaitReply();
    }
  }

  // --- inside ------------------------------------------------------------------------------------------------------------

  #take(table: MessageTable, row: number): boolean {
    if (!this.#rules.hasReply(table.kind[row])) return this.#eventSender.take(table, row);
    const out = table.outLength[row];
    const room = table.inLength[row];
    if (out > DATA_PAYLOAD_BYTES_MAX || room > DATA_PAYLOAD_BYTES_MAX)
      throw new RangeError(`a request of ${out} + ${room} bytes`);
    if (this.#heldBytes + out + room > this.#creditBytes) return false;
    const id = this.#freeIds.take();
    if (id < 0) return false;
    this.#idStates[id] = Id.queued;
    this.#rows[id] = row;
    this.#order[id] = ++this.#taken;
    this.#held++;
    this.#heldBytes += out + room;
    this.#sendQueue.add(id);
    return true;
  }

  #beginRequest(buffer: SendBuffer, offset: number, id: number): void {
    const { kind, flags, argument, extent, outLength, inLength } = this.#table!;
    const row = this.#rows[id];
    const { request } = FrameType;
    encodeHeader(
      buffer.view,
      offset,
      outLength[row],
      request,
      kind[row],
      flags[row],
      id,
      inLength[row],
      argument[row],
      extent[row],
    );
    this.#sending = id;
    this.#sentBytes = 0;
  }

  #beginReply(frame: FrameHeader): void {
    const { id, flags, payloadLength } = frame;
    if (id >= this.depth || this.#idStates[id] !== Id.sent) {
      throw new NetbusError('protocol', `REPLY to ${id}, which no request waits for`);
    }
    const row = this.#rows[id];
    const table = this.#table!;
    if (payloadLength > table.inLength[row]) {
      throw new NetbusError('protocol', `REPLY with ${payloadLength} bytes to a request with room for ${table.inLength[row]}`);
    }
    if (flags > 255 || !this.#rules.replyFits(table, row, flags, payloadLength)) {
      throw new NetbusError('protocol', `REPLY with status ${flags} and ${payloadLength} bytes does not fit the request`);
    }
    this.#idStates[id] = Id.receiving;
  }

  #deliverReplies(): void {
    const table = this.#table!;
    this.#replyPoll.end();
    while (this.#answered.count > 0) {
      const id = this.#answered.take();
      const row = this.#rows[id];
      this.#idStates[id] = Id.free;
      this.#freeIds.give(id);
      this.#held--;
      this.#heldBytes -= table.outLength[row] + table.inLength[row];
    }
    this.#guest!.reply(this.#replies);
    this.#replies.clear();
    this.#awaitReply();
    if (this.#held === 0) this.#wakeQuiesce?.();
  }

  /** With many on their way there is enough to do, and others want the processor. */
  #awaitReply(): void {
    if (this.#held > 0 && this.#held <= BUSY_POLL_REQUESTS_MAX) this.#replyPoll.begin();
  }

  /** Until nothing is held, the bound, or the end. */
  #drained(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        signal.removeEventListener('abort', onAbort);
        this.#wakeQuiesce = undefined;
        resolve();
      };
      const onAbort = () => {
        // The connection goes with the signal, not a moment later: nothing may reach guest memory from here on.
        this.#cut('it was cut while requests had no reply');
        wake();
      };
      this.#wakeQuiesce = wake;
      signal.addEventListener('abort', onAbort);
    });
  }

  #cut(why: string): void {
    if (this.#state === 'lost' || this.#state === 'closed') return;
    this.#state = 'lost';
    this.#lostCause = new NetbusError('ended', `the session was ended: ${why}`);
    this.#link.cut(this.#lostCause);
  }

  #unfinished(): number[] {
    const ids: number[] = [];
    for (let id = 0; id < this.depth; id++) if (this.#idStates[id] !== Id.free) ids.push(id);
    return ids.sort((a, b) => this.#order[a] - this.#order[b]).map((id) => this.#rows[id]);
  }
}
