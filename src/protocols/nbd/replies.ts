/** What an NBD server answers: a stream of simple replies and structured reply chunks, taken apart as it comes. */
import { CHUNK_FLAG_DONE, CHUNK_IS_ERROR, CHUNK_MAGIC, Chunk, SIMPLE_REPLY_MAGIC, STRING_BYTES_MAX } from './constants.ts';
import { broken } from './negotiation.ts';

const SIMPLE_BYTES = 16;
const CHUNK_BYTES = 20;
const OFFSET_BYTES = 8;
const HOLE_BYTES = 12;
const ERROR_BYTES_MIN = 6;
/** A message of the longest string, and the offset behind it. */
const ERROR_BYTES_MAX = ERROR_BYTES_MIN + STRING_BYTES_MAX + OFFSET_BYTES;
const WORD = 2 ** 32;

/**
 * Who asked. `user` and `tag` are the words of the request's cookie, and nothing about them was checked: a method throws (`broken`) where no such
 * request is under way, or the answer does not fit it.
 */
export interface ReplySink {
  /** A simple reply without an error: returns how many bytes of payload come behind it. */
  simple(user: number, tag: number): number;
  /** A chunk of what was read: `length` bytes of the export from `position` on; the payload follows. */
  data(user: number, tag: number, position: number, length: number): void;
  /** Zeroes that were read. */
  hole(user: number, tag: number, position: number, length: number): void;
  /** The request failed; `error` is not 0. */
  failed(user: number, tag: number, error: number): void;
  /** Nothing more comes for this request. */
  done(user: number, tag: number): void;
  /** The next bytes of the payload that was announced: `length` of `bytes` from `at` on, lent for the call. */
  payload(bytes: Uint8Array, at: number, length: number): void;
}

type State = 'header' | 'chunk-header' | 'offset' | 'hole' | 'error' | 'payload';

export class ReplyReader {
  readonly #sink: ReplySink;
  /** What is collected until it can be looked at: a header, or the fields of a chunk. */
  readonly #fields = new Uint8Array(ERROR_BYTES_MAX);
  readonly #view = new DataView(this.#fields.buffer);
  #state: State = 'header';
  #wanted = SIMPLE_BYTES;
  #have = 0;
  #user = 0;
  #tag = 0;
  #isLast = false;
  /** Bytes of the chunk behind its header. */
  #length = 0;
  #payloadLeft = 0;

  constructor(sink: ReplySink) {
    this.#sink = sink;
  }

  /** Bytes of payload that come next: who can put them in their place without a copy does so, and says `placed`. */
  get payloadLeft(): number {
    return this.#payloadLeft;
  }

  /** So many bytes of the payload are in their place; at most `payloadLeft`. */
  placed(bytes: number): void {
    this.#payloadLeft -= bytes;
    if (this.#payloadLeft === 0) this.#chunkEnded();
  }

  /** Takes the first `length` bytes. Throws `protocol` for what no server may say; it is of no more use then. */
  receive(bytes: Uint8Array, length: number): void {
    let at = 0;
    while (at < length) {
      if (this.#state === 'payload') {
        const count = Math.min(this.#payloadLeft, length - at);
        this.#sink.payload(bytes, at, count);
        at += count;
        this.placed(count);
      } else {
        const count = Math.min(this.#wanted - this.#have, length - at);
        for (let i = 0; i < count; i++) this.#fields[this.#have + i] = bytes[at + i];
        this.#have += count;
        at += count;
        if (this.#have === this.#wanted) this.#collected();
      }
    }
  }

  #collected(): void {
    switch (this.#state) {
      case 'header':
        this.#header();
        break;
      case 'chunk-header':
        this.#chunkHeader();
        break;
      case 'offset':
        this.#sink.data(this.#user, this.#tag, this.#position(0), this.#length - OFFSET_BYTES);
        this.#expectPayload(this.#length - OFFSET_BYTES);
        break;
      case 'hole':
        this.#sink.hole(this.#user, this.#tag, this.#position(0), this.#view.getUint32(OFFSET_BYTES));
        this.#chunkEnded();
        break;
      case 'error':
        this.#error();
        break;
    }
  }

  #header(): void {
    const view = this.#view;
    const magic = view.getUint32(0);
    if (magic === CHUNK_MAGIC) {
      // Collected so far is the same for both kinds of reply but for what the words mean.
      this.#state = 'chunk-header';
      this.#wanted = CHUNK_BYTES;
      return;
    }
    if (magic !== SIMPLE_REPLY_MAGIC) throw broken('an answer does not begin as one');
    this.#user = view.getUint32(8);
    this.#tag = view.getUint32(12);
    this.#isLast = true;
    const error = view.getUint32(4);
    if (error === 0) {
      this.#expectPayload(this.#sink.simple(this.#user, this.#tag));
    } else {
      this.#sink.failed(this.#user, this.#tag, error);
      this.#chunkEnded();
    }
  }

  #chunkHeader(): void {
    const view = this.#view;
    const type = view.getUint16(6);
    const length = view.getUint32(16);
    this.#isLast = (view.getUint16(4) & CHUNK_FLAG_DONE) !== 0;
    this.#user = view.getUint32(8);
    this.#tag = view.getUint32(12);
    this.#length = length;
    if ((type & CHUNK_IS_ERROR) !== 0) {
      if (length < ERROR_BYTES_MIN || length > ERROR_BYTES_MAX) throw broken(`an error of ${length} bytes`);
      this.#collect('error', length);
      return;
    }
    switch (type) {
      case Chunk.none:
        if (length !== 0 || !this.#isLast) throw broken('an empty chunk that is not the end');
        this.#chunkEnded();
        break;
      case Chunk.offsetData:
        if (length <= OFFSET_BYTES) throw broken('a chunk without data');
        this.#collect('offset', OFFSET_BYTES);
        break;
      case Chunk.offsetHole:
        if (length !== HOLE_BYTES) throw broken(`a hole of ${length} bytes`);
        this.#collect('hole', HOLE_BYTES);
        break;
      default:
        throw broken(`a chunk of kind ${type}, which was not asked for`);
    }
  }

  #error(): void {
    const error = this.#view.getUint32(0);
    if (error === 0) throw broken('an error that is none');
    if (this.#view.getUint16(4) > this.#length - ERROR_BYTES_MIN) throw broken('an error with a message longer than itself');
    this.#sink.failed(this.#user, this.#tag, error);
    this.#chunkEnded();
  }

  /** May not be exact beyond 2^53, where no request is. */
  #position(at: number): number {
    return this.#view.getUint32(at) * WORD + this.#view.getUint32(at + 4);
  }

  #collect(state: State, bytes: number): void {
    this.#state = state;
    this.#wanted = bytes;
    this.#have = 0;
  }

  #expectPayload(bytes: number): void {
    this.#state = 'payload';
    this.#payloadLeft = bytes;
    if (bytes === 0) this.#chunkEnded();
  }

  #chunkEnded(): void {
    this.#collect('header', SIMPLE_BYTES);
    if (this.#isLast) this.#sink.done(this.#user, this.#tag);
  }
}
