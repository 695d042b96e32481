/** An attachment at the device's host: its record, and the lease that lets one session at a time through to the device. */
import type { NetbusError } from '../device/errors.ts';
import { Lease } from '../device/lease.ts';
import type { DiskProfile, Profile } from '../device/profile.ts';
import type { BackendSource, Session } from '../device/source.ts';
import type { Clock } from '../lib/clock.ts';
import type { EventRecorder } from './events.ts';
import { changePlace } from './place-events.ts';
import type { StoredRecord } from './record.ts';
import type { AttachmentRecord } from './records.ts';

export class ServedAttachment {
  readonly #record: StoredRecord<AttachmentRecord>;
  readonly #lease: Lease;
  readonly #clock: Clock;
  /** By host: how many sessions it has open, and when its last one ended. */
  readonly #sessions = new Map<string, { open: number; endedAt: number }>();
  readonly #begunAt: number;
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
    this.#clock = clock;
    this.#begunAt = clock.now();
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
          await changePlace(record, change, events);
          if (record.value.lease !== before.lease) this.#since = clock.wallTime();
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
    const session = this.#lease.session(host, onEnded);
    const known = this.#sessions.get(host) ?? { open: 0, endedAt: 0 };
    this.#sessions.set(host, known);
    known.open++;
    let isOpen = true;
    return {
      ...session,
      close: () => {
        session.close();
        if (!isOpen) return;
        isOpen = false;
        known.open--;
        known.endedAt = this.#clock.now();
      },
    };
  }

  /** For how long `host` has had no session, in milliseconds, as far as is known here; 0 while it has one. */
  absentMs(host: string): number {
    const known = this.#sessions.get(host);
    if (known === undefined) return this.#clock.now() - this.#begunAt;
    return known.open > 0 ? 0 : this.#clock.now() - known.endedAt;
  }

  /** See Lease.present. */
  present(said: Parameters<Lease['present']>[0]): Promise<void> {
    return this.#lease.present(said);
  }

  /** `host` is dead: see Lease.fence. */
  fence(host: string, cause: NetbusError): Promise<void> {
    return this.#lease.fence(host, cause);
  }

  /** See Lease.stopFor. */
  stopFor(...given: Parameters<Lease['stopFor']>): Promise<void> {
    return this.#lease.stopFor(...given);
  }

  /** Ends the session that has the device, waits for its I/O, and grants no more. */
  async end(cause: NetbusError): Promise<void> {
    this.#refusal ??= cause;
    await this.#lease.revoke(cause);
  }

  /** Takes the device's present capacity into the record where it is more; false where it is not. */
  async grow(present: DiskProfile): Promise<boolean> {
    // The device may have smaller blocks than the one that the guest was promised.
    const capacityBytes = present.capacityBytes - (present.capacityBytes % this.profile.logicalBlockBytes);
    if (capacityBytes <= this.profile.capacityBytes) return false;
    await this.#record.change((value) => ({ ...value, profile: { ...value.profile, capacityBytes } }));
    return true;
  }
}
