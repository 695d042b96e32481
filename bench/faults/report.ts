/** What a campaign found: its last line for programs, and a table for people. */
import { formatTable } from '../../src/lib/format.ts';
import type { FaultKind } from './kinds.ts';

export interface FaultReport {
  readonly seed: number;
  readonly kinds: readonly FaultKind[];
  readonly byKind: ReadonlyMap<FaultKind, number>;
  /** Acknowledged writes that are gone, or are no content at all. */
  readonly lost: number;
  /** Old contents that came back. */
  readonly stale: number;
  /** Errors that no fault demands: failed requests, kernel messages, attachments that did not come back. */
  readonly guestErrors: number;
  /** Errors that a full or broken disk demands. */
  readonly expectedErrors: number;
  /** Descriptors, sessions and memory that were left over. */
  readonly leaks: number;
  /** From the end of a cause to the first acknowledgement, in milliseconds. */
  readonly recoveries: ReadonlyMap<FaultKind, readonly number[]>;
  /** In words: everything that is counted above as wrong. */
  readonly notes: readonly string[];
}

export const isGood = ({ lost, stale, guestErrors, leaks }: FaultReport): boolean => lost + stale + guestErrors + leaks === 0;

export function jsonLine(report: FaultReport, more: object = {}): string {
  const { seed, kinds, lost, stale, guestErrors, expectedErrors, leaks } = report;
  const byKind = Object.fromEntries(kinds.map((kind) => [kind, report.byKind.get(kind) ?? 0]));
  const recoveryMs = Object.fromEntries(
    kinds.flatMap((kind) => {
      const times = report.recoveries.get(kind) ?? [];
      return times.length === 0 ? [] : [[kind, { p50: percentile(times, 50), p99: percentile(times, 99) }]];
    }),
  );
  const faults = Object.values(byKind).reduce((sum, count) => sum + count, 0);
  return JSON.stringify({
    bench: 'faults',
    seed,
    faults,
    byKind,
    lost,
    stale,
    guestErrors,
    expectedErrors,
    leaks,
    recoveryMs,
    ...more,
  });
}

export function table(report: FaultReport): string {
  const rows = report.kinds.map((kind) => {
    const times = report.recoveries.get(kind) ?? [];
    const recovery = times.length === 0 ? ['', '', ''] : [50, 99, 100].map((share) => `${percentile(times, share)} ms`);
    return [kind, String(report.byKind.get(kind) ?? 0), ...recovery];
  });
  return formatTable(['FAULT', 'TIMES', 'BACK AFTER, HALF', '99 OF 100', 'ALL'], rows);
}

/** The nearest rank, in whole milliseconds. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.max(0, Math.ceil((share / 100) * sorted.length) - 1)]);
}
