/** The times without a sign of life around something that happened. */

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The gaps between neighbours in `times` (ascending, in milliseconds) that overlap the span. */
export function gapsMs(times: readonly number[], { fromMs, toMs }: Span): number[] {
  const gaps: number[] = [];
  for (let i = 1; i < times.length; i++) {
    const [begins, ends] = [times[i - 1]!, times[i]!];
    if (ends >= fromMs && begins <= toMs) gaps.push(ends - begins);
  }
  return gaps;
}

/** The longest of them; 0 where there is none. */
export function longestGapMs(times: readonly number[], span: Span): number {
  return gapsMs(times, span).reduce((longest, gap) => Math.max(longest, gap), 0);
}
