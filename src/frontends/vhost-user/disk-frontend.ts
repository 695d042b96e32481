/** What a VMM plugs a disk into: a vhost-user socket, before a Source. */

import { native } from '../../../native/index.ts';
import { NetbusError } from '../../device/errors.ts';
import type { Source } from '../../device/source.ts';
import { BUSY_POLL_US_DEFAULT, BusyPoll } from '../../lib/busy-poll.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { diskFeatureNames } from '../../protocols/virtio-blk/index.ts';
import type { DirtyLog } from './dirty-log.ts';
import { DiskModel, type WriteCache } from './disk-model.ts';
import { DiskStatistics } from './disk-statistics.ts';
import { type Left, LeftRequests } from './left-requests.ts';
import { Listener } from './listener.ts';
import type { Ring, RingState } from './ring.ts';
import { type RingsStart, type RingsStop, RingTimes } from './ring-times.ts';
import { Session } from './session.ts';

/** How long a VMM that stops its rings may be kept waiting, in all. */
export const QUIESCE_MS_MAX = 10_000;
/** Owner and group may connect: the VMM runs as another user of the device's group. */
const SOCKET_MODE = 0o660;

export interface DiskFrontendOptions {
  /** Of the socket; its directory exists. At most 107 bytes. */
  readonly path: string;
  /** Permissions of the socket; SOCKET_MODE by default. */
  readonly mode?: number;
  /** Of the file in which requests in flight are noted; on tmpfs, in a directory that exists. It stays when the frontend is closed. */
  readonly inflightPath: string;
  readonly source: Source;
  /** Most requests of the guest that are held at a time. */
  readonly depth: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Longest time awake for the guest's next request, in microseconds; 0: never. BUSY_POLL_US_DEFAULT by default. */
  readonly busyPollUs?: number;
  /** The bound of GET_VRING_BASE; QUIESCE_MS_MAX by default. */
  readonly quiesceMsMax?: number;
  /** Whether a live migration is offered; false by default, and the VMM refuses one. */
  readonly migratable?: boolean;
  /** A VMM has connected, or has gone and left nothing behind in its guest. */
  readonly onConnection?: (connected: boolean) => void;
  /** The driver's last choice, as it was recorded; true = write-back. */
  readonly writeCache?: boolean;
  /** What connections of before left behind, as `left` said at the end; `nothing` by default. */
  readonly left?: Left;
  /** The driver chose: to be recorded, as the VMM does not say it again. */
  readonly onWriteCache?: (enabled: boolean) => void;
}

export interface RingStatus {
  readonly index: number;
  readonly state: RingState['name'];
  readonly enabled: boolean;
  readonly size: number;
  /** Why the ring is broken. */
  readonly reason?: string;
  /** What a ring that is waiting cannot start without. */
  readonly waitsFor?: 'memory' | 'hand-over';
}

export interface DiskFrontendStatus {
  readonly path: string;
  readonly connected: boolean;
  /** Process of the VMM, as it was when it connected. */
  readonly vmm?: { readonly pid: number; readonly uid: number };
  readonly inFlight: number;
  readonly writeCache: boolean;
  /** When all rings last were stopped by a VMM that stayed; left out once one of them has begun again. */
  readonly lastStop?: RingsStop;
  /** When the first ring last began. */
  readonly lastStart?: RingsStart;
  /** The rest is there while a VMM is connected. */
  readonly features?: readonly string[];
  readonly featureBits?: string;
  readonly protocolFeatureBits?: string;
  readonly memoryRegions?: number;
  /** The VMM keeps a region of what is in flight: this process may be killed at any time. */
  readonly tracked?: boolean;
  readonly rings?: readonly RingStatus[];
}

/** The VMM that is connected, or that has just gone. */
interface Connection {
  readonly session: Session<DiskModel>;
  readonly model: DiskModel;
  readonly vmm: { pid: number; uid: number };
}

