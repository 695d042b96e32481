/**
 * A connection with an NBD server after the handshake: takes the commands of all uses of an export, and gives them their answers. It is never
 * closed by this side while the server has something to answer: that would leave in doubt what the server still does.
 */
import { getSystemErrorName } from 'node:util';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import { clearBytes, type SegmentList, scatter } from '../../device/segments.ts';
import type { Clock } from '../../lib/clock.ts';
import { Command, NbdError } from '../../protocols/nbd/constants.ts';
import { broken } from '../../protocols/nbd/negotiation.ts';
import { ReplyReader, type ReplySink } from '../../protocols/nbd/replies.ts';
import { encodeRequest, REQUEST_BYTES } from '../../protocols/nbd/requests.ts';
import { CommandState } from './commands.ts';
import { pieceOf, Sender, type SendingUser } from './sender.ts';

const RECEIVE_BUFFER_BYTES = 128 * 1024;
/** A payload of which so much is to come is received into its place. */
const PLACED_BYTES_MIN = 64 * 1024;
/** Calls of recv before others have their turn. */
const RECEIVES_PER_TURN = 8;
const NO_DESCRIPTORS: readonly number[] = [];
const EAGAIN = 11;
/** Errors by which the server's side says that it has ended the connection. */
const ENDED_BY_PEER = new Set(['ECONNRESET', 'EPIPE']);

export interface ConnectionUser extends SendingUser {
  /** False: nobody wants its payloads and answers any more, and its memory is left alone. */
  readonly heard: boolean;
  /** The server answered; `error` is 0 where it did what it was asked. */
  answered(tag: number, error: number): void;
  /** All answers that are there for now were told. */
  deliver(): void;
  lost(cause: NetbusError): void;
}

/** How a connection ended. */
export interface Loss {
  readonly cause: NetbusError;
  /** The server may be alive and have writes that it did not answer: nobody knows when it is done with them. */
  readonly inDoubt: boolean;
}

export interface ConnectionOptions {
  /** A connected socket after the handshake, which is the connection's from here on. */
  readonly fd: number;
  /** For messages. */
  readonly uri: string;
  readonly structuredReplies: boolean;
  readonly clock: Clock;
  /** Told once, after all users were; not by `close`. */
  readonly onLost: (loss: Loss) => void;
}

