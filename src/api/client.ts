/** Client of the control API: one HTTP request over the daemon's unix socket per call. */
import { statSync } from 'node:fs';
import { request } from 'node:http';
import { isErrorCode, NetbusError } from '../device/errors.ts';
import type {
  AttachmentEntry,
  AttachRequest,
  Devices,
  ExportEntry,
  ExportRequest,
  GrowResult,
  MemberProbe,
  Status,
} from './types.ts';

/** The daemon's run folder where nothing else is said. */
export const RUN_DIR_DEFAULT = '/run/netbus';

/** A unix socket's path, without the zero at its end. */
const SOCKET_PATH_BYTES_MAX = 107;

/** The daemon bounds its own work below this, so its answer says more than our timeout. */
const TIMEOUT_MS_DEFAULT = 60_000;

/** Far above the status of a full daemon (1024 attachments). */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;

/** The control socket in a run folder. */
export function controlSocket(runDir: string): string {
  return `${runDir.replace(/\/+$/, '')}/netbus.sock`;
}

export interface ControlClientOptions {
  readonly socketPath: string;
  readonly timeoutMs?: number;
}

/** Every call rejects with a NetbusError alone: the daemon's own, or one that says why the daemon did not answer. */
export class ControlClient {
  readonly #socketPath: string;
  readonly #timeoutMs: number;

  constructor(options: ControlClientOptions) {
    this.#socketPath = options.socketPath;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS_DEFAULT;
  }

  status(): Promise<Status> {
    return this.#call('GET', '/v1/status');
  }

  /** `withinMs`: hosts that do not answer so soon are left to the warnings. */
  devices({ withinMs }: { withinMs?: number } = {}): Promise<Devices> {
    return this.#call('GET', `/v1/devices${withinMs === undefined ? '' : `?withinMs=${withinMs}`}`);
  }

  /** The other members, asked now. */
  probe(): Promise<{ members: MemberProbe[] }> {
    return this.#call('GET', '/v1/probe');
  }

  export(body: ExportRequest): Promise<ExportEntry> {
    return this.#call('POST', '/v1/exports', body);
  }

  unexport(name: string): Promise<void> {
    return this.#call('DELETE', `/v1/exports/${encodeURIComponent(name)}`);
  }

  attach(body: AttachRequest): Promise<AttachmentEntry> {
    return this.#call('POST', '/v1/attachments', body);
  }

  detach(vm: string, name: string, { force = false } = {}): Promise<{ warnings: string[] }> {
    return this.#call('DELETE', `${attachmentPath(vm, name)}${force ? '?force=true' : ''}`);
  }

  grow(vm: string, name: string): Promise<GrowResult> {
    return this.#call('POST', `${attachmentPath(vm, name)}/grow`);
  }

  async #call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    if (Buffer.byteLength(this.#socketPath) > SOCKET_PATH_BYTES_MAX) {
      throw new NetbusError(
        'usage',
        `the control socket's path ${this.#socketPath} is longer than the ${SOCKET_PATH_BYTES_MAX} bytes of a unix socket: use a shorter run folder`,
      );
    }
    const { status, text } = await this.#exchange(method, path, body === undefined ? undefined : JSON.stringify(body));
    return this.#decode(status, text) as Answer;
  }

  #exchange(method: string, path: string, body: string | undefined): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => {
        clearTimeout(timer);
        call.destroy();
        reject(this.#explain(error));
      };
      const call = request({
        socketPath: this.#socketPath,
        method,
        path,
        agent: false,
        headers: {
          host: 'netbus',
          ...(body !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        },
      });
      const timer = setTimeout(
        () =>
          fail(new NetbusError('timeout', `the daemon at ${this.#socketPath} took longer than ${this.#timeoutMs / 1000} s`)),
        this.#timeoutMs,
      );
      call.on('error', fail);
      call.on('response', (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('error', fail);
        response.on('data', (chunk: string) => {
          text += chunk;
          if (text.length > ANSWER_BYTES_MAX) fail(this.#notNetbus('its answer does not end'));
        });
        response.on('end', () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, text });
        });
      });
      call.end(body);
    });
  }

  #decode(status: number, text: string): unknown {
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      throw this.#notNetbus(`it answered ${status} without JSON`);
    }
    if (status >= 200 && status < 300) return answer;
    const { code, message } = (answer as { error?: { code?: unknown; message?: unknown } } | null)?.error ?? {};
    if (typeof message !== 'string') throw this.#notNetbus(`it answered ${status} without an error`);
    // A newer daemon may have codes that this release does not know.
    throw new NetbusError(isErrorCode(code) ? code : 'internal', message);
  }

  /** What an operating system's error on the socket means for the user. */
  #explain(error: NodeJS.ErrnoException): NetbusError {
    if (error instanceof NetbusError) return error;
    switch (error.code) {
      case 'ECONNREFUSED':
        // The kernel says the same of a file that is no socket.
        if (!isSocket(this.#socketPath)) {
          return new NetbusError(
            'unreachable',
            `${this.#socketPath} is not a socket: name the daemon's with --socket, or its folder with --run-dir or NETBUS_RUN_DIR`,
            { cause: error },
          );
        }
        return new NetbusError(
          'unreachable',
          `no daemon listens at ${this.#socketPath} any more: start it again with "netbus daemon --config FILE"`,
          { cause: error },
        );
      case 'ENOENT':
      case 'ENOTDIR':
        return new NetbusError(
          'unreachable',
          `no daemon listens at ${this.#socketPath}: start it with "netbus daemon --config FILE", or name its folder with --run-dir or NETBUS_RUN_DIR`,
          { cause: error },
        );
      case 'EACCES':
      case 'EPERM':
        return new NetbusError(
          'denied',
          `you may not use the daemon's socket ${this.#socketPath}: run this as root, or as a user of the group netbus ("usermod -aG netbus USER" as root, then log in anew)`,
          { cause: error },
        );
      case 'ECONNRESET':
      case 'EPIPE':
        return new NetbusError('unreachable', `the daemon at ${this.#socketPath} ended before it answered: see its log`, {
          cause: error,
        });
      default:
        return this.#notNetbus(error.message);
    }
  }

  #notNetbus(detail: string): NetbusError {
    return new NetbusError('protocol', `what listens at ${this.#socketPath} does not speak Netbus's control API: ${detail}`);
  }
}

function isSocket(path: string): boolean {
  try {
    return statSync(path).isSocket();
  } catch {
    return true;
  }
}

function attachmentPath(vm: string, name: string): string {
  return `/v1/attachments/${encodeURIComponent(vm)}/${encodeURIComponent(name)}`;
}
