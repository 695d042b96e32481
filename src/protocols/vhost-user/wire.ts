/** Reading and writing the fields of vhost-user messages: little-endian, as every machine that Netbus runs on. */
import { NetbusError } from '../../device/errors.ts';

/** What is wrong with a message. The one error that the codec throws. */
export function malformed(message: string): NetbusError {
  return new NetbusError('protocol', `vhost-user: ${message}`);
}

/** A payload that is taken apart from front to back. */
export class PayloadReader {
  readonly #view: DataView;
  readonly #title: string;
  #position = 0;

  constructor(payload: Uint8Array, title: string) {
    this.#view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    this.#title = title;
  }

  get left(): number {
    return this.#view.byteLength - this.#position;
  }

  u16(): number {
    return this.#view.getUint16(this.#advance(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(8), true);
  }

  /** An address, size or offset: 64 bits on the wire, below 2^53 here, so that it is an exact number from now on. */
  place(what: string): number {
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw malformed(`${this.#title} has a ${what} of 0x${value.toString(16)}, above 2^53`);
    return Number(value);
  }

  /** A copy of the next bytes. */
  bytes(length: number): Uint8Array {
    const start = this.#view.byteOffset + this.#advance(length);
    return new Uint8Array(this.#view.buffer, start, length).slice();
  }

  /** Nothing may be left over. */
  end(): void {
    if (this.left !== 0) throw malformed(`${this.#title} has ${this.#view.byteLength} bytes of payload, ${this.left} too many`);
  }

  #advance(length: number): number {
    const at = this.#position;
    if (length > this.left) throw malformed(`${this.#title} has only ${this.#view.byteLength} bytes of payload`);
    this.#position += length;
    return at;
  }
}

/** A message that is put together from front to back. */
export class PayloadWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #position = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  u16(value: number): this {
    this.#view.setUint16(this.#advance(2), value, true);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#advance(4), value, true);
    return this;
  }

  u64(value: bigint): this {
    this.#view.setBigUint64(this.#advance(8), value, true);
    return this;
  }

  place(value: number): this {
    return this.u64(BigInt(value));
  }

  copy(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.#advance(bytes.length));
    return this;
  }

  #advance(length: number): number {
    const at = this.#position;
    this.#position += length;
    return at;
  }
}
