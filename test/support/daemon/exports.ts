/** The exports of a host on disks of nothing, with records in a folder of its own. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openNullSource } from '../../../src/backends/null/null.ts';
import type { NewEvent } from '../../../src/daemon/events.ts';
import type { DeviceFailure, DeviceLoss, OpenExport } from '../../../src/daemon/export.ts';
import { Exports, type ExportsOptions } from '../../../src/daemon/exports.ts';
import type { VerifyHandOver } from '../../../src/daemon/places.ts';
import { attachmentRecordSchema, deviceOf, exportRecordSchema } from '../../../src/daemon/records.ts';
import { RecordStore } from '../../../src/daemon/store.ts';
import { NetbusError } from '../../../src/device/errors.ts';
import { ManualClock } from '../../../src/lib/clock.ts';
import { silentLog } from '../../../src/lib/log.ts';

export const CAPACITY_BYTES = 1024 * 1024;

/** Disks that a test can take away, lock and grow. */
export class FakeDisks {
  capacityBytes = CAPACITY_BYTES;
  blank = true;
  /** Why the next opening fails. */
  failure: NetbusError | undefined;
  /** Somebody else has the lock, until `unlock`. */
  #locked: Promise<void> | undefined;
  unlock: () => void = () => {};
  opened = 0;

  lock(): void {
    this.#locked = new Promise((resolve) => {
      this.unlock = () => {
        this.#locked = undefined;
        resolve();
      };
    });
  }

  /** What the last opening was asked with. */
  asked:
    | {
        reopened: number;
        flushFailed: () => void;
        failed: (failure: DeviceFailure) => void;
        lost: (loss: DeviceLoss) => void;
      }
    | undefined;

  readonly open: OpenExport = async (record, { waitForLock, onWaiting, onFlushFailed, onFailure, onLost, signal }) => {
    this.asked = { reopened: record.reopened, flushFailed: onFlushFailed, failed: onFailure, lost: onLost };
    if (this.failure !== undefined) throw this.failure;
    if (this.#locked !== undefined) {
      const reason = `${deviceOf(record)} is in use`;
      if (!waitForLock) throw new NetbusError('in_use', reason);
      onWaiting(reason);
      const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      await Promise.race([this.#locked, aborted]);
    }
    const make = () => openNullSource({ capacityBytes: this.capacityBytes, readOnly: record.readOnly });
    const source = make();
    this.opened++;
    return {
      ...source,
      refresh: async () => make().profile,
      isBlank: async () => this.blank,
      close: async () => {
        this.opened--;
      },
    };
  };
}

export class TestHost {
  readonly folder = mkdtempSync(join(tmpdir(), 'netbus-host-'));
  readonly clock = new ManualClock();
  readonly disks = new FakeDisks();
  /** What was recorded since the host was made. */
  readonly recorded: NewEvent[] = [];
  exports!: Exports;
  membershipOf: (host: string) => string | undefined = () => undefined;
  isMember: (host: string) => boolean = () => true;
  askOutcome: NonNullable<ExportsOptions['askOutcome']> = () => assert.fail('no other host is asked');
  verifyHandOver: VerifyHandOver = () => assert.fail('nothing was signed');

  /** Starts, or starts again, from what is stored. */
  async start(host = 'm1'): Promise<this> {
    const exports = new RecordStore(join(this.folder, 'exports'), exportRecordSchema);
    const attachments = new RecordStore(join(this.folder, 'attachments'), attachmentRecordSchema);
    const stored = await exports.load(0);
    const storedAttachments = [...(await attachments.load(0)).records.values()];
    const { clock, disks } = this;
    const events = { record: (event: NewEvent) => void this.recorded.push(event) };
    this.exports = new Exports({
      host,
      bootId: 'boot',
      exports,
      attachments,
      openExport: disks.open,
      clock,
      log: silentLog,
      events,
      membershipOf: (name) => this.membershipOf(name),
      isMember: (name) => this.isMember(name),
      askOutcome: (to, request) => this.askOutcome(to, request),
      verifyHandOver: (signed) => this.verifyHandOver(signed),
    });
    for (const record of stored.records.values()) {
      const own = storedAttachments.filter((attachment) => attachment.export === record.name);
      await this.exports.restore(record, own);
    }
    return this;
  }

  /** Adds an export that hosts m1 and m2 may use. */
  async add(name: string, more: { readOnly?: boolean } = {}): Promise<void> {
    const { readOnly = false } = more;
    await this.exports.add({ name, disk: `/disks/${name}`, readOnly, direct: false, allow: ['m2', 'm1'] });
  }

  async stop(): Promise<void> {
    await this.exports.close();
    rmSync(this.folder, { recursive: true });
  }
}
