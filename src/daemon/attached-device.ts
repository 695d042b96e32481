/**
 * What stands behind a virtual device at the moment, on whatever host: how its sessions are opened, the write log before it, and how its guest comes and goes. A
 * hot-swap puts another one in its place.
 */
import { NetbusError } from '../device/errors.ts';
import type { HandOver } from '../device/hand-over.ts';
import { ReadySession } from '../device/ready-session.ts';
import type { OpenSession } from '../device/source.ts';
import type { SignedHandOver } from '../directory/signed-hand-over.ts';
import type { KeptPage } from '../filters/write-log/kept-blocks.ts';
import { within } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { AttachmentEvents } from './attachment-events.ts';
import { AttachmentLog, type WriteLogChoice } from './attachment-log.ts';
import { BroughtHandOver } from './brought-hand-over.ts';
import type { DeviceHost } from './device-host.ts';
import type { GuestGuard } from './guest-guard.ts';
import { GuestPlace, type GuestPlaceOptions } from './guest-place.ts';
import { LocalWrites } from './local-writes.ts';
import { bindFields } from './log.ts';
import { writeLogPath } from './paths.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';
import { type HandOverPeers, Successors } from './successors.ts';
import { WriteCacheChoice } from './write-cache-choice.ts';

/** A device, its attachment, and how many stood behind the virtual device before it. */
export type AttachedPlace = Pick<VirtualDeviceRecord, 'host' | 'export' | 'attachment' | 'generation' | 'forgets'>;

export interface AttachedDeviceOptions
  extends Pick<GuestPlaceOptions, 'host' | 'epoch' | 'isOver' | 'onSettled' | 'onMoved' | 'onFenced'> {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly place: AttachedPlace;
  /** It takes the place of another one, and has all that was acknowledged before on stable storage. */
  readonly isStable?: boolean;
  readonly runDir: string;
  readonly deviceHost: DeviceHost;
  readonly guard: GuestGuard;
  readonly writeLog: WriteLogChoice | undefined;
  readonly handOverPeers: HandOverPeers | undefined;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: AttachmentEvents;
}

export class AttachedDevice {
  /** One of the two, unless the device is read-only. */
  readonly writeLog: AttachmentLog | undefined;
  readonly #local: LocalWrites | undefined;
  readonly place: GuestPlace;
  readonly writeCache: WriteCacheChoice;
  readonly #options: AttachedDeviceOptions;
  readonly #brought: BroughtHandOver;
  readonly #successors: Successors | undefined;
  readonly #closing = new AbortController();
  readonly #ready: ReadySession;
  #tellWarm: () => void = () => {};

