/** Client of the control API: one HTTP request over the daemon's unix socket per call. */
import { statSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { isErrorCode, NetbusError } from '../device/errors.ts';
import type { EventEntry, EventHistory } from './events.ts';
import type { JobChange, JobEntry, JobList, SwapRequest } from './jobs.ts';
import type {
  FollowRequest,
  FollowResult,
  MigrationPhase,
  MigrationPreparation,
  MigrationProgressEntry,
  MigrationReport,
  MigrationRequest,
  Switchover,
} from './migration.ts';
import type {
  AddressResult,
  AttachmentEntry,
  AttachRequest,
  BusAttachments,
  Devices,
  EvictResult,
  ExportEntry,
  ExportRequest,
  FenceCheck,
  FenceResult,
  GrowResult,
  Invitation,
  InvitationRequest,
  MemberProbe,
  Members,
  PreparationRequest,
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

/** An event is far shorter. */
const WATCH_LINE_CHARACTERS_MAX = 64 * 1024;

/** How often `onWaiting` is told. */
const WAITING_MS = 1_000;

export interface EventFilter {
  /** ISO time. */
  since?: string;
  limit?: number;
  type?: string;
}

/** The control socket in a run folder. */
export function controlSocket(runDir: string): string {
  return `${runDir.replace(/\/+$/, '')}/netbus.sock`;
}

export interface ControlClientOptions {
  readonly socketPath: string;
  readonly timeoutMs?: number;
  /** Told each second while an answer is waited for, and once without a time when that is over. */
  readonly onWaiting?: (elapsedMs?: number) => void;
}

/** Every call rejects with a NetbusError alone: the daemon's own, or one that says why the daemon did not answer. */
export class ControlClient {
  readonly #socketPath: string;
  readonly #timeoutMs: number;
  readonly #onWaiting: (elapsedMs?: number) => void;

  constructor(options: ControlClientOptions) {
    this.#socketPath = options.socketPath;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS_DEFAULT;
    this.#onWaiting = options.onWaiting ?? (() => {});
  }

  status(): Promise<Status> {
    return this.#call('GET', '/v1/status');
  }

  /** `withinMs`: hosts that do not answer so soon count as away. */
  devices({ details = false, withinMs }: { details?: boolean; withinMs?: number } = {}): Promise<Devices> {
    const query = new URLSearchParams({
      ...(details && { details: 'true' }),
      ...(withinMs !== undefined && { withinMs: String(withinMs) }),
    });
    return this.#call('GET', `/v1/devices${query.size === 0 ? '' : `?${query}`}`);
  }

  events(filter: EventFilter = {}): Promise<EventHistory> {
    return this.#call('GET', eventsPath(filter));
  }

  /** Tells of each event from now on, and before that of those that `filter` names. Never resolves; rejects when the daemon ends, or ends it. */
  async watchEvents(filter: EventFilter, onEvent: (entry: EventEntry) => void): Promise<never> {
    const response = await this.#exchange('GET', eventsPath(filter, true), undefined, (started) => started);
    const status = response.statusCode ?? 0;
    let text = '';
    try {
      for await (const chunk of response.setEncoding('utf8')) {
        text += chunk;
        if (status !== 200) continue;
        const lines = text.split('\n');
        text = lines.pop()!;
        for (const line of lines) onEvent(this.#decodeLine(line));
        if (text.length > WATCH_LINE_CHARACTERS_MAX) throw this.#notNetbus('a line of its answer does not end');
      }
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ECONNRESET') throw this.#explain(thrown as Error);
    }
    if (status !== 200) this.#decode(status, text);
    throw new NetbusError('unreachable', `the daemon at ${this.#socketPath} has ended: start it, and watch again`);
  }

  /** The other members, asked now. */
  probe(): Promise<{ members: MemberProbe[] }> {
    return this.#call('GET', '/v1/probe');
  }

  export(body: ExportRequest): Promise<ExportEntry> {
    return this.#call('POST', '/v1/exports', body);
  }

  /** Opens an export anew, as another instance. */
  reopen(name: string): Promise<ExportEntry> {
    return this.#call('POST', `/v1/exports/${encodeURIComponent(name)}/reopen`);
  }

  unexport(name: string): Promise<void> {
    return this.#call('DELETE', `/v1/exports/${encodeURIComponent(name)}`);
  }

  attach(body: AttachRequest): Promise<AttachmentEntry> {
    return this.#call('POST', '/v1/attachments', body);
  }

  /** All that there are, as the hosts of the devices say. */
  busAttachments(): Promise<BusAttachments> {
    return this.#call('GET', '/v1/attachments');
  }

  /** Rejects as `fence` would at once, and changes nothing. */
  checkFence(host: string): Promise<FenceCheck> {
    return this.#call('GET', `/v1/hosts/${encodeURIComponent(host)}/fence`);
  }

  fence(host: string): Promise<FenceResult> {
    return this.#call('POST', `/v1/hosts/${encodeURIComponent(host)}/fence`);
  }

  detach(vm: string, name: string, { force = false } = {}): Promise<{ warnings: string[] }> {
    return this.#call('DELETE', `${attachmentPath(vm, name)}${force ? '?force=true' : ''}`);
  }

  prepare(vm: string, request: PreparationRequest): Promise<{ attachments: AttachmentEntry[] }> {
    return this.#call('POST', `/v1/vms/${encodeURIComponent(vm)}/preparation`, request);
  }

  unprepare(vm: string): Promise<object> {
    return this.#call('DELETE', `/v1/vms/${encodeURIComponent(vm)}/preparation`);
  }

  grow(vm: string, name: string): Promise<GrowResult> {
    return this.#call('POST', `${attachmentPath(vm, name)}/grow`);
  }

  /** Resolves when the job has begun; it goes on by itself. */
  swap(vm: string, name: string, body: SwapRequest): Promise<JobEntry> {
    return this.#call('POST', `${attachmentPath(vm, name)}/swap`, body);
  }

  jobs(): Promise<JobList> {
    return this.#call('GET', '/v1/jobs');
  }

  job(id: string): Promise<JobEntry> {
    return this.#call('GET', jobPath(id));
  }

  changeJob(id: string, change: JobChange): Promise<JobEntry> {
    return this.#call('PATCH', jobPath(id), change);
  }

  /** Resolves when everything is undone; where that takes long, while it is. */
  cancelJob(id: string): Promise<JobEntry> {
    return this.#call('POST', `${jobPath(id)}/cancellation`);
  }

  /** Checks whether a VM's devices can go to another host, and unless `check` is set has them made ready there. */
  beginMigration(vm: string, body: MigrationRequest): Promise<MigrationPreparation> {
    return this.#call('POST', migrationPath(vm), body);
  }

  /** `undo`: the VM stays here, and what was made ready is taken back. */
  async endMigration(vm: string, to: string, { undo }: { undo: boolean }): Promise<void> {
    await this.#call('DELETE', `${migrationPath(vm)}?${new URLSearchParams({ to, undo: String(undo) })}`);
  }

  migrationReport(vm: string, to: string): Promise<MigrationReport> {
    return this.#call('GET', `${migrationPath(vm)}?${new URLSearchParams({ to })}`);
  }

  /** After the migration: has the VM's new host start the jobs with which devices follow it. */
  followMigration(vm: string, body: FollowRequest): Promise<FollowResult> {
    return this.#call('POST', `${migrationPath(vm)}/follow`, body);
  }

  /** Where a migration is; rejects with `not_found` where no command is at one. */
  migrationProgress(vm: string): Promise<MigrationProgressEntry> {
    return this.#call('GET', `${migrationPath(vm)}/progress`);
  }

  /** Says where it is, and hears whether it is to be cancelled. */
  tellMigration(vm: string, phase: MigrationPhase): Promise<MigrationProgressEntry> {
    return this.#call('PUT', `${migrationPath(vm)}/progress`, { phase });
  }

  /** Asks the command that migrates a VM to cancel. */
  cancelMigration(vm: string): Promise<MigrationProgressEntry> {
    return this.#call('POST', `${migrationPath(vm)}/cancellation`);
  }

  switchover(vm: string): Promise<Switchover> {
    return this.#call('GET', `/v1/vms/${encodeURIComponent(vm)}/switchover`);
  }

  members(): Promise<Members> {
    return this.#call('GET', '/v1/members');
  }

  invite(body: InvitationRequest): Promise<Invitation> {
    return this.#call('POST', '/v1/invitations', body);
  }

  setAddress(host: string, address: string): Promise<AddressResult> {
    return this.#call('PATCH', `/v1/members/${encodeURIComponent(host)}`, { address });
  }

  /** Rejects as `evict` would, and changes nothing. */
  async checkEvict(host: string): Promise<void> {
    await this.#call('GET', `/v1/members/${encodeURIComponent(host)}/eviction`);
  }

  evict(host: string): Promise<EvictResult> {
    return this.#call('DELETE', `/v1/members/${encodeURIComponent(host)}`);
  }

  async #call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await this.#exchange(method, path, text, readAll);
    return this.#decode(response.status, response.text) as Answer;
  }

  /** Resolves with what `read` makes of the response, within the time that an answer has; rejects with what is wrong in words. */
  #exchange<Read>(
    method: string,
    path: string,
    body: string | undefined,
    read: (response: IncomingMessage) => Read | Promise<Read>,
  ): Promise<Read> {
    if (Buffer.byteLength(this.#socketPath) > SOCKET_PATH_BYTES_MAX) {
      throw new NetbusError(
        'usage',
        `the control socket's path ${this.#socketPath} is longer than the ${SOCKET_PATH_BYTES_MAX} bytes of a unix socket: use a shorter run folder`,
      );
    }
    return new Promise((resolve, reject) => {
      const begun = Date.now();
      const waiting = setInterval(() => this.#onWaiting(Date.now() - begun), WAITING_MS);
      const over = () => {
        clearTimeout(timer);
        clearInterval(waiting);
        this.#onWaiting();
      };
      const fail = (error: Error) => {
        over();
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
      call.on('response', async (response) => {
        try {
          const result = await read(response);
          over();
          resolve(result);
        } catch (thrown) {
          fail(thrown as Error);
        }
      });
      call.end(body);
    });
  }

  /** A line of a watch: an event, or the reason why it was the last one. */
  #decodeLine(line: string): EventEntry {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw this.#notNetbus('a line of its answer is not JSON');
    }
    const { error } = value as { error?: { code?: unknown; message?: unknown } };
    if (error === undefined) return value as EventEntry;
    throw new NetbusError(isErrorCode(error.code) ? error.code : 'internal', String(error.message));
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
          `no daemon listens at ${this.#socketPath} any more: start it again (systemctl start netbusd, or netbus daemon)`,
          { cause: error },
        );
      case 'ENOENT':
      case 'ENOTDIR':
        return new NetbusError(
          'unreachable',
          `no daemon listens at ${this.#socketPath}: start it (systemctl start netbusd, or netbus daemon; before that "netbus init" or "netbus join TOKEN"), or name its folder with --run-dir or NETBUS_RUN_DIR`,
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

function jobPath(id: string): string {
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

function migrationPath(vm: string): string {
  return `/v1/vms/${encodeURIComponent(vm)}/migration`;
}

function eventsPath({ since, limit, type }: EventFilter, watch = false): string {
  const query = new URLSearchParams();
  if (since !== undefined) query.set('since', since);
  if (limit !== undefined) query.set('limit', String(limit));
  if (type !== undefined) query.set('type', type);
  if (watch) query.set('watch', 'true');
  return query.size === 0 ? '/v1/events' : `/v1/events?${query}`;
}

async function readAll(response: IncomingMessage): Promise<{ status: number; text: string }> {
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) {
    text += chunk;
    if (text.length > ANSWER_BYTES_MAX) throw new Error('its answer does not end');
  }
  return { status: response.statusCode ?? 0, text };
}
