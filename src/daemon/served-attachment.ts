/** An attachment at the device's host: its record, and the lease that lets one session at a time through to the device. */
import type { NetbusError } from '../device/errors.ts';
import { Lease } from '../device/lease.ts';
import type { DiskProfile, Profile } from '../device/profile.ts';
import type { BackendSource, Session } from '../device/source.ts';
import type { Clock } from '../lib/clock.ts';
import type { EventRecorder } from './events.ts';
import { leaseEvent } from './export-events.ts';
import type { StoredRecord } from './record.ts';
import type { AttachmentRecord } from './records.ts';

export class ServedAttachment {
  readonly #record: StoredRecord<AttachmentRecord>;
  readonly #lease: Lease;
  /** Milliseconds since 1970: when the lease changed last. */
  #since: number | undefined;
  /** Being removed, or the daemon ends: no more grants. */
  #refusal: NetbusError | undefined;

  constructor(options: {
    record: StoredRecord<AttachmentRecord>;
    source: BackendSource;
    bootId: string;
    clock: Clock;
    events: EventRecorder;
  }) {
    const { record, source, bootId, clock, events } = options;
    this.#record = record;
    this.#lease = new Lease({
      source,
      bootId,
      record: {
        get value() {
          return record.value;
        },
        change: async (change) => {
          if (this.#refusal !== undefined) throw this.#refusal;
          const before = record.value;
          await record.change(change);
          if (record.value.lease === before.lease) return;
          this.#since = clock.wallTime();
          events.record(leaseEvent(record.value));
        },
      },
    });
  }

  get profile(): Profile {
    return this.#record.value.profile;
  }

  /** A session has the device open. */
  get active(): boolean {
    return this.#lease.active;
  }

  get since(): number | undefined {
    return this.#since;
  }

  session(host: string, onEnded: (cause: NetbusError) => void): Session {
    return this.#lease.session(host, onEnded);
  }

  /** Ends the session that has the device, waits for its I/O, and grants no more. */
  async end(cause: NetbusError): Promise<void> {
    this.#refusal ??= cause;
    await this.#lease.revoke(cause);
  }

  /** Takes the device's present capacity into the record where it is more; false where it is not. */
  async grow(present: DiskProfile): Promise<boolean> {
    if (present.capacityBytes <= this.profile.capacityBytes) return false;
    const { capacityBytes } = present;
    await this.#record.change((value) => ({ ...value, profile: { ...value.profile, capacityBytes } }));
    return true;
  }
}
