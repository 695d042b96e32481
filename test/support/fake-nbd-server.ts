/** An NBD server in this process that a test holds by its strings: it answers when it is told to, in pieces, wrongly, or not at all. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CHUNK_FLAG_DONE,
  CHUNK_MAGIC,
  Chunk,
  Command,
  Info,
  Option,
  OptionReply,
  SIMPLE_REPLY_MAGIC,
  TransmissionFlag,
} from '../../src/protocols/nbd/constants.ts';

export interface FakeRequest {
  readonly command: number;
  readonly flags: number;
  readonly cookie: bigint;
  readonly position: number;
  readonly length: number;
  readonly payload: Buffer;
}

const { hasFlags, sendFlush, sendFua, sendTrim, sendWriteZeroes } = TransmissionFlag;

export class FakeNbdServer {
  readonly folder = mkdtempSync(join(tmpdir(), 'netbus-nbd-'));
  readonly socketPath = join(this.folder, 'nbd.sock');
  readonly uri = `nbd+unix:///?socket=${this.socketPath}`;
  storage = Buffer.alloc(8 * 1024 * 1024);
  flags = hasFlags | sendFlush | sendFua | sendTrim | sendWriteZeroes;
  structured = true;
  /** Minimum, preferred and maximum; none are said where it is left out. */
  blocks: readonly [number, number, number] | undefined;
  /** What it was asked, in order. */
  readonly seen: FakeRequest[] = [];
  /** Requests that have no answer, while `holding`. */
  readonly held: FakeRequest[] = [];
  holding = false;
  /** Takes connections, and says nothing. */
  mute = false;
  /** What to answer with; undefined: do it. */
  errorOf: (request: FakeRequest) => number | undefined = () => undefined;
  /** What it says instead of an answer. */
  instead: ((request: FakeRequest) => Buffer) | undefined;
  /** Splits reads into chunks of so many bytes. */
  chunkBytes = Number.POSITIVE_INFINITY;
  /** Clients that came. */
  clients = 0;
  #server: Server | undefined;
  #socket: Socket | undefined;

  async listen(): Promise<this> {
    this.#server = createServer((socket) => this.#serve(socket));
    await new Promise<void>((resolve) => this.#server!.listen(this.socketPath, resolve));
    return this;
  }

  /** Ends the connection and listens no more, as a server that was killed. */
  async kill(): Promise<void> {
    this.#socket?.destroy();
    const server = this.#server;
    this.#server = undefined;
    await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
  }

  cut(): void {
    this.#socket?.destroy();
  }

  send(bytes: Buffer): void {
    this.#socket?.write(bytes);
  }

  /** Answers what is held. */
  release(): void {
    this.holding = false;
    for (const request of this.held.splice(0)) this.send(this.#answer(request));
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    this.clients++;
    this.#socket = socket;
    socket.on('error', () => {});
    if (this.mute) return;
    let pending = Buffer.alloc(0);
    let state: 'flags' | 'options' | 'transmission' = 'flags';
    const greeting = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1');
    socket.write(greeting);
    socket.on('data', (data) => {
      pending = Buffer.concat([pending, data]);
      for (;;) {
        let taken: number | undefined;
        if (state === 'flags') {
          taken = pending.length < 4 ? undefined : 4;
          if (taken !== undefined) state = 'options';
        } else if (state === 'options') {
          if (pending.length < 16 || pending.length < 16 + pending.readUInt32BE(12)) return;
          taken = 16 + pending.readUInt32BE(12);
          if (this.#option(socket, pending.readUInt32BE(8))) state = 'transmission';
        } else {
          taken = this.#request(pending);
        }
        if (taken === undefined) return;
        pending = pending.subarray(taken);
      }
    });
  }

  /** True where it was the last one. */
  #option(socket: Socket, option: number): boolean {
    if (option === Option.structuredReply) {
      socket.write(optionReply(option, this.structured ? OptionReply.ack : OptionReply.unsupported));
      return false;
    }
    const size = Buffer.alloc(12);
    size.writeUInt16BE(Info.export, 0);
    size.writeBigUInt64BE(BigInt(this.storage.length), 2);
    size.writeUInt16BE(this.flags, 10);
    socket.write(optionReply(option, OptionReply.info, size));
    if (this.blocks !== undefined) {
      const blocks = Buffer.alloc(14);
      blocks.writeUInt16BE(Info.blockSize, 0);
      for (const [i, value] of this.blocks.entries()) blocks.writeUInt32BE(value, 2 + 4 * i);
      socket.write(optionReply(option, OptionReply.info, blocks));
    }
    socket.write(optionReply(option, OptionReply.ack));
    return true;
  }

  #request(bytes: Buffer): number | undefined {
    if (bytes.length < 28) return undefined;
    const command = bytes.readUInt16BE(6);
    const length = bytes.readUInt32BE(24);
    const end = command === Command.write ? 28 + length : 28;
    if (bytes.length < end) return undefined;
    const request: FakeRequest = {
      command,
      flags: bytes.readUInt16BE(4),
      cookie: bytes.readBigUInt64BE(8),
      position: Number(bytes.readBigUInt64BE(16)),
      length,
      payload: Buffer.from(bytes.subarray(28, end)),
    };
    this.seen.push(request);
    if (command === Command.disconnect) this.#socket?.end();
    else if (this.holding) this.held.push(request);
    else this.send(this.instead?.(request) ?? this.#answer(request));
    return end;
  }

  #answer(request: FakeRequest): Buffer {
    const { command, cookie, position, length, payload } = request;
    const error = this.errorOf(request) ?? 0;
    if (error === 0 && command === Command.write) payload.copy(this.storage, position);
    if (error === 0 && command === Command.writeZeroes) this.storage.fill(0, position, position + length);
    if (command !== Command.read || !this.structured) {
      const data =
        command === Command.read && error === 0 ? this.storage.subarray(position, position + length) : Buffer.alloc(0);
      return Buffer.concat([simpleReply(cookie, error), data]);
    }
    if (error !== 0) {
      const fields = Buffer.alloc(6);
      fields.writeUInt32BE(error);
      return chunk(cookie, CHUNK_FLAG_DONE, Chunk.error, fields);
    }
    const chunks: Buffer[] = [];
    for (let at = position; at < position + length; at += this.chunkBytes) {
      const data = this.storage.subarray(at, Math.min(at + this.chunkBytes, position + length));
      chunks.push(isZero(data) ? holeChunk(cookie, 0, at, data.length) : dataChunk(cookie, 0, at, data));
    }
    chunks.push(chunk(cookie, CHUNK_FLAG_DONE, Chunk.none, Buffer.alloc(0)));
    return Buffer.concat(chunks);
  }
}

