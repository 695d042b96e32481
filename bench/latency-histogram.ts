/**
 * Latencies as counts in logarithmic buckets: 64 to each power of two, so a percentile is at most 1.6 % off. Adding one allocates
 * nothing, and histograms of several queues or rounds add up.
 */

/** Times are kept in units of 100 ns: 31 bits of them are three and a half minutes. */
const UNITS_PER_MS = 10_000;
const UNITS_PER_US = 10;
const UNITS_MAX = 2 ** 31 - 1;

const SUB_BITS = 6;
const SUB_BUCKETS = 1 << SUB_BITS;
const BUCKETS = (32 - SUB_BITS) * SUB_BUCKETS;

export class LatencyHistogram {
  #buckets = new Float64Array(BUCKETS);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds one latency, in milliseconds as `performance.now()` counts them. */
  add(milliseconds: number): void {
    this.#buckets[bucketOf(Math.min(milliseconds * UNITS_PER_MS, UNITS_MAX) | 0)]++;
    this.#count++;
  }

  addAll(other: LatencyHistogram): void {
    for (let i = 0; i < BUCKETS; i++) this.#buckets[i] += other.#buckets[i];
    this.#count += other.#count;
  }

  clear(): void {
    this.#buckets.fill(0);
    this.#count = 0;
  }

  /** The latency that `percent` (0 to 100) of all did not exceed, in microseconds; 0 where there is none. */
  percentileUs(percent: number): number {
    const rank = Math.ceil((percent / 100) * this.#count);
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.#buckets[i];
      if (seen >= rank && seen > 0) return middleOf(i) / UNITS_PER_US;
    }
    return 0;
  }
}

/** Below 64 a bucket a unit; above, the leading bit says which power of two and the next six bits which part of it. */
function bucketOf(units: number): number {
  if (units < SUB_BUCKETS) return units;
  const power = 31 - Math.clz32(units);
  const sub = (units >>> (power - SUB_BITS)) & (SUB_BUCKETS - 1);
  return (power - SUB_BITS + 1) * SUB_BUCKETS + sub;
}

function middleOf(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket;
  const shift = Math.floor(bucket / SUB_BUCKETS) - 1;
  const low = (SUB_BUCKETS + (bucket % SUB_BUCKETS)) * 2 ** shift;
  return low + (2 ** shift - 1) / 2;
}
