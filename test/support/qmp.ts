/** A small QMP client for tests: commands, their answers, and events, over QEMU's unix socket. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { waitFor, withDeadline } from './wait.ts';

const COMMAND_MS_MAX = 30_000;
/** Events that are kept for `waitForEvent`; the oldest go first. */
const EVENTS_MAX = 1_000;

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

interface QmpMessage {
  id?: number;
  return?: unknown;
  error?: { class: string; desc: string };
  event?: string;
  data?: Record<string, unknown>;
  QMP?: unknown;
}

type Pending = { resolve: (value: unknown) => void; reject: (error: Error) => void };

export class QmpClient {
  /** All events since the connection was made, oldest first (the newest EVENTS_MAX of them). */
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const lines = createInterface({ input: socket });
    lines.on('line', (line) => this.#receive(JSON.parse(line) as QmpMessage));
    // readline passes the input's errors on; 'close' follows and ends what is waiting.
    lines.on('error', () => {});
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const { reject } of this.#pending.values()) reject(new Error('QEMU closed its QMP socket'));
      this.#pending.clear();
    });
  }

  /** Connects to QEMU's monitor socket and leaves its negotiation mode. */
  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    const client = new QmpClient(socket);
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Runs a command; resolves with its answer, rejects with QEMU's own words. */
  execute(command: string, parameters: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => {
      if (this.#socket.destroyed) return reject(new Error(`QMP ${command}: the socket is closed`));
      this.#pending.set(id, { resolve, reject: (error) => reject(new Error(`QMP ${command}: ${error.message}`)) });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    });
    return withDeadline(`the answer to QMP ${command}`, COMMAND_MS_MAX, answer);
  }

  /** Waits for an event, among those that came already too. */
  async waitForEvent(name: string, timeoutMs?: number): Promise<QmpEvent> {
    return await waitFor(`QMP event ${name}`, () => this.events.find((event) => event.event === name), timeoutMs);
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(message: QmpMessage): void {
    if (message.event !== undefined) {
      this.events.push({ event: message.event, data: message.data ?? {} });
      if (this.events.length > EVENTS_MAX) this.events.shift();
      return;
    }
    if (message.id === undefined) return; // The greeting.
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.error === undefined) pending?.resolve(message.return);
    else pending?.reject(new Error(message.error.desc));
  }
}