function isZero(data: Buffer): boolean {
  return data.length > 0 && data[0] === 0 && data.subarray(1).equals(data.subarray(0, -1));
}

function optionReply(option: number, type: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20);
  header.writeBigUInt64BE(0x3e889045565a9n, 0);
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(payload.length, 16);
  return Buffer.concat([header, payload]);
}

export function simpleReply(cookie: bigint, error: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(error, 4);
  bytes.writeBigUInt64BE(cookie, 8);
  return bytes;
}

export function chunk(cookie: bigint, flags: number, type: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt32BE(CHUNK_MAGIC, 0);
  header.writeUInt16BE(flags, 4);
  header.writeUInt16BE(type, 6);
  header.writeBigUInt64BE(cookie, 8);
  header.writeUInt32BE(payload.length, 16);
  return Buffer.concat([header, payload]);
}

export function dataChunk(cookie: bigint, flags: number, position: number, data: Buffer): Buffer {
  const offset = Buffer.alloc(8);
  offset.writeBigUInt64BE(BigInt(position));
  return chunk(cookie, flags, Chunk.offsetData, Buffer.concat([offset, data]));
}

export function holeChunk(cookie: bigint, flags: number, position: number, length: number): Buffer {
  const fields = Buffer.alloc(12);
  fields.writeBigUInt64BE(BigInt(position));
  fields.writeUInt32BE(length, 8);
  return chunk(cookie, flags, Chunk.offsetHole, fields);
}
