/** The longest time without a sign of life around something that happened. */

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The longest gap between neighbours in `times` (ascending, in milliseconds) that overlaps the span; 0 where there is none. */
export function longestGapMs(times: readonly number[], { fromMs, toMs }: Span): number {
  let longest = 0;
  for (let i = 1; i < times.length; i++) {
    const [begins, ends] = [times[i - 1]!, times[i]!];
    if (ends >= fromMs && begins <= toMs) longest = Math.max(longest, ends - begins);
  }
  return longest;
}
