/**
 * The write log of one attachment (invariant 2): what a guest was told is written, and what no flush covers yet, kept at the VM's side, because a
 * device's host that is started anew has forgotten it while the guest lives on. It spans sessions and restarts of the daemon.
 *
 * Where there is no file for it (no memory), every write is made durable instead: slow, and as safe.
 */
import { createHash } from 'node:crypto';
import { NetbusError } from '../../device/errors.ts';
import type { Grant } from '../../device/source.ts';
import type { Clock } from '../../lib/clock.ts';
import type { KeptLog } from './kept-blocks.ts';
import { LogBlocks } from './log-blocks.ts';
import { LOG_BLOCK_BYTES, LogFile, removeFile } from './log-file.ts';
import { LoggedDevice } from './logged-device.ts';

/** What tells a device from one that may have forgotten something. */
export interface DeviceIds {
  readonly bootId: string;
  readonly instance: string;
}

export interface WriteLogStatus {
  readonly usedBytes: number;
  readonly boundBytes: number;
  /** Milliseconds since 1970: of the oldest write that no flush covers. */
  readonly oldestTime?: number;
  /** Flushes of its own that succeeded. */
  readonly backgroundFlushes: number;
  /** What happens with it now. */
  readonly state: 'logging' | 'sending' | 'full';
  /** Why it is not as it should be: flushes fail, there is no memory, what was before is not in it. */
  readonly reason?: string;
  /** While it is sent. */
  readonly sentBytes?: number;
}

export interface WriteLogOptions {
  readonly path: string;
  readonly boundBytes: number;
  /** Names the attachment, the start of the guest, and this boot of this host: a file of another one is not used. */
  readonly owner: string;
  /** An earlier daemon served this guest here: a log that has to be made now lacks what it wrote. */
  readonly wasServed?: boolean;
  readonly clock: Clock;
  /** All that was acknowledged is on stable storage or in it, which was not so when it was opened. */
  readonly onComplete?: () => void;
  /** It was sent again to a host that had forgotten it, and flushed. */
  readonly onSent: (bytes: number) => void;
  /** It cannot be used, or can again; told when that changes. */
  readonly onTrouble: (reason: string | undefined) => void;
}

export class WriteLog {
  readonly clock: Clock;
  readonly #options: WriteLogOptions;
  #blocks: LogBlocks | undefined;
  /** Without a file: since when all that is acknowledged is on stable storage. */
  #complete = false;
  #sending = false;
  #isElsewhere = false;
  /** What the guest wrote here before this log was made may be in no log at all. */
  #isLacking = false;
  #deviceNumber = 0;
  #device: LoggedDevice | undefined;
  #trouble: string | undefined;
  backgroundFlushes = 0;

