/** What a run of migrations gave: its last line for programs, and a table for people. */
import { formatTable } from '../../src/lib/format.ts';
import type { Placement } from './plan.ts';

/** One migration that took place, in milliseconds. */
export interface Sample {
  readonly placement: Placement;
  readonly totalMs: number;
  readonly downtimeMs: number;
  /** On the host's clock, without a sign of the guest. */
  readonly gapMs: number;
  /** Of the device: at its stop and its start together; left out where there is none, or none that says so. */
  readonly addedMs?: number;
  readonly drainMs?: number;
}

export interface MigrationReport {
  readonly seed: number;
  /** Those that were begun. */
  readonly migrations: number;
  readonly failed: number;
  /** Reads that gave something else than was written, requests that failed, and what the guest's kernel complained of. */
  readonly corruptions: number;
  /** Acknowledged writes that are not on the disk. */
  readonly lostWrites: number;
  readonly samples: readonly Sample[];
  /** The same guest without a disk, and with the disk behind two storage daemons of QEMU's. */
  readonly withoutDisk: readonly Sample[];
  readonly storageDaemons: readonly Sample[];
  /** In words: all that is counted above as wrong. */
  readonly notes: readonly string[];
}

export const isGood = ({ failed, corruptions, lostWrites }: MigrationReport): boolean =>
  failed + corruptions + lostWrites === 0;

export interface Spread {
  readonly p50: number;
  readonly max: number;
}

/** Of measured values, to a tenth of a millisecond; the nearest rank. Undefined where there are none. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const tenth = (value: number) => Math.round(value * 10) / 10;
  return { p50: tenth(sorted[Math.ceil(sorted.length / 2) - 1]!), max: tenth(sorted.at(-1)!) };
}

export function jsonLine({ migrations, failed, corruptions, lostWrites, samples, withoutDisk }: MigrationReport): string {
  return JSON.stringify({
    bench: 'migration',
    migrations,
    failed,
    corruptions,
    lostWrites,
    addedStallMs: spread(samples.flatMap(({ addedMs }) => addedMs ?? [])) ?? null,
    drainMs: spread(samples.flatMap(({ drainMs }) => drainMs ?? [])) ?? null,
    downtimeMs: spread(samples.map(({ downtimeMs }) => downtimeMs)) ?? null,
    guestLongestGapMs: spread(samples.map(({ gapMs }) => gapMs)) ?? null,
    guestLongestGapWithoutDiskMs: spread(withoutDisk.map(({ gapMs }) => gapMs)) ?? null,
  });
}

/** A row for each placement, for all of them together, and for what is compared with. */
export function table({ samples, withoutDisk, storageDaemons }: MigrationReport): string {
  const placements: Placement[] = ['local to remote', 'remote to remote', 'remote to local'];
  const rows = placements.map((placement) =>
    row(
      placement,
      samples.filter((sample) => sample.placement === placement),
    ),
  );
  rows.push(row('all', samples), row('two qemu-storage-daemons', storageDaemons), row('without a disk', withoutDisk));
  return formatTable(['p50 / max, ms', 'TIMES', 'TOTAL', 'DOWNTIME', 'ADDED STALL', 'DRAIN', "GUEST'S LONGEST GAP"], rows);
}

function row(what: string, samples: readonly Sample[]): string[] {
  const cell = (values: readonly number[]) => {
    const found = spread(values);
    return found === undefined ? '-' : `${found.p50} / ${found.max}`;
  };
  return [
    what,
    String(samples.length),
    cell(samples.map(({ totalMs }) => totalMs)),
    cell(samples.map(({ downtimeMs }) => downtimeMs)),
    cell(samples.flatMap(({ addedMs }) => addedMs ?? [])),
    cell(samples.flatMap(({ drainMs }) => drainMs ?? [])),
    cell(samples.map(({ gapMs }) => gapMs)),
  ];
}
