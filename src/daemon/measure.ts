/**
 * Counts and times the requests of one attachment on their way: a filter in front of its virtual device. It allocates nothing per request and looks
 * at the clock once per batch.
 */
import type { Batch, Replies } from '../device/batch.ts';
import type { Device, Guest, Quiesced } from '../device/device.ts';
import { DiskKind } from '../device/disk.ts';
import type { NetbusError } from '../device/errors.ts';
import type { MessageTable } from '../device/message-table.ts';
import type { Profile } from '../device/profile.ts';
import type { Source } from '../device/source.ts';
import type { Clock } from '../lib/clock.ts';

/** Upper bounds of the duration's buckets; one more is for all that took longer. */
export const DURATION_BUCKETS_SECONDS = [
  50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 0.5, 1, 5, 30,
];

const operations = ['other', 'read', 'write', 'flush', 'discard', 'write-zeroes'] as const;
export type Operation = (typeof operations)[number];

/** Totals since the attachment was made or restored. */
export interface OperationTotals {
  readonly operation: Operation;
  readonly requests: number;
  /** Those of them that were answered with an error. */
  readonly errors: number;
  readonly seconds: number;
  /** Not cumulative; the last one has no upper bound. */
  readonly buckets: Float64Array;
}

export class RequestMeter {
  readonly #clock: Clock;
  readonly #requests = new Float64Array(operations.length);
  readonly #errors = new Float64Array(operations.length);
  readonly #seconds = new Float64Array(operations.length);
  readonly #buckets = operations.map(() => new Float64Array(DURATION_BUCKETS_SECONDS.length + 1));

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The same source, measured. */
  measure(source: Source): Source {
    const open = () => new MeasuredDevice(source.open(), this);
    return {
      get profile() {
        return source.profile;
      },
      open,
    };
  }

  totals(): OperationTotals[] {
    return operations.map((operation, i) => ({
      operation,
      requests: this.#requests[i],
      errors: this.#errors[i],
      seconds: this.#seconds[i],
      buckets: this.#buckets[i],
    }));
  }

  nowMs(): number {
    return this.#clock.now();
  }

  add(kind: number, status: number, milliseconds: number): void {
    const operation = kind <= DiskKind.writeZeroes ? kind : 0;
    const seconds = milliseconds / 1000;
    this.#requests[operation]++;
    if (status !== 0) this.#errors[operation]++;
    this.#seconds[operation] += seconds;
    let bucket = 0;
    while (bucket < DURATION_BUCKETS_SECONDS.length && seconds > DURATION_BUCKETS_SECONDS[bucket]) bucket++;
    this.#buckets[operation][bucket]++;
  }
}

class MeasuredDevice implements Device {
  readonly #inner: Device;
  readonly #meter: RequestMeter;
  /** Per row: when it was taken. */
  #takenAt!: Float64Array;

  constructor(inner: Device, meter: RequestMeter) {
    this.#inner = inner;
    this.#meter = meter;
  }

  get profile(): Profile {
    return this.#inner.profile;
  }

  get depth(): number {
    return this.#inner.depth;
  }

  start(guest: Guest): void {
    this.#takenAt = new Float64Array(guest.requests.capacity);
    this.#inner.start(new MeasuringGuest(guest, this.#meter, this.#takenAt));
  }

  push(batch: Batch): number {
    const now = this.#meter.nowMs();
    const count = this.#inner.push(batch);
    for (let i = 0; i < count; i++) this.#takenAt[batch.rows[i]] = now;
    return count;
  }

  ready(): void {
    this.#inner.ready();
  }

  quiesce(signal: AbortSignal): Promise<Quiesced> {
    return this.#inner.quiesce(signal);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

class MeasuringGuest implements Guest {
  readonly requests: MessageTable;
  readonly #inner: Guest;
  readonly #meter: RequestMeter;
  readonly #takenAt: Float64Array;

  constructor(inner: Guest, meter: RequestMeter, takenAt: Float64Array) {
    this.#inner = inner;
    this.#meter = meter;
    this.#takenAt = takenAt;
    this.requests = inner.requests;
  }

  reply(replies: Replies): void {
    const now = this.#meter.nowMs();
    for (let i = 0; i < replies.count; i++) {
      const row = replies.rows[i];
      this.#meter.add(this.requests.kind[row], replies.statuses[i], now - this.#takenAt[row]);
    }
    this.#inner.reply(replies);
  }

  push(events: Batch): number {
    return this.#inner.push(events);
  }

  ready(): void {
    this.#inner.ready();
  }

  lost(cause: NetbusError): void {
    this.#inner.lost(cause);
  }
}
