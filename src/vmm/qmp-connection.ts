/** A running QEMU's monitor: the QMP client on a unix socket, with a bound on every wait. */
import { connect, type Socket } from 'node:net';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { QmpClient, type QmpHappening } from '../protocols/qmp/client.ts';
import type { QmpGreeting, QmpObject, QmpRefusal } from '../protocols/qmp/message.ts';
import { type Bounds, bounded } from './bounded.ts';
import { QmpEvents } from './qmp-events.ts';

/** From connect to the end of the greeting. QEMU greets at once, unless somebody else has the monitor or its main loop hangs. */
export const GREETING_MS_MAX = 5_000;
/** QEMU's answer to one command, unless the caller says otherwise. */
export const COMMAND_MS_DEFAULT = 30_000;
const EVENT_STREAMS_MAX = 16;
/** A unix socket's path, without the zero at its end. */
const SOCKET_PATH_BYTES_MAX = 107;

export interface QmpConnectionOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  readonly greetingMs?: number;
}

interface Waiting {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: NetbusError) => void;
}

/**
 * A connection that QEMU has greeted. QEMU serves one client of a monitor at a time, so `close` it when done. All rejections are NetbusErrors:
 * `device` where QEMU refuses a command (`refusalOf` has its words), `timeout`, `ended` (QEMU is gone, or the caller gave up), `protocol`, `limit`.
 */
export class QmpConnection {
  readonly path: string;
  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #client = new QmpClient();
  readonly #waiting = new Map<number, Waiting>();
  readonly #streams = new Set<QmpEvents>();
  #greeted: { resolve: (greeting: QmpGreeting) => void; reject: (error: NetbusError) => void } | undefined;
  #greeting: QmpGreeting | undefined;
  #end: NetbusError | undefined;

  private constructor(path: string, clock: Clock, socket: Socket) {
    this.path = path;
    this.#clock = clock;
    this.#socket = socket;
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.#finish(this.#explain(error)));
    socket.on('close', () => this.#finish(new NetbusError('ended', `QEMU closed its QMP socket ${path}: it has ended`)));
  }

  /** Connects and waits until QEMU listens to commands. Rejects with one line that says what the socket is instead. */
  static async open(options: QmpConnectionOptions): Promise<QmpConnection> {
    const { path, clock, signal, greetingMs = GREETING_MS_MAX } = options;
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      throw new NetbusError('usage', `${path} is longer than the ${SOCKET_PATH_BYTES_MAX} bytes of a unix socket's path`);
    }
    const connection = new QmpConnection(path, clock, connect(path));
    const greeted = new Promise<QmpGreeting>((resolve, reject) => {
      connection.#greeted = { resolve, reject };
    });
    try {
      await bounded(clock, greeted, `QEMU's greeting at ${path}`, { timeoutMs: greetingMs, ...(signal && { signal }) });
      return connection;
    } catch (thrown) {
      connection.close();
      if (NetbusError.from(thrown).code === 'timeout') throw silent(path, greetingMs);
      throw thrown;
    }
  }

  /** What QEMU said of itself. */
  get greeting(): QmpGreeting {
    return this.#greeting!;
  }

  /** Runs a command; resolves with what QEMU returns. At a bound of its own it rejects, and QEMU may carry the command out all the same. */
  async execute(command: string, parameters: QmpObject = {}, bounds: Partial<Bounds> = {}): Promise<unknown> {
    if (this.#end !== undefined) throw this.#end;
    const id = this.#client.execute(command, parameters);
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { command, resolve, reject }));
    this.#socket.write(this.#client.take());
    try {
      return await bounded(this.#clock, answer, `QEMU's answer to ${command}`, { timeoutMs: COMMAND_MS_DEFAULT, ...bounds });
    } finally {
      this.#waiting.delete(id);
    }
  }

