import { getSystemErrorName } from 'node:util';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';

/** At most one line about each kind of operation in this time: a broken disk must not fill the log's disk as well. */
const LOG_INTERVAL_MS = 10_000;

const advice: Readonly<Record<string, string>> = {
  ENOSPC: 'the filesystem is full; free space there, the disk works again at once',
  EDQUOT: "the owner's quota is used up; raise it, the disk works again at once",
  EIO: 'the storage below failed; look into the kernel log (dmesg)',
  EROFS: 'the filesystem became read-only; look into the kernel log (dmesg)',
  EINVAL: 'the storage refuses the request as it is; with direct I/O it may not be aligned to its blocks',
  ESTALE: 'the file is gone from its server; export it again',
  ENODEV: 'the device was removed; plug it in and export it again',
  ENXIO: 'the device was removed; plug it in and export it again',
};

/** A failure that was logged. */
export interface Failure {
  readonly operation: string;
  /** The system's name: `ENOSPC`; `end of file` where the image is shorter than it was. */
  readonly error: string;
  /** What failed, where, and what to do, in one line. */
  readonly message: string;
  /** Failed operations since the image was opened. */
  readonly failures: number;
}

/** Failed operations of one image: counted all, logged with a limit. */
export class FailureLog {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onLogged: (failure: Failure) => void;
  /** Per kind of operation: when it was last logged. */
  readonly #logged = new Map<string, number>();
  /** The latest one, as numbers: a broken disk may fail many thousand times a second. */
  readonly #last = { operation: '', position: 0, extent: 0, errno: 0, at: 0 };
  #count = 0;
  #unlogged = 0;

  constructor(path: string, clock: Clock, log: Log, onLogged: (failure: Failure) => void = () => {}) {
    this.#path = path;
    this.#clock = clock;
    this.#log = log;
    this.#onLogged = onLogged;
  }

  /** Failed operations since the image was opened. */
  get count(): number {
    return this.#count;
  }

  /** The latest failure in one line, with its time; undefined where there was none. */
  get last(): string | undefined {
    if (this.#count === 0) return undefined;
    return `${this.#describeLast()} (${new Date(this.#last.at).toISOString()}; ${this.#count} in all)`;
  }

  /** `errno` is positive; 0 stands for the end of the file. */
  report(operation: string, position: number, extent: number, errno: number): void {
    this.#count++;
    this.#last.operation = operation;
    this.#last.position = position;
    this.#last.extent = extent;
    this.#last.errno = errno;
    this.#last.at = this.#clock.wallTime();
    const logged = this.#logged.get(operation);
    const now = this.#clock.now();
    if (logged !== undefined && now - logged < LOG_INTERVAL_MS) {
      this.#unlogged++;
      return;
    }
    this.#logged.set(operation, now);
    const error = errorName(errno);
    this.#log.error(
      { path: this.#path, operation, position, extent, error, failures: this.#count, unlogged: this.#unlogged },
      `disk ${this.#path}: ${this.#describeLast()}`,
    );
    this.#unlogged = 0;
    this.#onLogged({ operation, error, message: this.#describeLast(), failures: this.#count });
  }

  #describeLast(): string {
    const { operation, position, extent, errno } = this.#last;
    const error = errorName(errno);
    const reason = errno === 0 ? 'the image is shorter than it was; make it as long as before' : advice[error];
    const place = operation === 'flush' ? operation : `${operation} of ${extent} bytes at ${position}`;
    return `${place} failed with ${error}${reason === undefined ? '' : `: ${reason}`}`;
  }
}

function errorName(errno: number): string {
  if (errno === 0) return 'end of file';
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}
