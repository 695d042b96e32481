/** The events of a QMP connection for one reader, in order, from the moment that it asked for them. */
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { QmpEvent } from '../protocols/qmp/message.ts';
import { type Bounds, bounded } from './bounded.ts';

/** Events that the reader has not taken. Beyond it the stream ends with `limit`: a gap in it would be worse. */
export const EVENTS_MAX = 1024;

export interface QmpEventsOptions {
  readonly clock: Clock;
  /** The reader has left, or the stream has ended. */
  readonly onClose: () => void;
}

export class QmpEvents implements AsyncIterable<QmpEvent> {
  readonly #options: QmpEventsOptions;
  #queue: QmpEvent[] = [];
  /** Who waits for the next event. */
  #waiting: { resolve: (event: QmpEvent) => void; reject: (error: NetbusError) => void } | undefined;
  #end: NetbusError | undefined;

  constructor(options: QmpEventsOptions) {
    this.#options = options;
  }

  /** The next event. One call at a time. Rejects with `timeout` or `ended` at its bounds, and with the reason where the stream has ended. */
  async next(bounds: Bounds): Promise<QmpEvent> {
    if (this.#waiting !== undefined) throw new NetbusError('internal', 'an event stream has one reader');
    const event = this.#queue.shift();
    if (event !== undefined) return event;
    if (this.#end !== undefined) throw this.#end;
    const work = new Promise<QmpEvent>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    try {
      return await bounded(this.#options.clock, work, 'an event of QEMU', bounds);
    } finally {
      this.#waiting = undefined;
    }
  }

  /** The next event that `wanted` says yes to; those before it are dropped. The bound is for all of it. */
  async find(wanted: (event: QmpEvent) => boolean, { signal, timeoutMs }: Bounds): Promise<QmpEvent> {
    const { clock } = this.#options;
    const end = clock.now() + timeoutMs;
    for (;;) {
      const event = await this.next({ timeoutMs: Math.max(0, end - clock.now()), ...(signal && { signal }) });
      if (wanted(event)) return event;
    }
  }

  /** All events, without a bound in time, until `close` (which ends the loop) or the end of the connection (which throws). */
  async *[Symbol.asyncIterator](): AsyncGenerator<QmpEvent, void> {
    try {
      for (;;) {
        const event = this.#queue.shift() ?? (await this.#nextUnbounded());
        if (event === undefined) return;
        yield event;
      }
    } finally {
      this.close();
    }
  }

  /** Takes no more events. Twice is once. */
  close(): void {
    this.fail(CLOSED);
  }

  /** For the connection: an event came. */
  push(event: QmpEvent): void {
    if (this.#end !== undefined) return;
    const waiting = this.#waiting;
    if (waiting !== undefined) {
      this.#waiting = undefined;
      waiting.resolve(event);
    } else if (this.#queue.length < EVENTS_MAX) {
      this.#queue.push(event);
    } else {
      this.fail(new NetbusError('limit', `more than ${EVENTS_MAX} events of QEMU were not read`));
    }
  }

  /** For the connection: it has ended. What came before can still be read. */
  fail(reason: NetbusError): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    if (reason === CLOSED) this.#queue = [];
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(reason);
    this.#options.onClose();
  }

  async #nextUnbounded(): Promise<QmpEvent | undefined> {
    if (this.#waiting !== undefined) throw new NetbusError('internal', 'an event stream has one reader');
    try {
      if (this.#end !== undefined) throw this.#end;
      return await new Promise<QmpEvent>((resolve, reject) => {
        this.#waiting = { resolve, reject };
      });
    } catch (thrown) {
      if (thrown === CLOSED) return undefined;
      throw thrown;
    }
  }
}

const CLOSED = new NetbusError('ended', 'the event stream was closed');
