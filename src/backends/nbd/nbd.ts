/**
 * The NBD backend: an export of an NBD server, which may be a qcow2 image behind qemu-nbd, or whatever nbdkit has a plugin for. This file opens
 * it and gives a Device for each use; `connection.ts` and `nbd-device.ts` do the work.
 *
 * An opening is one connection. What was acknowledged and not flushed may be in the memory of a server that is gone when the connection is: so
 * each opening is another instance, and a connection that is lost is the end of it.
 */
import { randomUUID } from 'node:crypto';
import { native } from '../../../native/index.ts';
import type { Device } from '../../device/device.ts';
import { NetbusError } from '../../device/errors.ts';
import type { DiskProfile } from '../../device/profile.ts';
import type { BackendSource } from '../../device/source.ts';
import { within } from '../../lib/abort.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { TransmissionFlag } from '../../protocols/nbd/constants.ts';
import type { NbdExport } from '../../protocols/nbd/negotiation.ts';
import { type NbdTarget, parseNbdUri } from '../../protocols/nbd/uri.ts';
import { type Failure, FailureLog } from '../disk/failure-log.ts';
import { type Connected, connectNbd } from './connect.ts';
import { type Loss, NbdConnection } from './connection.ts';
import { ExportState } from './export-state.ts';
import { NbdDevice } from './nbd-device.ts';
import { nbdProfile } from './profile.ts';

/** A server that is back is found within this time. */
const RETRY_MS = 500;
/** A server that says nothing for so long is told of; it is waited for all the same. */
const SILENT_MS_MAX = 10_000;

export interface NbdSourceOptions {
  /** See parseNbdUri. */
  readonly uri: string;
  readonly readOnly?: boolean;
  /** Request queues offered to the guest, 1 to 16; by default one a CPU, 4 at most. */
  readonly queues?: number;
  /** A server that is not there is waited for until this aborts, instead of `unreachable` at once. */
  readonly waitForServer?: { readonly signal: AbortSignal; readonly onWaiting?: (reason: string) => void };
  readonly clock: Clock;
  readonly log: Log;
  /** A flush failed, so all further ones do, until the export is opened anew. */
  readonly onFlushFailed?: () => void;
  /** Operations fail: told as often as it is logged. */
  readonly onFailure?: (failure: Failure) => void;
  /** The connection is gone, and all devices with it: told once. */
  readonly onLost?: (loss: Loss) => void;
}

/** Connects with the server. Throws a NetbusError that says in one line what is wrong and what to do. */
export async function openNbdSource(options: NbdSourceOptions): Promise<BackendSource> {
  const target = parseNbdUri(options.uri);
  const { fd, served } = await connectInTime(target, options);
  try {
    const profile = nbdProfile(target, served, options.readOnly ?? false, options.queues);
    return new NbdSource(target, { fd, served }, profile, options);
  } catch (thrown) {
    native.close(fd);
    throw thrown;
  }
}

async function connectInTime(target: NbdTarget, { waitForServer, clock }: NbdSourceOptions): Promise<Connected> {
  const givenUp = waitForServer?.signal ?? new AbortController().signal;
  for (;;) {
    try {
      return await connectNbd(target, clock, givenUp);
    } catch (thrown) {
      const error = NetbusError.from(thrown, 'device');
      const isAway = error.code === 'unreachable' || error.code === 'timeout';
      if (waitForServer === undefined || givenUp.aborted || !isAway) throw error;
      waitForServer.onWaiting?.(error.message);
      const { signal, cancel } = abortAfter(clock, RETRY_MS);
      const retry = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      await within(givenUp, retry);
      cancel();
      if (givenUp.aborted) throw error;
    }
  }
}

class NbdSource implements BackendSource {
  readonly instance = randomUUID();
  readonly #target: NbdTarget;
  readonly #served: NbdExport;
  readonly #state: ExportState;
  readonly #connection: NbdConnection;
  readonly #devices = new Set<NbdDevice>();
  #closed = false;

  constructor(target: NbdTarget, { fd, served }: Connected, profile: DiskProfile, options: NbdSourceOptions) {
    const { clock, log } = options;
    const { uri } = target;
    this.#target = target;
    this.#served = served;
    this.#state = new ExportState(served, profile, new FailureLog(uri, clock, log, options.onFailure));
    this.#state.onFlushFailed = () => {
      log.error(
        { uri },
        `${uri}: a flush failed, so acknowledged writes may be lost; every flush fails until it is opened anew`,
      );
      options.onFlushFailed?.();
    };
    this.#connection = new NbdConnection({
      ...{ fd, uri, clock, structuredReplies: served.structuredReplies },
      onLost: (loss) => {
        log.warn({ uri, reason: loss.cause.message, inDoubt: loss.inDoubt }, `${uri}: the connection is lost`);
        options.onLost?.(loss);
      },
    });
  }

  get profile(): DiskProfile {
    return this.#state.profile;
  }

  /** Several at a time are allowed: a read-only export has many readers. */
  open(): Device {
    const device: NbdDevice = new NbdDevice(this.#state, this.#connection, () => this.#devices.delete(device));
    this.#devices.add(device);
    return device;
  }

  describe(): Readonly<Record<string, string | number | boolean>> {
    const { failures, flushes, canFlush, canFua, canTrim, canZero } = this.#state;
    const { flags, structuredReplies, preferredBlockBytes } = this.#served;
    const has = (flag: number) => (flags & flag) !== 0;
    return {
      kind: 'nbd',
      uri: this.#target.uri,
      // NBD has none: who else uses the server's export is the server's business.
      locked: false,
      readOnly: this.profile.readOnly,
      flush: canFlush,
      fua: canFua,
      discard: canTrim,
      writeZeroes: canZero,
      structuredReplies,
      multiConn: has(TransmissionFlag.canMultiConn),
      preferredBlockBytes,
      unanswered: this.#connection.unanswered,
      failures: failures.count,
      flushFailed: flushes.failed,
      ...(failures.last !== undefined && { lastFailure: failures.last }),
    };
  }

  /** The size is what the server said when it was connected to: NBD has no way to tell a new one. Rejects where the server is away, or says nothing. */
  async refresh(): Promise<DiskProfile> {
    const { lost, silentMs, unanswered } = this.#connection;
    if (lost !== undefined) throw new NetbusError('device', lost.message);
    if (silentMs < SILENT_MS_MAX) return this.profile;
    const { uri } = this.#target;
    const seconds = Math.floor(silentMs / 1000);
    throw new NetbusError(
      'timeout',
      `${uri}: the NBD server has not answered ${unanswered} requests for ${seconds} s: look there`,
    );
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all([...this.#devices].map((device) => device.close()));
    this.#connection.close();
  }
}
