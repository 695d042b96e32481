/** The socket path that a VMM connects to. */
import { lstatSync, unlinkSync } from 'node:fs';
import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';

/** Bytes of a unix socket's path that the kernel has room for. */
const SOCKET_PATH_BYTES_MAX = 107;
/** Connections taken in one turn of the event loop. */
const ACCEPTS_PER_TURN_MAX = 16;

export interface ListenerOptions {
  readonly path: string;
  readonly mode: number;
  /** A connection; its descriptor is the receiver's now. */
  readonly onConnection: (fd: number) => void;
  /** The listener itself failed and takes nothing more. */
  readonly onError: (cause: NetbusError) => void;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #fd: number;
  readonly #watch: number;
  /** The file that is ours, so that another one at the same path is left alone. */
  readonly #inode: number;
  #paused = false;
  #closed = false;

  /** Throws `in_use` where a live process listens at the path or it is no socket, `usage` where it is too long. */
  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#fd = listen(options.path, options.mode);
    this.#inode = lstatSync(options.path).ino;
    this.#watch = native.watch(this.#fd, { readable: true, writable: false }, (error) => this.#event(error));
  }

  /** While paused, connections wait in the kernel's backlog. */
  pause(paused: boolean): void {
    if (this.#closed || this.#paused === paused) return;
    this.#paused = paused;
    native.rewatch(this.#watch, { readable: !paused, writable: false });
  }

  /** Stops listening and removes the path. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    native.unwatch(this.#watch);
    if (inodeOf(this.#options.path) === this.#inode) unlinkSync(this.#options.path);
    native.close(this.#fd);
  }

  #event(error: number): void {
    if (error < 0) {
      this.#options.onError(new NetbusError('device', `${this.#options.path}: the socket failed (errno ${-error})`));
      return;
    }
    for (let i = 0; i < ACCEPTS_PER_TURN_MAX && !this.#paused && !this.#closed; i++) {
      const fd = native.acceptConnection(this.#fd);
      if (fd < 0) return;
      this.#options.onConnection(fd);
    }
  }
}

function listen(path: string, mode: number): number {
  const length = Buffer.byteLength(path);
  if (length > SOCKET_PATH_BYTES_MAX) {
    throw new NetbusError(
      'usage',
      `${path}: a socket path has at most ${SOCKET_PATH_BYTES_MAX} bytes, this one has ${length}: use shorter names`,
    );
  }
  try {
    return native.listenUnix(path, mode);
  } catch (error) {
    if (!hasCode(error, 'EADDRINUSE')) throw cannotListen(path, error);
  }
  removeStale(path);
  try {
    return native.listenUnix(path, mode);
  } catch (error) {
    throw cannotListen(path, error);
  }
}

/** The socket file of a process that has died refuses connections; one that is alive takes them, or has a full backlog. */
function removeStale(path: string): void {
  if (!lstatSync(path).isSocket()) {
    throw new NetbusError('in_use', `${path}: there is a file that is no socket: remove it or choose another path`);
  }
  try {
    native.close(native.connectUnix(path));
  } catch (error) {
    if (hasCode(error, 'ECONNREFUSED')) {
      unlinkSync(path);
      return;
    }
    if (!hasCode(error, 'EAGAIN')) throw cannotListen(path, error);
  }
  throw new NetbusError('in_use', `${path}: another process listens on this socket`);
}

function cannotListen(path: string, cause: unknown): NetbusError {
  const message = cause instanceof Error ? cause.message : String(cause);
  if (hasCode(cause, 'EADDRINUSE'))
    return new NetbusError('in_use', `${path}: another process listens on this socket`, { cause });
  const code =
    hasCode(cause, 'EACCES') || hasCode(cause, 'EPERM') ? 'denied' : hasCode(cause, 'ENOENT') ? 'not_found' : 'device';
  return new NetbusError(code, `cannot listen on ${path}: ${message}`, { cause });
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function inodeOf(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.ino;
}