  /** The events from now on. Close the stream when done; it ends with the connection. */
  events(): QmpEvents {
    if (this.#streams.size >= EVENT_STREAMS_MAX) {
      throw new NetbusError('limit', `a QMP connection has at most ${EVENT_STREAMS_MAX} readers of events`);
    }
    const stream = new QmpEvents({ clock: this.#clock, onClose: () => this.#streams.delete(stream) });
    this.#streams.add(stream);
    if (this.#end !== undefined) stream.fail(this.#end);
    return stream;
  }

  /** Ends it: whoever waits gets `ended`. Twice is once. */
  close(): void {
    this.#finish(new NetbusError('ended', `the connection with QEMU at ${this.path} was closed`));
  }

  #receive(chunk: Buffer): void {
    if (this.#end !== undefined) return;
    try {
      for (const happening of this.#client.feed(chunk)) this.#deliver(happening);
      const output = this.#client.take();
      if (output !== '') this.#socket.write(output);
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      const what = this.#greeting === undefined ? 'is no QMP socket' : 'broke the QMP protocol';
      const advice = this.#greeting === undefined ? '; give the socket of -qmp (or of -mon ...,mode=control)' : '';
      this.#finish(new NetbusError(code, `${this.path} ${what}: ${message}${advice}`, { cause: thrown }));
    }
  }

  #deliver(happening: QmpHappening): void {
    switch (happening.kind) {
      case 'ready':
        this.#greeting = happening.greeting;
        this.#greeted?.resolve(happening.greeting);
        break;
      case 'event':
        for (const stream of [...this.#streams]) stream.push(happening.event);
        break;
      case 'answer':
        this.#waiting.get(happening.id)?.resolve(happening.value);
        break;
      case 'refusal': {
        const waiting = this.#waiting.get(happening.id);
        waiting?.reject(refused(waiting.command, happening.refusal));
        break;
      }
    }
  }

  #finish(reason: NetbusError): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    this.#socket.destroy();
    this.#greeted?.reject(reason);
    for (const { reject } of this.#waiting.values()) reject(reason);
    for (const stream of [...this.#streams]) stream.fail(reason);
  }

  /** What an operating system's error on the socket means for the user. */
  #explain(error: NodeJS.ErrnoException): NetbusError {
    const { path } = this;
    const advice = 'give QEMU one with -qmp unix:PATH,server=on,wait=off';
    switch (error.code) {
      case 'ENOENT':
      case 'ENOTDIR':
        return new NetbusError('not_found', `there is no QMP socket ${path}: ${advice}`, { cause: error });
      case 'ECONNREFUSED':
        return new NetbusError('unreachable', `nobody listens at ${path}: QEMU has ended, or it is no socket`, {
          cause: error,
        });
      case 'EACCES':
      case 'EPERM':
        return new NetbusError('denied', `you may not use the QMP socket ${path}: run this as its owner or as root`, {
          cause: error,
        });
      case 'EAGAIN':
        // The queue of connections that wait is full.
        return taken(path);
      case 'ECONNRESET':
      case 'EPIPE':
        return new NetbusError('ended', `QEMU closed its QMP socket ${path}: it has ended`, { cause: error });
      default:
        return new NetbusError('unreachable', `QMP socket ${path}: ${error.message}`, { cause: error });
    }
  }
}

/** Why QEMU refused a command, where that is what was thrown. */
export function refusalOf(thrown: unknown): QmpRefusal | undefined {
  return thrown instanceof QemuRefused ? thrown.refusal : undefined;
}

class QemuRefused extends NetbusError {
  readonly refusal: QmpRefusal;

  constructor(command: string, refusal: QmpRefusal) {
    super('device', `QEMU refused ${command}: ${refusal.description.trim().replace(/\s*\n\s*/g, ' ')}`);
    this.refusal = refusal;
  }
}

function refused(command: string, refusal: QmpRefusal): NetbusError {
  return new QemuRefused(command, refusal);
}

const SECOND_MONITOR = 'give QEMU a second one with -qmp unix:PATH,server=on,wait=off';

/** A monitor serves one client at a time; the others are accepted by the kernel and hear nothing. */
function silent(path: string, greetingMs: number): NetbusError {
  return new NetbusError(
    'timeout',
    `${path} did not greet within ${greetingMs / 1000} s: another program (libvirt, another netbus) has this monitor open, QEMU hangs, or it is no QMP socket; ${SECOND_MONITOR}`,
  );
}

function taken(path: string): NetbusError {
  return new NetbusError(
    'in_use',
    `${path} takes no more connections: other programs have this monitor open; ${SECOND_MONITOR}`,
  );
}
