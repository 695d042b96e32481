/** vhost-user messages with descriptors over one unix socket, in both directions: the control channel and the backend channel. */
import { constants } from 'node:os';
import { native } from '../../../native/index.ts';
import { MessageAssembler, type RawMessage } from '../../../src/protocols/vhost-user/index.ts';

const EAGAIN = constants.errno.EAGAIN;

export interface StreamEvents {
  /** A message came in. Its descriptors belong to the callee. */
  message(message: RawMessage): void;
  /** The peer closed, the socket failed, or what came was no message. Told once; the descriptor is closed by then. */
  closed(cause: Error): void;
}

export class MessageStream {
  readonly #fd: number;
  readonly #events: StreamEvents;
  readonly #assembler = new MessageAssembler();
  readonly #watch: number;
  #outgoing: { bytes: Uint8Array; sent: number; fds: readonly number[] }[] = [];
  #open = true;

  /** Takes ownership of `fd`, a non-blocking unix socket. */
  constructor(fd: number, events: StreamEvents) {
    this.#fd = fd;
    this.#events = events;
    this.#watch = native.watch(fd, { readable: true, writable: false }, (error, readable, writable) => {
      if (error !== 0) this.#end(new Error(`the vhost-user socket failed with errno ${-error}`));
      if (writable && this.#open) this.#flush();
      if (readable && this.#open) this.#receive();
    });
  }

  get open(): boolean {
    return this.#open;
  }

  /** Sends any bytes with any descriptors, which stay the caller's and must stay open until they are sent (at once, in practice). */
  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    if (!this.#open) return;
    this.#outgoing.push({ bytes, sent: 0, fds });
    this.#flush();
  }

  /** Closes without a word, `closed` is not told. Twice is once. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    native.unwatch(this.#watch);
    native.close(this.#fd);
    for (const fd of this.#assembler.takeDescriptors()) native.close(fd);
  }

  #flush(): void {
    for (let next = this.#outgoing[0]; next !== undefined; next = this.#outgoing[0]) {
      const { bytes, sent } = next;
      const count = native.sendMessage(this.#fd, bytes, sent, bytes.length - sent, sent === 0 ? next.fds : []);
      if (count === -EAGAIN) break;
      if (count < 0) {
        this.#end(new Error(`sending to the back-end failed with errno ${-count}`));
        return;
      }
      next.sent += count;
      if (next.sent === bytes.length) this.#outgoing.shift();
    }
    native.rewatch(this.#watch, { readable: true, writable: this.#outgoing.length > 0 });
  }

  #receive(): void {
    const assembler = this.#assembler;
    while (this.#open) {
      const { bytes, fds } = native.receiveMessage(this.#fd, assembler.buffer, assembler.offset, assembler.missing);
      if (bytes === -EAGAIN) return;
      if (bytes > 0) this.#assemble(bytes, fds);
      else this.#end(new Error(bytes === 0 ? 'the back-end closed the connection' : `receiving failed with errno ${-bytes}`));
    }
  }

  #assemble(bytes: number, fds: readonly number[]): void {
    let message: RawMessage | undefined;
    try {
      message = this.#assembler.advance(bytes, fds);
    } catch (error) {
      this.#end(error as Error);
    }
    if (message !== undefined) this.#events.message(message);
  }

  #end(cause: Error): void {
    if (!this.#open) return;
    this.close();
    this.#events.closed(cause);
  }
}