export class NbdConnection implements ReplySink {
  readonly #options: ConnectionOptions;
  readonly #watch: number;
  readonly #users = new Map<number, ConnectionUser>();
  readonly #sender: Sender;
  readonly #reader = new ReplyReader(this);
  readonly #buffer = new Uint8Array(RECEIVE_BUFFER_BYTES);
  #usersSeen = 0;
  #blocked = false;
  #lost: NetbusError | undefined;
  #closed = false;
  /** Where the payload that comes is to go. */
  #reading: ConnectionUser | undefined;
  #readingTag = 0;
  #readingAt = 0;
  /** When the server was asked while it owed nothing, or said something. */
  #heardAt = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    const { fd } = options;
    this.#sender = new Sender((bytes, offset, length) => native.sendMessage(fd, bytes, offset, length, NO_DESCRIPTORS));
    this.#watch = native.watch(fd, { readable: true, writable: false }, (...event) => this.#event(...event));
  }

  /** Why it is of no more use. */
  get lost(): NetbusError | undefined {
    return this.#lost;
  }

  /** Commands that the server has, or is to get. */
  get unanswered(): number {
    let unanswered = 0;
    for (const { commands } of this.#users.values()) unanswered += commands.unanswered;
    return unanswered;
  }

  /** For how long the server has said nothing although it was asked, in milliseconds; 0 where it owes no answer. */
  get silentMs(): number {
    return this.unanswered === 0 ? 0 : this.#options.clock.now() - this.#heardAt;
  }

  /** The word that is to be in the cookies of a new user. */
  nextUser(): number {
    return ++this.#usersSeen % 2 ** 32;
  }

  add(user: ConnectionUser): void {
    this.#users.set(user.user, user);
  }

  /** It has nothing unanswered any more. */
  remove(user: ConnectionUser): void {
    this.#users.delete(user.user);
  }

  /** What the users have queued is to be sent. */
  flush(): void {
    if (this.#lost !== undefined || this.#closed || this.#blocked) return;
    const result = this.#sender.flush(this.#users.values());
    if (typeof result === 'number') {
      this.#blocked = true;
      // Not from within a user's own call.
      queueMicrotask(() => this.#failed(result));
    } else if (!result) {
      this.#blocked = true;
      native.rewatch(this.#watch, { readable: true, writable: true });
    }
  }

  /** Called before something is queued: where the server owes nothing, its silence begins now. */
  asks(): void {
    if (this.unanswered === 0) this.#heardAt = this.#options.clock.now();
  }

  /** Takes back what was not sent, and leaves the user's memory alone from here on. */
  recall(user: ConnectionUser): void {
    this.#sender.release(user);
    user.commands.recall();
  }

  /** For a connection on which nothing is unanswered, or that was lost. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#lost !== undefined) return;
    const request = new Uint8Array(REQUEST_BYTES);
    encodeRequest(new DataView(request.buffer), 0, Command.disconnect, 0, 0, 0, 0, 0);
    // Where there is no room for a good-bye there is none.
    native.sendMessage(this.#options.fd, request, 0, REQUEST_BYTES, NO_DESCRIPTORS);
    this.#free();
  }

  simple(user: number, tag: number): number {
    const owner = this.#sent(user, tag);
    const { command, length } = owner.commands;
    if (command[tag] !== Command.read) return 0;
    if (this.#options.structuredReplies) throw broken('it answers a read without structure, and had agreed to that');
    this.#expect(owner, tag, 0, length[tag]);
    return length[tag];
  }

  data(user: number, tag: number, position: number, length: number): void {
    const owner = this.#chunk(user, tag, position, length);
    this.#expect(owner, tag, position - owner.commands.position[tag], length);
  }

  hole(user: number, tag: number, position: number, length: number): void {
    const owner = this.#chunk(user, tag, position, length);
    const { skip, position: begin } = owner.commands;
    if (owner.heard) clearBytes(owner.segments(tag), skip[tag] + position - begin[tag], length);
  }

  failed(user: number, tag: number, error: number): void {
    const { commands } = this.#sent(user, tag);
    if (commands.error[tag] === 0) commands.error[tag] = error;
  }

  done(user: number, tag: number): void {
    const owner = this.#sent(user, tag);
    const { commands } = owner;
    const error = commands.error[tag];
    // It was not done, and goes again over the next connection.
    if (error === NbdError.shutdown) throw new NetbusError('unreachable', `${this.#options.uri}: the NBD server is ending`);
    if (error === 0 && commands.command[tag] === Command.read && commands.received[tag] !== commands.length[tag])
      throw broken(`it sent ${commands.received[tag]} of ${commands.length[tag]} bytes`);
    this.#sender.release(owner, tag);
    commands.answered(tag);
    owner.answered(tag, error);
  }

  payload(bytes: Uint8Array, at: number, length: number): void {
    const segments = this.#place();
    if (segments !== undefined) scatter(segments, this.#readingAt, bytes, at, length);
    this.#readingAt += length;
  }

  /** The user whose command it is, which the server has. */
  #sent(user: number, tag: number): ConnectionUser {
    const owner = this.#users.get(user);
    if (owner === undefined || owner.commands.state[tag] !== CommandState.sent)
      throw broken('it answers what nobody has asked');
    return owner;
  }

  #chunk(user: number, tag: number, position: number, length: number): ConnectionUser {
    const owner = this.#sent(user, tag);
    const { commands } = owner;
    const from = position - commands.position[tag];
    const whole = commands.length[tag];
    if (!this.#options.structuredReplies || commands.command[tag] !== Command.read)
      throw broken('it sends data that nobody wants');
    if (!(from >= 0 && length > 0 && from + length <= whole)) throw broken('it sends data from outside what was to be read');
    // So that chunks which overlap, against the protocol, leave nothing in it that was there before.
    if (commands.received[tag] === 0 && length < whole && owner.heard)
      clearBytes(owner.segments(tag), commands.skip[tag], whole);
    commands.received[tag] += length;
    if (commands.received[tag] > whole) throw broken('it sends more data than was to be read');
    return owner;
  }

  #expect(owner: ConnectionUser, tag: number, from: number, length: number): void {
    const { commands } = owner;
    if (!this.#options.structuredReplies) commands.received[tag] = length;
    this.#reading = owner;
    this.#readingTag = tag;
    this.#readingAt = commands.skip[tag] + from;
  }

  /** Where the payload goes; undefined where nobody wants it any more. */
  #place(): SegmentList | undefined {
    return this.#reading?.heard ? this.#reading.segments(this.#readingTag) : undefined;
  }

  #event(error: number, readable: boolean, writable: boolean): void {
    if (error < 0) {
      this.#failed(error);
      return;
    }
    if (writable) {
      this.#blocked = false;
      native.rewatch(this.#watch, { readable: true, writable: false });
      this.flush();
    }
    if (readable) this.#receive();
  }

  #receive(): void {
    let problem: NetbusError | undefined;
    try {
      for (let i = 0; i < RECEIVES_PER_TURN && problem === undefined; i++) {
        const place = this.#reader.payloadLeft >= PLACED_BYTES_MIN ? this.#place() : undefined;
        const into = place === undefined ? this.#buffer : pieceOf(place, this.#readingAt, this.#reader.payloadLeft);
        const { bytes } = native.receiveMessage(this.#options.fd, into, 0, into.length);
        if (bytes === -EAGAIN) break;
        if (bytes <= 0) problem = this.#endedBy(bytes);
        else this.#received(bytes, into, place !== undefined);
      }
    } catch (thrown) {
      problem = NetbusError.from(thrown);
    }
    if (this.#lost !== undefined || this.#closed) return;
    for (const user of this.#users.values()) user.deliver();
    if (problem !== undefined) this.#lose(problem, problem.code !== 'unreachable');
    else this.flush();
  }

  #received(bytes: number, into: Uint8Array, isPlaced: boolean): void {
    this.#heardAt = this.#options.clock.now();
    if (isPlaced) {
      this.#readingAt += bytes;
      this.#reader.placed(bytes);
    } else {
      this.#reader.receive(into, bytes);
    }
  }

  #failed(error: number): void {
    const problem = this.#endedBy(error);
    this.#lose(problem, problem.code !== 'unreachable');
  }

  /** `unreachable` where the server's side has ended it, `timeout` where nobody knows what became of the server. */
  #endedBy(error: number): NetbusError {
    const { uri } = this.#options;
    const name = error === 0 ? 'ECONNRESET' : getSystemErrorName(error);
    if (ENDED_BY_PEER.has(name)) return new NetbusError('unreachable', `${uri}: the NBD server ended the connection`);
    return new NetbusError('timeout', `${uri}: the connection with the NBD server failed (${name})`);
  }

  #lose(cause: NetbusError, isServerAlive: boolean): void {
    if (this.#lost !== undefined || this.#closed) return;
    this.#lost = cause;
    const inDoubt = isServerAlive && [...this.#users.values()].some(({ commands }) => commands.hasWrites);
    this.#free();
    for (const user of [...this.#users.values()]) user.lost(cause);
    this.#options.onLost({ cause, inDoubt });
  }

  #free(): void {
    native.unwatch(this.#watch);
    native.close(this.#options.fd);
  }
}
