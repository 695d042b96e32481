/**
 * The handshake with an NBD server: fixed newstyle, structured replies where the server has them, and NBD_OPT_GO with the block sizes. Bytes go
 * in, bytes come out.
 */
import { NetbusError } from '../../device/errors.ts';
import {
  GREETING_MAGIC,
  HandshakeFlag,
  Info,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
  STRING_BYTES_MAX,
  TransmissionFlag,
} from './constants.ts';

const GREETING_BYTES = 18;
const OPTION_HEADER_BYTES = 16;
const REPLY_HEADER_BYTES = 20;
/** An information with the longest string, or an error's message. */
const REPLY_PAYLOAD_BYTES_MAX = STRING_BYTES_MAX + 64;
/** The specification knows four kinds of information; there may be more to come. */
const INFORMATIONS_MAX = 64;
const MESSAGE_CHARACTERS_MAX = 200;

/** Size constraints: what a server does where it says nothing. */
const MINIMUM_BLOCK_BYTES_MAX = 65_536;
const PREFERRED_BLOCK_BYTES_DEFAULT = 4096;
const PAYLOAD_BYTES_DEFAULT = 32 * 1024 * 1024;

/** An export as its server offers it. */
export interface NbdExport {
  /** Below 2^53. */
  readonly sizeBytes: number;
  /** See TransmissionFlag. */
  readonly flags: number;
  readonly structuredReplies: boolean;
  /** A power of two, 65536 at most: every position and length is a multiple of it. */
  readonly minimumBlockBytes: number;
  /** A power of two. */
  readonly preferredBlockBytes: number;
  /** Of one read or write; at least `preferredBlockBytes`. */
  readonly payloadBytesMax: number;
}

type State = 'greeting' | 'structured-reply' | 'go' | 'done';

export class Negotiation {
  readonly #exportName: string;
  /** What came and has not been looked at. */
  #pending = Buffer.alloc(0);
  #state: State = 'greeting';
  #structuredReplies = false;
  #informations = 0;
  #export: Pick<NbdExport, 'sizeBytes' | 'flags'> | undefined;
  #blocks: Pick<NbdExport, 'minimumBlockBytes' | 'preferredBlockBytes' | 'payloadBytesMax'> | undefined;

  /** `exportName` has 4096 bytes at most. */
  constructor(exportName: string) {
    this.#exportName = exportName;
  }

