/** The write log of a virtual device: opened with its first session, one per guest, and gone with the attachment. Read-only disks need none. */
import type { AttachmentEntry } from '../api/types.ts';
import type { AllocateStaging } from '../bus/staging.ts';
import { NetbusError } from '../device/errors.ts';
import type { Grant, OpenSession } from '../device/source.ts';
import { type KeptLog, type KeptPage, readKeptPage } from '../filters/write-log/kept-blocks.ts';
import { WriteLog, type WriteLogOptions } from '../filters/write-log/write-log.ts';
import type { Clock } from '../lib/clock.ts';
import { formatBytes } from '../lib/format.ts';
import type { Log } from '../lib/log.ts';
import type { AttachmentEvents } from './attachment-events.ts';
import { type AskKeptPage, openKeptLog } from './kept-log.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface WriteLogChoice {
  /** Bytes of data of each attachment's log. */
  readonly boundBytes: number;
  /** Of this host: a log ends with it, also where the run folder does not. */
  readonly bootId: string;
  /** Asks the host that a guest comes from. */
  readonly askKeptPage: AskKeptPage;
  readonly allocate: AllocateStaging;
  /** Opens a log, or makes one; as the class does it where it is left out. */
  readonly createLog?: (options: WriteLogOptions, isFirst: boolean) => WriteLog;
}

export interface AttachmentLogOptions extends WriteLogChoice {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly path: string;
  /** The device is new, and has all that was acknowledged before on stable storage. */
  readonly isStable?: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: AttachmentEvents;
  /** What the guest had not flushed before this log began is on stable storage. */
  readonly onWhole: () => void;
}

export class AttachmentLog {
  readonly #options: AttachmentLogOptions;
  #log: WriteLog | undefined;
  /** The guest that it is of. */
  #process: string | undefined;
  /** No guest has written anything: there is nothing that a new log could miss. A later guest takes what it reads for stable, whoever wrote it. */
  #unused: boolean;
  /** The guest that an earlier daemon served. */
  #servedBefore: string | undefined;
  /** Of the latest grant. */
  #epoch: number | undefined;
  /** The same when the guest left unchanged last: whoever is granted the device after that may write what is not in this log. */
  #leftAt: number | undefined;

  constructor(options: AttachmentLogOptions) {
    this.#options = options;
    const { guest, arriving } = options.record.value;
    this.#unused = options.isStable === true || (guest === null && !arriving);
    this.#servedBefore = guest?.process;
  }

  /** Makes the log's file now, so that no session waits for that. Called when the record says which guest it is. */
  prepare(): void {
    this.#open();
  }

  /** Sessions whose devices log. Called when the record says which guest it is. */
  wrap(open: OpenSession): OpenSession {
    return async (onEnded) => {
      this.#open();
      const session = await open(onEnded);
      return {
        activate: async () => {
          const grant = await session.activate();
          const wasElsewhere = this.#leftAt !== undefined && grant.epoch > this.#leftAt + 1;
          if (wasElsewhere) this.#beginAnew();
          this.#leftAt = undefined;
          this.#epoch = grant.epoch;
          const log = this.#open();
          const kept = await this.#kept(log, grant);
          const before = wasElsewhere ? null : (this.#options.record.value.guest?.device ?? null);
          const admitted = log.admit(grant, before, kept);
          if (log.complete) this.#options.onWhole();
          return admitted;
        },
        quiesced: (left) => {
          if (left === 'unchanged') this.#leftAt = this.#epoch;
          return session.quiesced(left);
        },
        close: () => session.close(),
      };
    };
  }

  /** For a guest that comes: what it had not flushed where it was, if the device's host forgot that already. */
  async #kept(log: WriteLog, { handOver, device, bootId, instance }: Grant): Promise<KeptLog | undefined> {
    if (handOver === undefined || log.complete) return undefined;
    const kept = handOver.unflushed?.log;
    log.comes(handOver.unflushed, kept !== undefined);
    if (kept === undefined || !log.lacks({ bootId, instance })) return undefined;
    try {
      return await openKeptLog(this.#options, kept.host);
    } catch (thrown) {
      await device.close();
      throw thrown;
    }
  }

  /** What no flush covers, for the host that the guest went to. Throws `not_found` where it is not all here. */
  readKept(after: number): KeptPage {
    const { blocks, complete } = this.#open();
    if (blocks === undefined || !complete)
      throw new NetbusError('not_found', 'what the guest had not flushed here is not known any more');
    return readKeptPage(blocks, after);
  }

  /** Undefined before the first session. */
  describe(): AttachmentEntry['writeLog'] {
    if (this.#log === undefined) return undefined;
    const { oldestTime, ...rest } = this.#log.status();
    return { ...rest, ...(oldestTime !== undefined && { oldestUnflushed: new Date(oldestTime).toISOString() }) };
  }

  /** For a guest that leaves. `isWhole`: all that no flush covers is in it. */
  get content(): { isWhole: boolean; bytes: number } {
    if (this.#log === undefined && this.#options.record.value.guest === null) return { isWhole: this.#unused, bytes: 0 };
    const log = this.#open();
    return { isWhole: log.complete, bytes: log.status().usedBytes };
  }

  /** What is in it stays for the next daemon. */
  close(): void {
    this.#log?.close();
    this.#log = undefined;
  }

  /** The attachment is gone. */
  remove(): void {
    this.close();
    WriteLog.remove(this.#options.path);
  }

  /** What the guest did here is done again where it went back to: what is in the log is older than what it wrote there. */
  #beginAnew(): void {
    this.remove();
    this.#servedBefore = undefined;
  }

  /** One of an earlier start of the guest is not used: for this guest, all that was before was one power cut. */
  #open(): WriteLog {
    const { record, path, boundBytes, bootId, createLog, clock, log, events } = this.#options;
    const { vm, name, attachment, guest } = record.value;
    const process = guest?.process ?? 'unknown';
    if (this.#log !== undefined && this.#process === process) return this.#log;
    this.#log?.close();
    this.#process = process;
    const fields = { attachment: `${vm}/${name}` };
    const isFirst = this.#unused;
    this.#unused = false;
    const options: WriteLogOptions = {
      path,
      boundBytes,
      owner: `${attachment}\n${bootId}\n${process}`,
      wasServed: process === this.#servedBefore,
      clock,
      onComplete: this.#options.onWhole,
      onSent: (bytes) => {
        log.warn({ ...fields, bytes }, 'write log sent again: the device host had forgotten what was not flushed');
        events.logSent(formatBytes(bytes), bytes);
      },
      onTrouble: (reason) => {
        if (reason === undefined) return;
        log.warn({ ...fields, reason }, 'write log in trouble');
        events.logTrouble(reason);
      },
    };
    this.#log = createLog?.(options, isFirst) ?? new WriteLog(options, isFirst);
    return this.#log;
  }
}
