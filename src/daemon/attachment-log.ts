/** The write log of a virtual device: opened with its first session, one per guest, and gone with the attachment. Read-only disks need none. */
import type { AttachmentEntry } from '../api/types.ts';
import type { OpenSession } from '../device/source.ts';
import { WriteLog, type WriteLogOptions } from '../filters/write-log/write-log.ts';
import type { Clock } from '../lib/clock.ts';
import { formatBytes } from '../lib/format.ts';
import type { Log } from '../lib/log.ts';
import type { AttachmentEvents } from './attachment-events.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface WriteLogChoice {
  /** Bytes of data of each attachment's log. */
  readonly boundBytes: number;
  /** Of this host: a log ends with it, also where the run folder does not. */
  readonly bootId: string;
  /** Opens a log, or makes one; as the class does it where it is left out. */
  readonly createLog?: (options: WriteLogOptions, isFirst: boolean) => WriteLog;
}

export interface AttachmentLogOptions extends WriteLogChoice {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly path: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: AttachmentEvents;
}

export class AttachmentLog {
  readonly #options: AttachmentLogOptions;
  #log: WriteLog | undefined;
  /** The guest that it is of. */
  #process: string | undefined;
  /** No guest has written anything: there is nothing that a new log could miss. A later guest takes what it reads for stable, whoever wrote it. */
  #unused: boolean;

  constructor(options: AttachmentLogOptions) {
    this.#options = options;
    this.#unused = options.record.value.guest === null;
  }

  /** Sessions whose devices log. Called when the record says which guest it is. */
  wrap(open: OpenSession): OpenSession {
    return async (onEnded) => {
      const log = this.#open();
      const session = await open(onEnded);
      return {
        activate: async () => log.admit(await session.activate(), this.#options.record.value.guest?.device ?? null),
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  /** Undefined before the first session. */
  describe(): AttachmentEntry['writeLog'] {
    if (this.#log === undefined) return undefined;
    const { oldestTime, ...rest } = this.#log.status();
    return { ...rest, ...(oldestTime !== undefined && { oldestUnflushed: new Date(oldestTime).toISOString() }) };
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
      clock,
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
