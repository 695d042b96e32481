/** One socket that carries vhost-user messages with descriptors: the front-end's requests in, our replies out. */
import { constants } from 'node:os';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { MessageAssembler, type RawMessage } from '../../protocols/vhost-user/index.ts';

const { EAGAIN, EINTR } = constants.errno;
/** Messages that are handled to see whether the stream has ended behind them. */
const MESSAGES_PER_POLL_MAX = 64;

export interface ChannelOwner {
  /** A message came; its descriptors are the owner's now. Reading goes on when the promise, if there is one, is settled. */
  message(message: RawMessage): Promise<void> | undefined;
  /** The stream has ended: the peer closed it (no cause), or it broke. Told once, and not after `close`. */
  ended(cause: NetbusError | undefined): void;
}

export class Channel {
  readonly #fd: number;
  readonly #owner: ChannelOwner;
  readonly #watch: number;
  readonly #assembler = new MessageAssembler();
  /** A reply that the socket had no room for. Nothing is read meanwhile, so there is never a second one. */
  #unsent: Uint8Array | undefined;
  /** Descriptors that go with its first byte. */
  #unsentFds: number[] = [];
  #busy = false;
  #closed = false;

  /** Takes the descriptor over. */
  constructor(fd: number, owner: ChannelOwner) {
    this.#fd = fd;
    this.#owner = owner;
    this.#watch = native.watch(fd, { readable: true, writable: false }, (error) => this.#event(error));
  }

  /** Reads what is there: notices a peer that has gone. */
  poll(): void {
    this.#read(MESSAGES_PER_POLL_MAX);
  }

  /** Sends a message, with a descriptor that is the channel's from now on. What does not fit goes out later, before anything else is read. */
  send(bytes: Uint8Array, fd?: number): void {
    if (fd !== undefined) this.#unsentFds.push(fd);
    if (this.#closed) {
      this.#closeUnsent();
      return;
    }
    this.#unsent = this.#unsent === undefined ? bytes : Buffer.concat([this.#unsent, bytes]);
    this.#flush();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native.unwatch(this.#watch);
    native.close(this.#fd);
    for (const fd of this.#assembler.takeDescriptors()) native.close(fd);
    this.#closeUnsent();
  }

  #closeUnsent(): void {
    for (const fd of this.#unsentFds.splice(0)) native.close(fd);
  }

  #event(error: number): void {
    if (this.#closed) return;
    if (error < 0) {
      this.#end(new NetbusError('ended', `the socket of the front-end failed (errno ${-error})`));
      return;
    }
    if (this.#unsent !== undefined) this.#flush();
    // One in a turn of the event loop: what it sets off, such as asking for the device, does not wait for those behind it.
    this.#read(1);
  }

  #read(most: number): void {
    for (let messages = 0; messages < most && this.#reads; ) {
      const received = this.#receive();
      if (received === 'nothing') return;
      if (received === 'message') messages++;
    }
  }

  get #reads(): boolean {
    return !this.#closed && !this.#busy && this.#unsent === undefined;
  }

  #receive(): 'nothing' | 'part' | 'message' {
    const assembler = this.#assembler;
    const { bytes, fds } = native.receiveMessage(this.#fd, assembler.buffer, assembler.offset, assembler.missing);
    if (bytes === -EAGAIN) return 'nothing';
    if (bytes === -EINTR) return 'part';
    if (bytes <= 0) {
      this.#end(endOfStream(bytes, assembler.begun));
      return 'nothing';
    }
    let message: RawMessage | undefined;
    try {
      message = assembler.advance(bytes, fds);
    } catch (error) {
      this.#end(NetbusError.from(error));
      return 'nothing';
    }
    if (message === undefined) return 'part';
    const handled = this.#owner.message(message);
    if (handled !== undefined) this.#pause(handled);
    return 'message';
  }

  #pause(handled: Promise<void>): void {
    this.#busy = true;
    this.#rewatch();
    void handled.finally(() => {
      this.#busy = false;
      this.#rewatch();
    });
  }

  #flush(): void {
    const bytes = this.#unsent!;
    const sent = native.sendMessage(this.#fd, bytes, 0, bytes.length, this.#unsentFds);
    if (sent < 0 && sent !== -EAGAIN && sent !== -EINTR) {
      this.#end(new NetbusError('ended', `the front-end takes no replies (errno ${-sent})`));
      return;
    }
    if (sent > 0) this.#closeUnsent();
    this.#unsent = sent >= bytes.length ? undefined : bytes.subarray(Math.max(sent, 0));
    this.#rewatch();
  }

  #rewatch(): void {
    if (this.#closed) return;
    native.rewatch(this.#watch, { readable: this.#reads, writable: this.#unsent !== undefined });
  }

  #end(cause: NetbusError | undefined): void {
    this.close();
    this.#owner.ended(cause);
  }
}

function endOfStream(bytes: number, begun: boolean): NetbusError | undefined {
  if (bytes < 0) return new NetbusError('ended', `the socket of the front-end failed (errno ${-bytes})`);
  return begun ? new NetbusError('protocol', 'the front-end closed its socket in the middle of a message') : undefined;
}