export class DiskFrontend {
  /** Since the frontend was made, over all connections. */
  readonly statistics = new DiskStatistics();
  readonly #options: DiskFrontendOptions;
  readonly #listener: Listener;
  readonly #writeCache: WriteCache;
  readonly #left: LeftRequests;
  readonly #times: RingTimes;
  #connection: Connection | undefined;
  /** Came while the one before was being put in order. */
  #waiting: number | undefined;
  /** The device of the last connection is closed. */
  #previous: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  /** Listens. Throws a NetbusError: `in_use` where somebody else does, `usage`, `denied`, `not_found` for a path that cannot be used. */
  constructor(options: DiskFrontendOptions) {
    this.#options = options;
    this.#writeCache = { enabled: options.writeCache ?? true, onChange: (enabled) => options.onWriteCache?.(enabled) };
    this.#left = new LeftRequests(options.source.profile.queues, options.left ?? 'nothing');
    this.#times = new RingTimes(options.clock);
    this.#listener = new Listener({
      path: options.path,
      mode: options.mode ?? SOCKET_MODE,
      onConnection: (fd) => this.#connected(fd),
      onError: (cause) => options.log.error({ code: cause.code }, cause.message),
    });
  }

  /** What connections that have ended left behind: to be recorded for a later frontend of the same guest. */
  get left(): Left {
    return this.#left.worst;
  }

  /** The driver chose elsewhere, and the VMM does not say it again. */
  chooseWriteCache(enabled: boolean): void {
    this.#writeCache.enabled = enabled;
    this.#connection?.model.writeCacheChosen();
  }

  /** The source's capacity has changed: the guest is told. */
  profileChanged(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    connection.model.profileChanged(this.#options.source.profile);
    connection.session.configChanged();
  }

  status(): DiskFrontendStatus {
    const { path } = this.#options;
    const { lastStop, lastStart } = this.#times;
    const writeCache = this.#writeCache.enabled;
    const always = { path, writeCache, ...(lastStop && { lastStop }), ...(lastStart && { lastStart }) };
    const connection = this.#connection;
    if (connection === undefined) return { ...always, connected: false, inFlight: 0 };
    const { session, model, vmm } = connection;
    return {
      ...always,
      connected: !session.ending,
      vmm,
      inFlight: model.inFlight,
      features: diskFeatureNames(session.features),
      featureBits: `0x${session.features.toString(16)}`,
      protocolFeatureBits: `0x${session.protocolFeatures.toString(16)}`,
      memoryRegions: session.memoryRegions,
      tracked: session.tracked,
      rings: session.rings.map(({ index, state, enabled, size }) => ({
        index,
        state: state.name,
        enabled,
        size,
        ...(state.name === 'broken' && { reason: state.reason }),
        ...(state.name === 'waiting' && { waitsFor: state.for }),
      })),
    };
  }

  /** Sends the VMM away and removes the socket. Resolves when the device is closed; twice is once. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#listener.close();
    if (this.#waiting !== undefined) native.close(this.#waiting);
    this.#waiting = undefined;
    await this.#connection?.session.end(new NetbusError('ended', 'the virtual device is closed'));
    await this.#previous;
  }

  #connected(fd: number): void {
    // The one before may have gone in this very moment.
    this.#connection?.session.poll();
    const connection = this.#connection;
    if (connection === undefined) {
      this.#begin(fd);
    } else if (connection.session.ending && this.#waiting === undefined) {
      this.#waiting = fd;
      this.#listener.pause(true);
    } else {
      const { pid } = native.peerCredentials(fd);
      this.#options.log.warn(
        { pid, connectedPid: connection.vmm.pid },
        `process ${pid} is refused: process ${connection.vmm.pid} is connected to ${this.#options.path}`,
      );
      native.close(fd);
    }
  }

  #begin(fd: number): void {
    const { source, depth, clock, log, quiesceMsMax = QUIESCE_MS_MAX, onConnection } = this.#options;
    const { busyPollUs: maxUs = BUSY_POLL_US_DEFAULT } = this.#options;
    const { pid, uid } = native.peerCredentials(fd);
    log.info({ pid, uid }, `a VMM has connected (process ${pid})`);
    const previous = this.#previous;
    const requestPoll = new BusyPoll({ clock, maxUs, stayAwake: (microseconds) => native.busyPoll(microseconds) });
    const model = (rings: readonly Ring[], dirtyLog: DirtyLog) =>
      new DiskModel({
        source,
        depth,
        rings,
        dirtyLog,
        clock,
        log,
        requestPoll,
        statistics: this.statistics,
        writeCache: this.#writeCache,
        left: this.#left,
        quiesceMsMax,
        times: this.#times,
        previous,
      });
    const session = new Session({
      fd,
      queues: source.profile.queues,
      log,
      inflightPath: this.#options.inflightPath,
      migratable: this.#options.migratable ?? false,
      times: this.#times,
      clock,
      makeModel: model,
      onEnding: () => this.#listener.pause(true),
      onEnded: () => this.#ended(),
    });
    this.#connection = { session, model: session.model, vmm: { pid, uid } };
    onConnection?.(true);
  }

  #ended(): void {
    this.#previous = this.#connection!.model.closed;
    this.#connection = undefined;
    this.#options.onConnection?.(false);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) this.#begin(waiting);
    this.#listener.pause(false);
  }
}

/** Listens on the socket and serves one VMM after the other. See the class for what it throws. */
export function createDiskFrontend(options: DiskFrontendOptions): DiskFrontend {
  return new DiskFrontend(options);
}
