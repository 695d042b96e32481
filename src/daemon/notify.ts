/**
 * What the daemon tells the service manager that started it (sd_notify(3)): that it can be asked, what it does, that it is
 * alive, that it ends. Without a service manager all of it is nothing.
 */
import { native } from '../../native/index.ts';
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';

/** Longer ones are cut: it is one line of `systemctl status`. */
const STATUS_CHARACTERS_MAX = 512;
/** A watchdog that wants to hear less often hears from us this often, because timers end at 24 days. */
const WATCHDOG_INTERVAL_MS_MAX = 3_600_000;

export interface ServiceManagerOptions {
  /** NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are read; usually process.env. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Of this process. */
  readonly pid: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Sends a datagram to a unix socket, "@" standing for an abstract one; throws where it cannot. */
  readonly send?: (path: string, datagram: Uint8Array) => void;
  /** Microseconds of CLOCK_MONOTONIC, which the service manager compares with its own. */
  readonly monotonicMicroseconds?: () => bigint;
}

/**
 * The service manager, as the daemon sees it. No call waits or throws: a service manager that does not listen must not keep a
 * disk from its guest.
 */
export class ServiceManager {
  readonly #socket: string | undefined;
  readonly #watchdogMs: number | undefined;
  readonly #options: ServiceManagerOptions;
  #stopWatchdog: (() => void) | undefined;
  #failed = false;

  constructor(options: ServiceManagerOptions) {
    const { environment, pid, log } = options;
    this.#options = options;
    this.#socket = socketOf(environment, log);
    this.#watchdogMs = this.#socket === undefined ? undefined : watchdogInterval(environment, pid);
  }

  /** One line on what the daemon does now, for `systemctl status`. */
  status(text: string): void {
    this.#send(statusField(text));
  }

  /** The daemon can be asked. From now on the watchdog hears from the event loop, for as long as that turns. */
  ready(status: string): void {
    this.#send('READY=1', statusField(status));
    if (this.#stopWatchdog === undefined) this.#beat();
  }

  /**
   * Does `reload`, and says before that it begins and after that it is over, also where it failed. Returns what it returns, throws
   * what it throws.
   */
  async duringReload<Result>(reload: () => Promise<Result>): Promise<Result> {
    const now = this.#options.monotonicMicroseconds?.() ?? process.hrtime.bigint() / 1000n;
    this.#send('RELOADING=1', `MONOTONIC_USEC=${now}`);
    try {
      return await reload();
    } finally {
      this.#send('READY=1');
    }
  }

  /** The daemon has begun to end. The watchdog goes on until `close`, because an end can hang, too. */
  stopping(status: string): void {
    this.#send('STOPPING=1', statusField(status));
  }

  /** Lets the watchdog go. Twice is once. */
  close(): void {
    this.#stopWatchdog?.();
    this.#stopWatchdog = undefined;
  }

  #beat(): void {
    if (this.#watchdogMs === undefined) return;
    this.#send('WATCHDOG=1');
    // A timer of the event loop and nothing else: where the loop hangs, so does this.
    this.#stopWatchdog = this.#options.clock.after(this.#watchdogMs, () => this.#beat());
  }

  #send(...fields: string[]): void {
    if (this.#socket === undefined) return;
    const { send = sendDatagram, log } = this.#options;
    try {
      send(this.#socket, Buffer.from(`${fields.join('\n')}\n`));
      this.#failed = false;
    } catch (error) {
      // Said once, and not with each beat of the watchdog.
      const { message: reason } = NetbusError.from(error);
      if (!this.#failed) log.warn({ socket: this.#socket, reason }, 'the service manager does not hear');
      this.#failed = true;
    }
  }
}

function socketOf({ NOTIFY_SOCKET: socket }: ServiceManagerOptions['environment'], log: Log): string | undefined {
  if (!socket) return undefined;
  if (/^(?:\/.|@.)/.test(socket)) return socket;
  log.warn({ socket }, 'NOTIFY_SOCKET is neither a path nor an abstract name: the service manager hears nothing');
  return undefined;
}

/** Half of the time after which we are taken for dead, as sd_watchdog_enabled(3) recommends. Undefined: there is no watchdog for us. */
function watchdogInterval(environment: ServiceManagerOptions['environment'], pid: number): number | undefined {
  const { WATCHDOG_USEC: microseconds = '', WATCHDOG_PID: watched } = environment;
  if (!/^[1-9]\d*$/.test(microseconds) || (watched && watched !== String(pid))) return undefined;
  return Math.min(Number(microseconds) / 2_000, WATCHDOG_INTERVAL_MS_MAX);
}

/** One line: what comes after a line's end would be another field. */
function statusField(text: string): string {
  return `STATUS=${text.replace(/\s+/g, ' ').trim().slice(0, STATUS_CHARACTERS_MAX)}`;
}

function sendDatagram(path: string, datagram: Uint8Array): void {
  native.sendDatagram(path, datagram, 0, datagram.length);
}
