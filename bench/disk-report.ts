/** What the rounds of the disk benchmark come to: medians, the best of each kind, a table and the JSON line. */
import type { CandidateKind, Transport } from './candidates/candidate.ts';
import type { Load } from './disk-loads.ts';

/** One run of one load on one candidate. */
export interface Measurement {
  readonly kind: CandidateKind;
  /** The candidate's name. */
  readonly name: string;
  readonly iops: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly errors: number;
  /** CPU time of the candidate's processes per request, in microseconds. */
  readonly cpuUs: number;
  /** CPU time of the front-end as a share of the time. */
  readonly driverBusy: number;
}

/** Medians over the rounds of one candidate; errors are summed up. */
export interface Summary extends Measurement {
  readonly rounds: number;
}

export interface Row {
  readonly load: Load;
  readonly transport: Transport;
  readonly queues: number;
  readonly storage: 'cache';
  /** One for each candidate. */
  readonly summaries: readonly Summary[];
}

const MB = 1e6;

export function summarize(rounds: readonly Measurement[]): Summary {
  const { kind, name } = rounds[0];
  const of = (pick: (one: Measurement) => number) => median(rounds.map(pick));
  return {
    kind,
    name,
    rounds: rounds.length,
    iops: of(({ iops }) => iops),
    p50Us: of(({ p50Us }) => p50Us),
    p99Us: of(({ p99Us }) => p99Us),
    p999Us: of(({ p999Us }) => p999Us),
    errors: rounds.reduce((sum, { errors }) => sum + errors, 0),
    cpuUs: of(({ cpuUs }) => cpuUs),
    driverBusy: of(({ driverBusy }) => driverBusy),
  };
}

/** The candidate of a kind that did most. */
export function best(row: Row, kind: CandidateKind): Summary | undefined {
  return row.summaries.filter((one) => one.kind === kind).toSorted((a, b) => b.iops - a.iops)[0];
}

/** Netbus's throughput as a multiple of the best peer's. */
export function ratioToPeer(row: Row): number | undefined {
  const ours = best(row, 'netbus');
  const theirs = best(row, 'peer');
  return ours === undefined || theirs === undefined || theirs.iops === 0 ? undefined : ours.iops / theirs.iops;
}

/** The last line of the output. Candidates that did not run are left out. */
export function jsonLine(rows: readonly Row[]): string {
  return JSON.stringify({ bench: 'disk', rows: rows.map(jsonRow) });
}

function jsonRow(row: Row) {
  const { load, transport, queues, storage } = row;
  const ratio = ratioToPeer(row);
  return {
    load: load.name,
    transport,
    queues,
    storage,
    ...jsonCandidate(row, 'netbus'),
    ...jsonCandidate(row, 'local'),
    ...jsonCandidate(row, 'peer'),
    ...jsonCandidate(row, 'null'),
    ...(ratio === undefined ? {} : { ratioToPeer: round(ratio, 2) }),
  };
}

function jsonCandidate(row: Row, kind: CandidateKind) {
  const summary = best(row, kind);
  if (summary === undefined) return {};
  const { name, iops, p50Us, p99Us, p999Us, cpuUs } = summary;
  // A failed request fails the run, also one of a candidate that came second.
  const errors = row.summaries.filter((one) => one.kind === kind).reduce((sum, one) => sum + one.errors, 0);
  const figures = { iops: Math.round(iops), p50Us: round(p50Us, 1), p99Us: round(p99Us, 1), p999Us: round(p999Us, 1) };
  return { [kind]: { ...figures, errors, cpuUs: round(cpuUs, 1), ...(name === kind ? {} : { name }) } };
}

/** A table for people: a line for each candidate of each load. */
export function table(rows: readonly Row[]): string {
  const lines = [
    ['load', 'candidate', 'requests/s', 'MB/s', 'p50 µs', 'p99 µs', 'p99.9 µs', 'CPU µs', 'front-end', 'errors', 'to peer'],
  ];
  for (const row of rows) {
    const reference = best(row, 'peer');
    for (const [i, one] of row.summaries.entries()) {
      lines.push([
        i === 0 ? row.load.name : '',
        one.name,
        String(Math.round(one.iops)),
        String(Math.round((one.iops * row.load.blockBytes) / MB)),
        one.p50Us.toFixed(1),
        one.p99Us.toFixed(1),
        one.p999Us.toFixed(1),
        one.cpuUs.toFixed(1),
        `${Math.round(one.driverBusy * 100)} %`,
        String(one.errors),
        reference === undefined || reference.iops === 0 ? '' : `${(one.iops / reference.iops).toFixed(2)}x`,
      ]);
    }
  }
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  // Names to the left, numbers to the right.
  const pad = (text: string, column: number) => (column < 2 ? text.padEnd(widths[column]) : text.padStart(widths[column]));
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n');
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