  /** Once the handshake is over. */
  get result(): NbdExport | undefined {
    if (this.#state !== 'done') return undefined;
    return { ...this.#export!, ...(this.#blocks ?? defaultBlocks), structuredReplies: this.#structuredReplies };
  }

  /**
   * Takes the next bytes of the server and returns what is to be sent. Throws `not_found`, `denied` or `unreachable` where the server refuses, `protocol` where it
   * does not speak this protocol; it is of no more use then.
   */
  receive(bytes: Uint8Array): Buffer {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    const answers: Buffer[] = [];
    for (;;) {
      const answer = this.#step();
      if (answer === undefined) break;
      answers.push(answer);
    }
    if (this.#state === 'done' && this.#pending.length > 0) throw broken('it spoke before it was asked anything');
    return Buffer.concat(answers);
  }

  /** What is next is taken; undefined where it is not all there, or nothing more is to come. */
  #step(): Buffer | undefined {
    switch (this.#state) {
      case 'greeting':
        return this.#greeting();
      case 'structured-reply':
      case 'go':
        return this.#optionReply();
      case 'done':
        return undefined;
    }
  }

  #greeting(): Buffer | undefined {
    const bytes = this.#pending;
    if (bytes.length < GREETING_BYTES) {
      // Whoever speaks another protocol may not send that much.
      const wanted = Buffer.from('NBDMAGIC');
      const seen = Math.min(bytes.length, wanted.length);
      if (!bytes.subarray(0, seen).equals(wanted.subarray(0, seen))) throw broken('it is no NBD server');
      return undefined;
    }
    if (!isMagic(bytes, 0, GREETING_MAGIC)) throw broken('it is no NBD server');
    if (!isMagic(bytes, 8, OPTION_MAGIC)) throw broken('it speaks the old style of NBD only');
    const flags = bytes.readUInt16BE(16);
    if ((flags & HandshakeFlag.fixedNewstyle) === 0) throw broken('it does not speak fixed newstyle NBD');
    this.#take(GREETING_BYTES);
    const clientFlags = Buffer.alloc(4);
    clientFlags.writeUInt32BE(flags & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
    this.#state = 'structured-reply';
    return Buffer.concat([clientFlags, option(Option.structuredReply, Buffer.alloc(0))]);
  }

  #optionReply(): Buffer | undefined {
    const bytes = this.#pending;
    if (bytes.length < REPLY_HEADER_BYTES) return undefined;
    const asked = this.#state === 'go' ? Option.go : Option.structuredReply;
    if (!isMagic(bytes, 0, OPTION_REPLY_MAGIC)) throw broken('an answer to an option does not begin as one');
    if (bytes.readUInt32BE(8) !== asked) throw broken(`it answered option ${bytes.readUInt32BE(8)}, and was asked ${asked}`);
    const type = bytes.readUInt32BE(12);
    const length = bytes.readUInt32BE(16);
    if (length > REPLY_PAYLOAD_BYTES_MAX) throw broken(`an answer to an option has ${length} bytes`);
    if (bytes.length < REPLY_HEADER_BYTES + length) return undefined;
    const payload = bytes.subarray(REPLY_HEADER_BYTES, REPLY_HEADER_BYTES + length);
    this.#take(REPLY_HEADER_BYTES + length);
    return asked === Option.go ? this.#goReply(type, payload) : this.#structuredReply(type, payload);
  }

  #structuredReply(type: number, payload: Buffer): Buffer {
    if (type === OptionReply.tlsRequired || type === OptionReply.shutdown) throw refused(type, payload);
    if (type !== OptionReply.ack && !isError(type)) throw broken(`it answered a question with ${type}`);
    this.#structuredReplies = type === OptionReply.ack;
    this.#state = 'go';
    return option(Option.go, goData(this.#exportName));
  }

  #goReply(type: number, payload: Buffer): Buffer {
    if (isError(type)) throw refused(type, payload);
    if (type === OptionReply.ack) {
      if (this.#export === undefined) throw broken('it did not say how large the export is');
      this.#state = 'done';
    } else if (type === OptionReply.info) {
      if (++this.#informations > INFORMATIONS_MAX) throw broken(`it sent more than ${INFORMATIONS_MAX} informations`);
      this.#information(payload);
    } else {
      throw broken(`it answered a question with ${type}`);
    }
    return Buffer.alloc(0);
  }

  #information(payload: Buffer): void {
    if (payload.length < 2) throw broken('an information has no kind');
    switch (payload.readUInt16BE(0)) {
      case Info.export: {
        if (payload.length !== 12) throw broken('what it says of the export has the wrong length');
        const size = payload.readBigUInt64BE(2);
        const flags = payload.readUInt16BE(10);
        if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw broken(`it says that the export has ${size} bytes`);
        if ((flags & TransmissionFlag.hasFlags) === 0) throw broken('it does not say what the export can do');
        this.#export = { sizeBytes: Number(size), flags };
        break;
      }
      case Info.blockSize: {
        if (payload.length !== 14) throw broken('what it says of block sizes has the wrong length');
        this.#blocks = checkBlocks(payload.readUInt32BE(2), payload.readUInt32BE(6), payload.readUInt32BE(10));
        break;
      }
    }
  }

  #take(bytes: number): void {
    this.#pending = this.#pending.subarray(bytes);
  }
}

const defaultBlocks = {
  minimumBlockBytes: 1,
  preferredBlockBytes: PREFERRED_BLOCK_BYTES_DEFAULT,
  payloadBytesMax: PAYLOAD_BYTES_DEFAULT,
};

function checkBlocks(minimumBlockBytes: number, preferredBlockBytes: number, payloadBytesMax: number): typeof defaultBlocks {
  const fits =
    isPowerOfTwo(minimumBlockBytes) &&
    minimumBlockBytes <= MINIMUM_BLOCK_BYTES_MAX &&
    isPowerOfTwo(preferredBlockBytes) &&
    preferredBlockBytes >= minimumBlockBytes &&
    payloadBytesMax >= preferredBlockBytes;
  if (fits) return { minimumBlockBytes, preferredBlockBytes, payloadBytesMax };
  throw broken(`its block sizes ${minimumBlockBytes}, ${preferredBlockBytes} and ${payloadBytesMax} make no sense`);
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}

function isMagic(bytes: Buffer, at: number, [high, low]: readonly [number, number]): boolean {
  return bytes.readUInt32BE(at) === high && bytes.readUInt32BE(at + 4) === low;
}

function isError(type: number): boolean {
  return type >= 0x80000000;
}

function option(number: number, data: Buffer): Buffer {
  const header = Buffer.alloc(OPTION_HEADER_BYTES);
  header.writeUInt32BE(OPTION_MAGIC[0], 0);
  header.writeUInt32BE(OPTION_MAGIC[1], 4);
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

/** Name, and that the block sizes are wanted, which is a promise to keep to them. */
function goData(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  const wanted = Buffer.alloc(4);
  wanted.writeUInt16BE(1, 0);
  wanted.writeUInt16BE(Info.blockSize, 2);
  return Buffer.concat([length, name, wanted]);
}

function refused(type: number, payload: Buffer): NetbusError {
  const said = serverText(payload);
  const words = said === '' ? '' : ` ("${said}")`;
  switch (type) {
    case OptionReply.unknown:
      return new NetbusError('not_found', `the NBD server has no such export${words}: check its name`);
    case OptionReply.policy:
      return new NetbusError('denied', `the NBD server does not allow it${words}`);
    case OptionReply.tlsRequired:
      return new NetbusError(
        'denied',
        `the NBD server wants TLS${words}, which Netbus does not speak to it: let "nbdkit nbd" on this host do it, and name its unix socket`,
      );
    case OptionReply.shutdown:
      return new NetbusError('unreachable', 'the NBD server is ending');
    case OptionReply.unsupported:
      return broken(`it does not know NBD_OPT_GO${words}, so it is too old`);
    default:
      return broken(`it refuses the export with error ${type - 0x80000000}${words}`);
  }
}

/** What a server says, as far as it can be shown. */
export function serverText(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('utf8')
    .replaceAll(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ')
    .trim()
    .slice(0, MESSAGE_CHARACTERS_MAX);
}

/** What the server does is against the protocol. */
export function broken(what: string): NetbusError {
  return new NetbusError('protocol', `the NBD server cannot be used: ${what}`);
}