  /** Opens the file, or makes one. `isFirst`: the guest has written nothing yet that could be missing in a new one. */
  constructor(options: WriteLogOptions, isFirst: boolean) {
    this.#options = options;
    this.clock = options.clock;
    try {
      const file = LogFile.open(options);
      if (file !== undefined) this.#blocks = new LogBlocks(file, options.clock.wallTime());
    } catch (thrown) {
      this.#tellTrouble(NetbusError.from(thrown).message);
    }
    if (this.#blocks === undefined) this.#create(isFirst);
  }

  /** Undefined where there is none: every write is made durable. */
  get blocks(): LogBlocks | undefined {
    return this.#blocks;
  }

  /** Everything that was acknowledged is on stable storage, or in the log. */
  get complete(): boolean {
    if (this.#blocks === undefined) return this.#complete;
    return this.#blocks.file.complete && !this.#blocks.file.faulty;
  }

  /** The device's host forgot, and the log was not yet sent and flushed. */
  get sending(): boolean {
    return this.#sending || (this.#blocks?.file.sending ?? false);
  }

  /**
   * The guest comes from another host, where it left this unflushed: what it went to, or undefined, nothing. `hasLog`: that host has what it wrote. Before
   * `admit`.
   */
  comes(unflushed: DeviceIds | undefined, hasLog: boolean): void {
    if (unflushed !== undefined) {
      if (this.#deviceNumber === 0) this.#deviceNumber = deviceNumber(unflushed);
      this.#isElsewhere = hasLog && !this.complete && !this.#isLacking;
    } else if (!this.#isLacking) {
      this.#becomeComplete();
    }
  }

  /** What came before this log is in another one, until a flush covers it: whatever is written now must be in this one, to go over that. */
  get isElsewhere(): boolean {
    return this.#isElsewhere;
  }

  /** The device forgot what is elsewhere: `admit` needs it. */
  lacks(granted: DeviceIds): boolean {
    const known = this.#blocks?.file.device || this.#deviceNumber;
    return this.#isElsewhere && (this.sending || known !== deviceNumber(granted));
  }

  /**
   * What a guest may use of a grant. `before`: the device that the guest used last, where the log does not know. `kept`: what is elsewhere and the device
   * lacks; it goes to the device first.
   */
  admit(grant: Grant, before: DeviceIds | null, kept?: KeptLog): Grant {
    const known = this.#blocks?.file.device || this.#deviceNumber || (before === null ? 0 : deviceNumber(before));
    const granted = deviceNumber(grant);
    // In this order: whoever is killed in between sends once more than is needed, and never once less.
    if (known !== 0 && known !== granted) this.#setSending(true);
    this.#deviceNumber = granted;
    if (this.#blocks !== undefined) this.#blocks.file.device = granted;
    if (this.sending && !this.complete && kept === undefined) return { ...grant, unflushed: this.#notCovered() };
    const device = new LoggedDevice(grant.device, this, kept);
    this.#device = device;
    return { ...grant, device, unflushed: 'kept', ready: device.opened };
  }

  /** A flush that was sent when `sequence` was the last acknowledgement was answered: the log has the rest, whatever was before it. */
  flushed(sequence: number): void {
    this.#blocks?.flushed(sequence);
    if (!(this.#blocks?.file.complete ?? this.#complete)) this.#becomeComplete();
    this.#tellTrouble(this.#blocks === undefined ? this.#trouble : this.#shortage());
  }

  /** Sent again to the host that forgot, and flushed there. */
  sent(bytes: number): void {
    this.#setSending(false);
    if (bytes > 0) this.#options.onSent(bytes);
  }

  /** A flush of its own failed, or one that succeeded ended the trouble. */
  flushFailed(reason: string): void {
    this.#tellTrouble(reason);
  }

  /** The memory of the file is gone: from now on every write is made durable, and a host that forgets means errors until a flush has come. */
  fail(): NetbusError {
    this.#blocks?.file.close();
    this.#blocks = undefined;
    this.#complete = false;
    this.#isElsewhere = false;
    this.#isLacking = true;
    const message = `the write log ${this.#options.path} is damaged: its file was cut, or its memory is gone`;
    this.#tellTrouble(message);
    return new NetbusError('device', message);
  }

  status(): WriteLogStatus {
    const blocks = this.#blocks;
    blocks?.release(blocks.used);
    const device = this.#device;
    const oldestTime = blocks?.oldestTime;
    const reason = this.#trouble ?? this.#shortage();
    const state = this.sending ? 'sending' : device?.waitsForFlush ? 'full' : 'logging';
    return {
      usedBytes: (blocks?.used ?? 0) * LOG_BLOCK_BYTES,
      boundBytes: (blocks?.capacity ?? 0) * LOG_BLOCK_BYTES,
      backgroundFlushes: this.backgroundFlushes,
      state,
      ...(oldestTime !== undefined && { oldestTime }),
      ...(reason !== undefined && { reason }),
      ...(state === 'sending' && { sentBytes: (device?.resent ?? 0) * LOG_BLOCK_BYTES }),
    };
  }

  /** The content stays for the next daemon. */
  close(): void {
    this.#blocks?.file.close();
    this.#blocks = undefined;
  }

  /** Takes away the file, if there is one. */
  static remove(path: string): void {
    removeFile(path);
  }

  #becomeComplete(): void {
    this.#isElsewhere = false;
    this.#isLacking = false;
    if (this.#blocks === undefined) this.#complete = true;
    else this.#blocks.file.complete = true;
    this.#options.onComplete?.();
  }

  #create(complete: boolean): void {
    this.#isLacking = this.#options.wasServed ?? false;
    try {
      const file = LogFile.create(this.#options);
      file.complete = complete;
      this.#blocks = new LogBlocks(file, this.clock.wallTime());
    } catch (thrown) {
      this.#complete = complete;
      this.#tellTrouble(`there is no write log, so every write waits for stable storage: ${(thrown as Error).message}`);
    }
  }

  #shortage(): string | undefined {
    if (!this.#blocks?.isShort) return undefined;
    return `there is no memory for more in the folder of ${this.#options.path}: writes wait for flushes more often`;
  }

  #setSending(sending: boolean): void {
    this.#sending = sending;
    if (this.#blocks !== undefined) this.#blocks.file.sending = sending;
  }

  #notCovered(): NetbusError {
    const why = this.#trouble ?? 'the write log does not have them';
    return new NetbusError(
      'device',
      `the device host or its export was started anew while acknowledged writes were not flushed, and they may be lost (${why}): the disk answers with errors until the VM is started again`,
    );
  }

  #tellTrouble(reason: string | undefined): void {
    if (reason === this.#trouble) return;
    this.#trouble = reason;
    this.#options.onTrouble(reason);
  }
}

/** The two ids as one number that can be stored at once; never 0. */
export function deviceNumber({ bootId, instance }: DeviceIds): number {
  return createHash('sha256').update(`${bootId}\n${instance}`).digest().readUIntBE(0, 6) + 1;
}
