/** The VMM's end of a vhost-user socket: sends messages, waits for replies and acknowledgements. */

import { native } from '../../../native/index.ts';
import {
  Ack,
  decodeReply,
  encodeFrontendMessage,
  type FrontendMessage,
  type RawMessage,
  type Reply,
} from '../../../src/protocols/vhost-user/index.ts';
import { MessageStream } from './message-stream.ts';

/** A reply with the descriptors that came along, which belong to the receiver. */
export interface ReplyWithFds {
  readonly reply: Reply;
  readonly fds: readonly number[];
}

interface Waiter {
  resolve(reply: ReplyWithFds): void;
  reject(cause: Error): void;
}

export class ControlChannel {
  /** Resolves, with the cause, when the back-end has closed the connection or broken the protocol. */
  readonly closed: Promise<Error>;
  /** Whether REPLY_ACK was negotiated: `tell` can then wait for an acknowledgement. */
  acknowledged = false;
  readonly #stream: MessageStream;
  /** The back-end answers in order. */
  readonly #waiters: Waiter[] = [];
  #ended: Error | undefined;

  /** Connects to a back-end's socket. Throws ENOENT or ECONNREFUSED where nobody listens. */
  constructor(path: string) {
    let tellClosed = (_cause: Error): void => {};
    this.closed = new Promise((resolve) => {
      tellClosed = resolve;
    });
    this.#stream = new MessageStream(native.connectUnix(path), {
      message: (message) => this.#receive(message),
      closed: (cause) => {
        this.#fail(cause);
        tellClosed(cause);
      },
    });
  }

  get open(): boolean {
    return this.#stream.open;
  }

  /** Sends a message that has a reply, and waits for it. Rejects where the connection ends first. */
  async ask(message: FrontendMessage, fds: readonly number[] = []): Promise<ReplyWithFds> {
    const answer = this.#wait();
    this.#stream.send(encodeFrontendMessage(message), fds);
    return await answer;
  }

  /** As `ask`, for replies that are one 64-bit number. */
  async askNumber(message: FrontendMessage, fds: readonly number[] = []): Promise<bigint> {
    const { reply } = await this.ask(message, fds);
    if (reply.name !== 'u64') throw new Error(`${message.name} was answered with ${reply.name}, expected a number`);
    return reply.value;
  }

  /**
   * Sends a message that has no reply of its own. With `acknowledge`, and REPLY_ACK negotiated, it waits for the back-end's answer and
   * throws where that is a refusal.
   */
  async tell(message: FrontendMessage, fds: readonly number[] = [], acknowledge = false): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended;
    if (!acknowledge || !this.acknowledged) return this.#stream.send(encodeFrontendMessage(message), fds);
    const answer = this.#wait();
    this.#stream.send(encodeFrontendMessage(message, true), fds);
    const { reply } = await answer;
    if (reply.name !== 'u64' || reply.value !== Ack.done) throw new Error(`the back-end refused ${message.name}`);
  }

  /** Hostile: any bytes, any descriptors. No reply is waited for; one that comes is dropped. */
  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#stream.send(bytes, fds);
  }

  /** Closes the socket at once: for the back-end the VMM is gone. */
  close(): void {
    this.#stream.close();
    this.#fail(new Error('the front-end closed the connection'));
  }

  #wait(): Promise<ReplyWithFds> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  #receive(message: RawMessage): void {
    const waiter = this.#waiters.shift();
    if (waiter === undefined) {
      for (const fd of message.fds) native.close(fd);
      return;
    }
    try {
      waiter.resolve({ reply: decodeReply(message.header, message.payload), fds: message.fds });
    } catch (error) {
      waiter.reject(error as Error);
    }
  }

  #fail(cause: Error): void {
    this.#ended ??= cause;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(cause);
  }
}
