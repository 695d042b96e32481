/** Commands on their way to the server: headers and small payloads through a buffer, large payloads straight from where they are. */
import type { SegmentList } from '../../device/segments.ts';
import { gather } from '../../device/segments.ts';
import { Command } from '../../protocols/nbd/constants.ts';
import { encodeRequest, REQUEST_BYTES } from '../../protocols/nbd/requests.ts';
import type { Commands } from './commands.ts';

const SEND_BUFFER_BYTES = 128 * 1024;
/** A payload up to this is copied behind its header, so that one call sends many requests. */
const COPIED_BYTES_MAX = 16 * 1024;
/** Zeroes that one command writes where the server cannot make them itself. */
export const ZEROES_BYTES = 1024 * 1024;
const EAGAIN = 11;

export interface SendingUser {
  /** The word of its cookies. */
  readonly user: number;
  readonly commands: Commands;
  /** Where the payload of a command is. */
  segments(tag: number): SegmentList;
}

/** Sends bytes: how many it took, or a negative errno. */
export type SendBytes = (bytes: Uint8Array, offset: number, length: number) => number;

export class Sender {
  readonly #send: SendBytes;
  readonly #buffer = new Uint8Array(SEND_BUFFER_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  readonly #zeroes = new Uint8Array(ZEROES_BYTES);
  /** What of the buffer is filled, and what of that is sent. */
  #filled = 0;
  #sent = 0;
  /** The payload that follows the buffer: whose it is, which bytes of its command come next, and how many they are. */
  #owner: SendingUser | undefined;
  #tag = -1;
  #at = 0;
  #left = 0;
  /** The rest of it, where its place is not ours any more. */
  #copy: Uint8Array | undefined;

  constructor(send: SendBytes) {
    this.#send = send;
  }

  /** Sends what the users have queued, as far as the socket takes it: true where that is all; a negative errno where it takes nothing any more. */
  flush(users: Iterable<SendingUser>): boolean | number {
    for (;;) {
      if (this.#sent === this.#filled && this.#left === 0) {
        this.#fill(users);
        if (this.#filled === 0) return true;
      }
      const result = this.#sent < this.#filled ? this.#sendBuffer() : this.#sendPayload();
      if (result === -EAGAIN) return false;
      if (result < 0) return result;
    }
  }

  /** The payload under way is read from its place for the last time: called before that is given back. */
  release(owner: SendingUser, tag?: number): void {
    if (this.#owner !== owner || this.#left === 0 || (tag !== undefined && tag !== this.#tag)) return;
    const skip = owner.commands.skip[this.#tag];
    this.#copy = new Uint8Array(this.#left);
    if (skip >= 0) gather(owner.segments(this.#tag), skip + this.#at, this.#copy, 0, this.#left);
    this.#at = 0;
    this.#owner = undefined;
  }

  #fill(users: Iterable<SendingUser>): void {
    this.#filled = 0;
    this.#sent = 0;
    this.#copy = undefined;
    for (const owner of users) {
      while (this.#filled + REQUEST_BYTES + COPIED_BYTES_MAX <= SEND_BUFFER_BYTES) {
        const tag = owner.commands.take();
        if (tag === -1) break;
        if (this.#add(owner, tag)) return;
      }
    }
  }

  /** True where its payload has to follow the buffer. */
  #add(owner: SendingUser, tag: number): boolean {
    const { command, flags, position, length, skip } = owner.commands;
    // A flush says nothing of a range (NBD_CMD_FLUSH).
    encodeRequest(this.#view, this.#filled, command[tag], flags[tag], owner.user, tag, position[tag], length[tag]);
    this.#filled += REQUEST_BYTES;
    if (command[tag] !== Command.write) return false;
    if (length[tag] > COPIED_BYTES_MAX || skip[tag] < 0) {
      this.#owner = owner;
      this.#tag = tag;
      this.#at = 0;
      this.#left = length[tag];
      return true;
    }
    gather(owner.segments(tag), skip[tag], this.#buffer, this.#filled, length[tag]);
    this.#filled += length[tag];
    return false;
  }

  #sendBuffer(): number {
    const count = this.#send(this.#buffer, this.#sent, this.#filled - this.#sent);
    if (count > 0) this.#sent += count;
    return count;
  }

  #sendPayload(): number {
    const count = this.#copy === undefined ? this.#sendFromPlace() : this.#send(this.#copy, this.#at, this.#left);
    if (count > 0) {
      this.#at += count;
      this.#left -= count;
    }
    return count;
  }

  #sendFromPlace(): number {
    const skip = this.#owner!.commands.skip[this.#tag];
    if (skip < 0) return this.#send(this.#zeroes, 0, this.#left);
    const piece = pieceOf(this.#owner!.segments(this.#tag), skip + this.#at, this.#left);
    return this.#send(piece, 0, piece.length);
  }
}

/** The bytes from `skip` on that lie together in memory, `length` at most. */
export function pieceOf(segments: SegmentList, skip: number, length: number): Uint8Array {
  for (let i = 0; i < segments.count; i++) {
    const size = segments.lengths[i];
    if (skip < size) return segments.regions[i]!.bytes(segments.offsets[i] + skip, Math.min(size - skip, length));
    skip -= size;
  }
  throw new Error('a payload is longer than its segments');
}
