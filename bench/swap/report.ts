/** What a run of swaps gave: its last line for programs, and a table for people. */
import { formatTable } from '../../src/lib/format.ts';
import { spread } from '../migration/report.ts';
import type { Content, Placement } from './plan.ts';
import type { Swapped } from './swapper.ts';
import type { Done } from './work-guest.ts';

/** One swap that took place. */
export interface Sample extends Swapped {
  readonly sizeGiB: number;
  readonly content: Content;
  readonly placement: Placement;
  /** What the guest got done in the seconds before it, and meanwhile. */
  readonly before: Done;
  readonly during: Done;
}

export interface SwapReport {
  readonly seed: number;
  /** Those that were begun, by Netbus. */
  readonly swaps: number;
  readonly failed: number;
  /** Reads that gave something else than was written, requests that failed, and what the guest's kernel complained of. */
  readonly corruptions: number;
  /** Acknowledged writes that are not on the disk. */
  readonly lostWrites: number;
  readonly samples: readonly Sample[];
  /** By QEMU's mirror. */
  readonly qemu: readonly Sample[];
}

export const isGood = ({ failed, corruptions, lostWrites }: SwapReport): boolean => failed + corruptions + lostWrites === 0;

export function jsonLine({ swaps, failed, corruptions, lostWrites, samples, qemu }: SwapReport): string {
  const sizes = [...new Set(samples.map(({ sizeGiB }) => sizeGiB))];
  const stalls = (some: readonly Sample[]) => spread(some.flatMap(({ stallMs }) => stallMs ?? []));
  const ofSize = (sizeGiB: number) => samples.filter((sample) => sample.sizeGiB === sizeGiB);
  return JSON.stringify({
    bench: 'swap',
    swaps,
    failed,
    corruptions,
    lostWrites,
    stallMs: stalls(samples) ?? null,
    stallMsBySizeGiB: Object.fromEntries(sizes.map((size) => [size, stalls(ofSize(size))?.p50 ?? null])),
    copyRatioToQemuMirror: copyRatio(samples, qemu) ?? null,
    guestThroughputRatioDuring: hundredth(median(samples.map(throughputRatio))) ?? null,
    guestThroughputRatioDuringQemuMirror: hundredth(median(qemu.map(throughputRatio))) ?? null,
    guestLongestGapMs: spread(samples.map(({ during }) => longest(during))) ?? null,
    guestLongestGapBeforeMs: spread(samples.map(({ before }) => longest(before))) ?? null,
    guestLongestGapQemuMirrorMs: spread(qemu.map(({ during }) => longest(during))) ?? null,
    guestP99RatioDuring: p99Ratio(samples) ?? null,
    guestP99RatioDuringQemuMirror: p99Ratio(qemu) ?? null,
  });
}

export const longest = ({ gapsMs }: Done): number => gapsMs.reduce((most, gap) => Math.max(most, gap), 0);

/** The p99 of the writer's answers meanwhile, to that of before: a swap alone has too few of them. */
export function p99Ratio(samples: readonly Sample[]): number | undefined {
  const p99 = (gaps: readonly number[]) => gaps.toSorted((a, b) => a - b)[Math.ceil(gaps.length * 0.99) - 1];
  const during = p99(samples.flatMap((sample) => sample.during.gapsMs));
  const before = p99(samples.flatMap((sample) => sample.before.gapsMs));
  return during === undefined || before === undefined ? undefined : hundredth(during / before);
}

/** How much faster than QEMU's mirror: of each kind of swap that both did, the ratio of the medians; of these the median. */
export function copyRatio(samples: readonly Sample[], qemu: readonly Sample[]): number | undefined {
  const ours = byKind(samples);
  const ratios = [...byKind(qemu)].flatMap(([kind, theirs]) => {
    const own = median((ours.get(kind) ?? []).map(({ wholeMs }) => wholeMs));
    return own === undefined ? [] : median(theirs.map(({ wholeMs }) => wholeMs))! / own;
  });
  return hundredth(median(ratios));
}

/** A row for each kind of swap. */
export function table({ samples, qemu }: SwapReport): string {
  const others = byKind(qemu);
  const cell = (values: readonly number[]) => {
    const found = spread(values);
    return found === undefined ? '-' : `${found.p50} / ${found.max}`;
  };
  const rows = [...byKind(samples)].map(([kind, some]) => {
    const theirs = others.get(kind) ?? [];
    const share = (of: readonly Sample[]) =>
      of.length === 0 ? '-' : `${Math.round(100 * median(of.map(throughputRatio))!)} %`;
    return [
      kind,
      String(some.length),
      ...[some, theirs].map((of) => cell(of.map(({ wholeMs }) => wholeMs))),
      cell(some.flatMap(({ stallMs }) => stallMs ?? [])),
      ...[some, theirs].map((of) => cell(of.map(({ during }) => longest(during)))),
      cell(some.map(({ before }) => longest(before))),
      ...[some, theirs].map(share),
    ];
  });
  const columns = ['WHOLE', 'QEMU', 'STALL', 'LONGEST GAP', 'QEMU', 'BEFORE', 'THROUGHPUT', 'QEMU'];
  return formatTable(['p50 / max, ms', 'TIMES', ...columns], rows);
}

function byKind(samples: readonly Sample[]): Map<string, Sample[]> {
  const kinds = new Map<string, Sample[]>();
  for (const sample of samples) {
    const kind = `${sample.sizeGiB} GiB ${sample.content}, ${sample.placement}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), sample]);
  }
  return kinds;
}

const throughputRatio = ({ before, during }: Sample): number => during.bytesPerSecond / before.bytesPerSecond;

function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length / 2) - 1];
}

function hundredth(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.round(value * 100) / 100;
}
