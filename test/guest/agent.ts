/** The harness's end of the guest's agent (image/agent): commands go to the guest, their output and status come back. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Output of one command that is accepted, in bytes. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
/** A reply's first line: "ID STATUS LENGTH". */
const HEADER_BYTES_MAX = 64;

export interface CommandResult {
  /** Exit status of the shell that ran the command. */
  status: number;
  /** What it wrote to stdout and stderr, in the order in which it did. */
  output: string;
}

type Pending = { resolve: (result: CommandResult) => void; reject: (error: Error) => void };

export class AgentClient {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #parser = new ReplyParser((id, result) => this.#finish(id, result));
  #nextId = 1;
  #closed: Error | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => this.#parser.feed(chunk));
    // A reset of the connection is the guest's end as well; 'close' follows.
    socket.on('error', () => {});
    socket.on('close', () => this.close(new Error('the guest ended')));
  }

  /** Connects to the unix socket of QEMU's agent port. Requests wait there until the guest's agent reads them. */
  static async connect(path: string): Promise<AgentClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new AgentClient(socket);
  }

  /** Runs shell commands in the guest. Several may run at a time. Rejects only where the guest ends first. */
  run(commands: string): Promise<CommandResult> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#socket.write(`${id} ${Buffer.from(commands).toString('base64')}\n`);
    });
  }

  /** Forgets what the guest was asked and what came in part: after a reset of the guest nobody is going to answer. */
  restart(): void {
    for (const { reject } of this.#pending.values()) reject(new Error('the guest was reset'));
    this.#pending.clear();
    this.#parser.restart();
  }

  close(reason: Error): void {
    this.#closed ??= reason;
    for (const { reject } of this.#pending.values()) reject(this.#closed);
    this.#pending.clear();
    this.#socket.destroy();
  }

  #finish(id: number, result: CommandResult): void {
    this.#pending.get(id)?.resolve(result);
    this.#pending.delete(id);
  }
}

/** Cuts the agent's byte stream into replies. */
export class ReplyParser {
  readonly #onReply: (id: number, result: CommandResult) => void;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** Bytes that must be there before another look is worth it. */
  #wantedBytes = 1;

  constructor(onReply: (id: number, result: CommandResult) => void) {
    this.#onReply = onReply;
  }

  /** Takes the next bytes; calls back for each reply that is complete. Throws where they are not the agent's format. */
  feed(chunk: Buffer): void {
    this.#received.push(chunk);
    this.#receivedBytes += chunk.length;
    if (this.#receivedBytes < this.#wantedBytes) return;
    let bytes = Buffer.concat(this.#received);
    for (;;) {
      const reply = parseReply(bytes);
      this.#wantedBytes = reply.endBytes;
      if (reply.result === undefined) break;
      bytes = bytes.subarray(reply.endBytes);
      this.#onReply(reply.id, reply.result);
    }
    this.#received = [bytes];
    this.#receivedBytes = bytes.length;
  }

  restart(): void {
    this.#received = [];
    this.#receivedBytes = 0;
    this.#wantedBytes = 1;
  }
}

/** The reply at the start of `bytes`: its end, and its content where all of it is there. */
function parseReply(bytes: Buffer): { id: number; endBytes: number; result?: CommandResult } {
  const newline = bytes.indexOf(0x0a);
  if (newline === -1 && bytes.length <= HEADER_BYTES_MAX) return { id: 0, endBytes: bytes.length + 1 };
  const header = bytes.toString('latin1', 0, newline === -1 ? HEADER_BYTES_MAX : newline);
  const fields = /^(\d+) (\d+) (\d+)$/.exec(header);
  if (fields === null) throw new Error(`the guest's agent sent ${JSON.stringify(header)} where a reply should start`);
  const [id, status, length] = [Number(fields[1]), Number(fields[2]), Number(fields[3])];
  if (length > OUTPUT_BYTES_MAX) throw new Error(`the command gave ${length} bytes of output, more than ${OUTPUT_BYTES_MAX}`);
  const endBytes = newline + 1 + length;
  if (bytes.length < endBytes) return { id, endBytes };
  return { id, endBytes, result: { status, output: bytes.toString('utf8', newline + 1, endBytes) } };
}
