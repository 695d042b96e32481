/**
 * The disk backend: an image file or a block device of this host. This file opens it and gives a Device for each use;
 * `disk-device.ts` does the work.
 */
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { native } from '../../../native/index.ts';
import type { Device } from '../../device/device.ts';
import { NetbusError } from '../../device/errors.ts';
import {
  DISK_QUEUES_MAX,
  DISK_SECTOR_BYTES,
  DISK_SERIAL_BYTES_MAX,
  type DiskProfile,
  diskProfileSchema,
} from '../../device/profile.ts';
import type { BackendSource, DataExtents } from '../../device/source.ts';
import { within } from '../../lib/abort.ts';
import { abortAfter, type Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { DiskDevice } from './disk-device.ts';
import { chooseEngine, directBlockBytes, type Engine, type IoCalls } from './engine.ts';
import { dataExtents, readsAsZeroes } from './extents.ts';
import { type Failure, FailureLog } from './failure-log.ts';
import { Image } from './image.ts';
import { lockImage } from './image-lock.ts';
import { discardAlignment, imageIdentity, measureImage } from './measure-image.ts';
import { openImage } from './open-image.ts';

/** More queues than this help no guest that we have seen, and each costs the VM's host a kick descriptor and a ring. */
const QUEUES_DEFAULT_MAX = 4;
const LOCK_RETRY_MS = 200;

export interface DiskSourceOptions {
  /** Absolute path of an image file or block device. */
  readonly path: string;
  readonly readOnly?: boolean;
  /** Past the page cache (O_DIRECT). */
  readonly direct?: boolean;
  readonly engine?: Engine | 'auto';
  /** What the guest sees as the disk's identity, 20 bytes at most; by default made from the file's name. */
  readonly serial?: string;
  /** Request queues offered to the guest, 1 to 16; by default one a CPU, 4 at most. */
  readonly queues?: number;
  /**
   * How often this image was opened anew after a flush had failed; the keeper of the export stores it and counts (see `onFlushFailed`).
   * It makes a new instance, so that no guest goes on as if its unflushed writes were still there.
   */
  readonly reopened?: number;
  /** An image in use is waited for until this aborts, instead of `in_use` at once: after a crash the kernel's I/O may still hold the lock. */
  readonly waitForLock?: { readonly signal: AbortSignal; readonly onWaiting?: (reason: string) => void };
  readonly clock: Clock;
  readonly log: Log;
  /** The size changed; the devices tell their guests themselves. */
  readonly onChange?: (profile: DiskProfile) => void;
  /** A flush failed, so all further ones do, until the export is opened with a higher `reopened`: it must be stored before anything else. */
  readonly onFlushFailed?: () => void;
  /** Operations fail: told as often as it is logged. */
  readonly onFailure?: (failure: Failure) => void;
  /** For tests. */
  readonly calls?: IoCalls;
}

/** Opens and locks an image. Throws a NetbusError that says in one line what is wrong with it and what to do. */
export async function openDiskSource(options: DiskSourceOptions): Promise<BackendSource> {
  const { path, readOnly = false, direct = false, calls = native } = options;
  const { engine, reason } = chooseEngine(calls, options.engine ?? 'auto');
  if (reason !== 'chosen' && engine === 'threads')
    options.log.warn({ path, engine }, `disk ${path}: ${reason}; threads do its I/O`);
  const { fd, isBlockDevice } = await openLocked(options);
  try {
    const size = await measureImage(fd, path, isBlockDevice);
    if (size.exactBytes === 0) {
      throw new NetbusError('usage', `${path}: the image has no bytes: give it a size, as with "truncate -s 10G ${path}"`);
    }
    if (size.exactBytes % DISK_SECTOR_BYTES !== 0) {
      const wanted = size.sizeBytes + DISK_SECTOR_BYTES;
      const message = `${path}: its size of ${size.exactBytes} bytes is not a multiple of 512: make it one, as with "truncate -s ${wanted} ${path}"`;
      throw new NetbusError('usage', message);
    }
    const directBlock = direct && !isBlockDevice ? await directBlockBytes(calls, engine, fd, path) : DISK_SECTOR_BYTES;
    const logicalBlockBytes = Math.max(size.logicalBlockBytes, directBlock);
    const profile = makeProfile(options, {
      capacityBytes: size.sizeBytes - (size.sizeBytes % logicalBlockBytes),
      logicalBlockBytes,
      physicalBlockBytes: Math.max(size.physicalBlockBytes, logicalBlockBytes),
      discardAlignmentBytes: await discardAlignment(fd, isBlockDevice),
    });
    const identity = `${await imageIdentity(fd, isBlockDevice)}-${options.reopened ?? 0}`;
    const failures = new FailureLog(path, options.clock, options.log, options.onFailure);
    const image = new Image({ path, fd, isBlockDevice, profile, failures });
    return new DiskSource(image, { ...options, readOnly, direct, calls, engine, identity });
  } catch (thrown) {
    native.close(fd);
    throw thrown;
  }
}

/** The profile, or what of the options cannot be one. */
function makeProfile(options: DiskSourceOptions, measured: Partial<DiskProfile>): DiskProfile {
  const { path, readOnly = false, serial = defaultSerial(path) } = options;
  const queues = options.queues ?? Math.min(availableParallelism(), QUEUES_DEFAULT_MAX, DISK_QUEUES_MAX);
  const parsed = diskProfileSchema.safeParse({
    class: 'disk',
    ...measured,
    optimalIoBytes: 0,
    readOnly,
    queues,
    serial,
    features: [
      'flush',
      ...(readOnly ? [] : ['discard', 'write-zeroes', 'write-cache-control']),
      ...(queues > 1 ? ['multi-queue'] : []),
    ],
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new NetbusError('usage', `${path} cannot be offered as a disk: ${issue.path.join('.')}: ${issue.message}`);
}

/** The file's name without its ending, as far as it has characters that every guest's tools can show. */
function defaultSerial(path: string): string {
  return basename(path, extname(path))
    .replaceAll(/[^A-Za-z0-9._-]/g, '-')
    .slice(0, DISK_SERIAL_BYTES_MAX);
}

/** Opens and locks; where the image is in use, again until it is free or the waiting ends. */
async function openLocked(options: DiskSourceOptions): Promise<{ fd: number; isBlockDevice: boolean }> {
  const { path, readOnly = false, direct = false, waitForLock, clock } = options;
  for (;;) {
    try {
      const opened = await openImage({ path, readOnly, direct });
      try {
        await lockImage(opened.fd, path, readOnly);
        return opened;
      } catch (thrown) {
        native.close(opened.fd);
        throw thrown;
      }
    } catch (thrown) {
      const error = NetbusError.from(thrown, 'device');
      if (waitForLock === undefined || waitForLock.signal.aborted || error.code !== 'in_use') throw error;
      waitForLock.onWaiting?.(error.message);
      const { signal, cancel } = abortAfter(clock, LOCK_RETRY_MS);
      const retry = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      await within(waitForLock.signal, retry);
      cancel();
      if (waitForLock.signal.aborted) throw error;
    }
  }
}

interface SourceOptions extends DiskSourceOptions {
  readonly readOnly: boolean;
  readonly direct: boolean;
  readonly calls: IoCalls;
  readonly engine: Engine;
  readonly identity: string;
}

class DiskSource implements BackendSource {
  readonly instance: string;
  readonly #image: Image;
  readonly #options: SourceOptions;
  readonly #devices = new Set<DiskDevice>();
  #refreshing: Promise<DiskProfile> | undefined;
  /** Looks at the map of data, one after the other; the descriptor is theirs meanwhile. */
  #looking: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(image: Image, options: SourceOptions) {
    this.#image = image;
    this.#options = options;
    this.instance = createHash('sha256').update(options.identity).digest('hex').slice(0, 32);
    image.onEndMet = () => {
      this.refresh().catch((cause: Error) => options.log.error({ path: image.path }, cause.message));
    };
    image.onFlushFailed = () => {
      const message = `disk ${image.path}: a flush failed, so acknowledged writes may be lost; every flush fails until it is exported again`;
      options.log.error({ path: image.path }, message);
      options.onFlushFailed?.();
    };
  }

  get profile(): DiskProfile {
    return this.#image.profile;
  }

  /** Several at a time are allowed: a read-only image has many readers. */
  open(): Device {
    const { calls, engine } = this.#options;
    const device: DiskDevice = new DiskDevice(this.#image, calls, engine, () => this.#devices.delete(device));
    this.#devices.add(device);
    return device;
  }

  describe(): Readonly<Record<string, string | number | boolean>> {
    const { path, isBlockDevice, failures, flushes, canDiscard } = this.#image;
    const { engine, direct, readOnly } = this.#options;
    const kind = isBlockDevice ? 'block device' : 'file';
    return {
      kind,
      path,
      engine,
      direct,
      readOnly,
      discard: canDiscard,
      failures: failures.count,
      flushFailed: flushes.failed,
      ...(failures.last !== undefined && { lastFailure: failures.last }),
    };
  }

  refresh(): Promise<DiskProfile> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  extents(from: number): Promise<DataExtents> {
    return this.#look(() => dataExtents(this.#image, from));
  }

  isBlank(): Promise<boolean> {
    return this.#look(() => readsAsZeroes(this.#image));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#looking;
    await this.#refreshing?.catch(() => undefined);
    await Promise.all([...this.#devices].map((device) => device.close()));
    this.#image.release();
    native.close(this.#image.fd);
  }

  #look<T>(look: () => Promise<T>): Promise<T> {
    const { path } = this.#image;
    if (this.#closed) return Promise.reject(new NetbusError('device', `${path} is closed`));
    const looked = this.#looking.then(look);
    this.#looking = looked.catch(() => undefined);
    return looked.catch((thrown) => {
      if (thrown instanceof NetbusError) throw thrown;
      throw new NetbusError('device', `${path}: cannot be looked at: ${(thrown as Error).message}`, { cause: thrown });
    });
  }

  async #refresh(): Promise<DiskProfile> {
    const image = this.#image;
    const { sizeBytes } = await measureImage(image.fd, image.path, image.isBlockDevice);
    const before = image.profile.capacityBytes;
    const capacityBytes = sizeBytes - (sizeBytes % image.profile.logicalBlockBytes);
    if (capacityBytes !== before) {
      image.profile = { ...image.profile, capacityBytes };
      const fields = { path: image.path, before, capacityBytes };
      if (capacityBytes > before)
        this.#options.log.info(fields, `disk ${image.path} grew from ${before} to ${capacityBytes} bytes`);
      else
        this.#options.log.error(
          fields,
          `disk ${image.path} shrank from ${before} to ${capacityBytes} bytes: what was beyond is lost`,
        );
      for (const device of this.#devices) device.capacityChanged();
      this.#options.onChange?.(image.profile);
    }
    return image.profile;
  }
}
