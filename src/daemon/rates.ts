/**
 * What guests did over the last seconds: their counters, read by a timer and compared with what they were. The data path does not know of it. A
 * counter that begins anew, with a new frontend, begins a new series.
 */
import type { AttachmentRates, OperationRate } from '../api/types.ts';
import {
  type DiskOperation,
  type DiskStatistics,
  DURATION_BOUNDS_SECONDS,
  diskOperations,
} from '../frontends/vhost-user/disk-statistics.ts';
import type { Clock } from '../lib/clock.ts';

const SAMPLE_MS = 2_000;
/** Rates are over this time, or less where there is not that much yet. */
const WINDOW_MS = 10_000;
/** Less is no rate: one request in a millisecond is not a thousand a second. */
const SPAN_MS_MIN = 1_000;
const SAMPLES_MAX = WINDOW_MS / SAMPLE_MS + 1;

interface Sample {
  readonly atMs: number;
  readonly requests: Float64Array;
  readonly bytes: Float64Array;
  readonly errors: Float64Array;
  readonly durations: Float64Array;
}

interface Series {
  readonly statistics: DiskStatistics;
  /** The oldest first. */
  readonly samples: Sample[];
}

/** Whose counters are read; each key is one series. */
interface Sampled {
  readonly statistics: DiskStatistics | undefined;
}

export class Rates<Key extends Sampled> {
  readonly #clock: Clock;
  readonly #all: () => Iterable<Key>;
  #series = new Map<Key, Series>();
  #cancel: () => void = () => {};

  constructor(clock: Clock, all: () => Iterable<Key>) {
    this.#clock = clock;
    this.#all = all;
    this.#sample();
  }

  /** Of the last seconds; undefined where the counters were not read at two times yet. */
  of(key: Key): AttachmentRates | undefined {
    const series = this.#series.get(key);
    const { statistics } = key;
    if (series === undefined || series.statistics !== statistics) return undefined;
    const now = this.#clock.now();
    const from = series.samples.find(({ atMs }) => now - atMs <= WINDOW_MS + SAMPLE_MS && now - atMs >= SPAN_MS_MIN);
    if (from === undefined) return undefined;
    const seconds = (now - from.atMs) / 1000;
    const rate = (...operations: DiskOperation[]) => operationRate(statistics, from, operations, seconds);
    return {
      seconds: Number(seconds.toFixed(1)),
      read: rate('read'),
      write: rate('write'),
      other: rate('flush', 'discard', 'write-zeroes', 'get-id', 'other'),
    };
  }

  close(): void {
    this.#cancel();
    this.#series.clear();
  }

  #sample(): void {
    const before = this.#series;
    this.#series = new Map();
    for (const key of this.#all()) {
      const { statistics } = key;
      if (statistics === undefined) continue;
      const old = before.get(key);
      const series: Series = old?.statistics === statistics ? old : { statistics, samples: [] };
      series.samples.push(sampleOf(statistics, this.#clock.now()));
      if (series.samples.length > SAMPLES_MAX) series.samples.shift();
      this.#series.set(key, series);
    }
    this.#cancel = this.#clock.after(SAMPLE_MS, () => this.#sample());
  }
}

function sampleOf({ requests, bytes, errors, durations }: DiskStatistics, atMs: number): Sample {
  return { atMs, requests: requests.slice(), bytes: bytes.slice(), errors: errors.slice(), durations: durations.slice() };
}

function operationRate(
  now: DiskStatistics,
  from: Sample,
  operations: readonly DiskOperation[],
  seconds: number,
): OperationRate {
  let requests = 0;
  let bytes = 0;
  let errors = 0;
  const buckets = new Float64Array(DURATION_BOUNDS_SECONDS.length + 1);
  for (const operation of operations) {
    const index = diskOperations.indexOf(operation);
    requests += now.requests[index] - from.requests[index];
    bytes += now.bytes[index] - from.bytes[index];
    errors += now.errors[index] - from.errors[index];
    const first = index * buckets.length;
    for (let i = 0; i < buckets.length; i++) buckets[i] += now.durations[first + i] - from.durations[first + i];
  }
  return {
    requestsPerSecond: rounded(requests / seconds),
    bytesPerSecond: Math.round(bytes / seconds),
    errorsPerSecond: rounded(errors / seconds),
    ...(requests > 0 && { p50Ms: quantileMs(buckets, requests, 0.5), p99Ms: quantileMs(buckets, requests, 0.99) }),
  };
}

/** As Prometheus' histogram_quantile: evenly spread within the bucket; of the one without bound, its lower end. */
export function quantileMs(buckets: Float64Array, count: number, quantile: number): number {
  const rank = quantile * count;
  let before = 0;
  for (let i = 0; i < DURATION_BOUNDS_SECONDS.length; i++) {
    if (before + buckets[i] >= rank) {
      const low = i === 0 ? 0 : DURATION_BOUNDS_SECONDS[i - 1];
      const within = buckets[i] === 0 ? 0 : (rank - before) / buckets[i];
      return Number((1000 * (low + (DURATION_BOUNDS_SECONDS[i] - low) * within)).toPrecision(3));
    }
    before += buckets[i];
  }
  return 1000 * DURATION_BOUNDS_SECONDS[DURATION_BOUNDS_SECONDS.length - 1];
}

/** Small numbers keep a digit: a request every few seconds is not none. */
function rounded(value: number): number {
  return value < 10 ? Number(value.toFixed(1)) : Math.round(value);
}
