/** Counters of one disk, for `status` and /metrics: typed arrays that the data path adds to. */

export const diskOperations = ['read', 'write', 'flush', 'discard', 'write-zeroes', 'get-id', 'other'] as const;
export type DiskOperation = (typeof diskOperations)[number];

/** Upper bounds of the buckets of `netbus_block_request_duration_seconds`; one more bucket takes what is above. */
export const DURATION_BOUNDS_SECONDS = [
  0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

const BUCKETS = DURATION_BOUNDS_SECONDS.length + 1;

export class DiskStatistics {
  /** By index in `diskOperations`. */
  readonly requests = new Float64Array(diskOperations.length);
  readonly bytes = new Float64Array(diskOperations.length);
  readonly errors = new Float64Array(diskOperations.length);
  readonly durationSums = new Float64Array(diskOperations.length);
  /** A row of buckets per operation; not cumulative. */
  readonly durations = new Float64Array(diskOperations.length * BUCKETS);

  record(operation: number, bytes: number, failed: boolean, seconds: number): void {
    this.requests[operation]++;
    if (failed) this.errors[operation]++;
    else this.bytes[operation] += bytes;
    this.durationSums[operation] += seconds;
    let bucket = 0;
    while (bucket < BUCKETS - 1 && seconds > DURATION_BOUNDS_SECONDS[bucket]) bucket++;
    this.durations[operation * BUCKETS + bucket]++;
  }

  /** Counts of one operation's buckets, not cumulative, the one without bound last. A view. */
  durationsOf(operation: DiskOperation): Float64Array {
    const first = diskOperations.indexOf(operation) * BUCKETS;
    return this.durations.subarray(first, first + BUCKETS);
  }

  /** As plain values. */
  counters(): Record<DiskOperation, { requests: number; bytes: number; errors: number }> {
    const entries = diskOperations.map((name, i) => [
      name,
      { requests: this.requests[i], bytes: this.bytes[i], errors: this.errors[i] },
    ]);
    return Object.fromEntries(entries);
  }
}