  constructor(options: AttachedDeviceOptions) {
    const { record, place, deviceHost, guard, handOverPeers: peers, clock, events } = options;
    this.#options = options;
    const { isStable = false } = options;
    const { vm, name, profile } = record.value;
    const { host, export: exported, attachment, generation, forgets = false } = place;
    const log = bindFields(options.log, { attachment: `${vm}/${name}` });
    const device = { device: `${host}/${exported}` };
    this.writeCache = new WriteCacheChoice({
      record,
      deviceHost,
      // It may have chosen while the device was filled.
      isUntold: isStable,
      onNotStored: (reason) => log.error({ ...device, reason }, "the driver's write-cache choice was not stored"),
      onNotTold: (reason) =>
        log.warn({ ...device, reason }, "the driver's write-cache choice did not reach the device's host yet"),
    });
    const isLocal = host === options.host;
    // This host's own disks forget nothing that their guests outlive; an NBD server does.
    if (options.writeLog !== undefined && (!isLocal || forgets) && !profile.readOnly) {
      const path = writeLogPath(options.runDir, vm, name, generation);
      const onWhole = () => this.place.madeGood();
      this.writeLog = new AttachmentLog({
        ...options.writeLog,
        record,
        path,
        isStable,
        clock,
        log: options.log,
        events,
        onWhole,
      });
    }
    if (isLocal && this.writeLog === undefined && !profile.readOnly)
      this.#local = new LocalWrites({ record, logs: options.writeLog, clock });
    this.#brought = new BroughtHandOver({ record, deviceHost, log });
    if (peers !== undefined) {
      const onSent = (to: string) => events.handOverSent(to);
      this.#successors = new Successors({ attachment, peers, onSent, clock, log });
    }
    this.#ready = new ReadySession({
      open: deviceHost.openSession(attachment, this.#closing.signal),
      clock,
      onTrouble: (cause) => cause === undefined && this.#tellWarm(),
    });
    const presenting = this.#brought.wrap(deciding((onEnded) => this.#ready.open(onEnded), record));
    const open = guard.guard((this.writeLog ?? this.#local)?.wrap(presenting) ?? presenting);
    // What a flush of the write log makes good; other disks have nothing, or nobody who could.
    this.place = new GuestPlace({ ...options, open, waitsForFlush: this.writeLog !== undefined, log });
  }

  /** Sessions, the ready one where there is one. */
  get open(): OpenSession {
    return this.place.open;
  }

  /** Opens a session in advance, so that the next one that the guest asks for is there at once. Resolves when it is there, or at `signal`. */
  async warm(signal: AbortSignal): Promise<void> {
    if (this.#options.record.value.guest !== null) this.writeLog?.prepare();
    const warm = new Promise<void>((resolve) => {
      this.#tellWarm = resolve;
    });
    this.#ready.keep();
    await within(signal, warm);
  }

  get deviceHost(): DeviceHost {
    return this.#options.deviceHost;
  }

  /** Whether `host` expects the guest, says that host. */
  expectedAt(host: string, expected: boolean): void {
    if (expected) this.#successors?.expected(host);
    else this.#successors?.unexpected(host);
  }

  /** What the guest left at `host`, which could not tell the device's host. Rejects with `denied` unless it is expected from there. */
  brought(host: string, signed: SignedHandOver | null): Promise<void> {
    return this.#brought.keep(host, signed);
  }

  /** What the guest left here, under `epoch`, did not reach the device's host; `over`: it has, or the guest goes on here. */
  undelivered(undelivered: { epoch: number; left: HandOver }, over: AbortSignal): void {
    this.#successors?.send(undelivered, over);
  }

  /** See Passage. */
  mayLeave(expected: boolean): void {
    this.#local?.mayLeave(expected);
  }

  get isStopped(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Of a guest that leaves: what it was told is written, and what that went to. */
  unflushed(byReplay: boolean): HandOver['unflushed'] {
    const { guard, record, host } = this.#options;
    const { device } = guard;
    if (device === null || record.value.profile.readOnly) return undefined;
    if (this.writeLog === undefined) return byReplay && !this.#local?.areFlushed ? device : undefined;
    const { isWhole, bytes } = this.writeLog.content;
    if (!isWhole) return device;
    return bytes === 0 ? undefined : { ...device, log: { host, bytes } };
  }

  /** What no flush covers, for `host`, where the guest went. Rejects with `denied` for any other one, `not_found` where it is not here any more. */
  async readKept(host: string, after: number): Promise<KeptPage> {
    const { record, deviceHost } = this.#options;
    const { attachment, vm, name } = record.value;
    const where = await deviceHost.whereabouts(attachment);
    if (where.host !== host || this.writeLog === undefined)
      throw new NetbusError('denied', `the guest of ${vm}/${name} is not on host ${host}`);
    return this.writeLog.readKept(after);
  }

  /** No session is opened any more. */
  stop(): void {
    this.place.close();
    this.#ready.stop();
    this.#successors?.close();
    this.#closing.abort();
  }

  /** Nothing that it kept is needed any more. */
  forget(): void {
    this.writeLog?.remove();
  }

  /** After the last session has ended. What is in the write log stays for the next daemon. */
  close(): void {
    this.writeLog?.close();
  }
}

/** The first grant of a device that takes the place of another one is the decision that it does: see src/device/copy-mark.ts. */
function deciding(open: OpenSession, record: StoredRecord<VirtualDeviceRecord>): OpenSession {
  return async (onEnded) => {
    const session = await open(onEnded);
    return {
      ...(session.ids !== undefined && { ids: session.ids }),
      activate: async () => {
        const { swap } = record.value;
        if (swap === undefined) return session.activate();
        const grant = await session.activate({ decides: swap.generation });
        // It has all that the old one had, on stable storage.
        return { ...grant, unflushed: 'kept' };
      },
      quiesced: (left) => session.quiesced(left),
      close: () => session.close(),
    };
  };
}
