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

/** Failed operations of one image: counted all, logged with a limit. */
export class FailureLog {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Per kind of operation: when it was last logged. */
  readonly #logged = new Map<string, number>();
  #count = 0;
  #unlogged = 0;

  constructor(path: string, clock: Clock, log: Log) {
    this.#path = path;
    this.#clock = clock;
    this.#log = log;
  }

  /** Failed operations since the image was opened. */
  get count(): number {
    return this.#count;
  }

  /** `errno` is positive; 0 stands for the end of the file. */
  report(operation: string, position: number, extent: number, errno: number): void {
    this.#count++;
    const last = this.#logged.get(operation);
    const now = this.#clock.now();
    if (last !== undefined && now - last < LOG_INTERVAL_MS) {
      this.#unlogged++;
      return;
    }
    this.#logged.set(operation, now);
    const error = errno === 0 ? 'end of file' : errorName(errno);
    const reason = errno === 0 ? 'the image is shorter than it was; make it as long as before' : advice[error];
    const place = operation === 'flush' ? operation : `${operation} of ${extent} bytes at ${position}`;
    this.#log.error(
      { path: this.#path, operation, position, extent, error, failures: this.#count, unlogged: this.#unlogged },
      `disk ${this.#path}: ${place} failed with ${error}${reason === undefined ? '' : `: ${reason}`}`,
    );
    this.#unlogged = 0;
  }
}

function errorName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}
