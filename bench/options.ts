/** The command line of the benchmark. */
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { type CandidateKind, candidateKinds, type Transport } from './candidates/candidate.ts';
import { type Load, parseLoad, smokeLoads } from './disk-loads.ts';
import { type FaultKind, faultKinds } from './faults/kinds.ts';

export interface DiskBenchOptions {
  /** Measured time of each run, in seconds. */
  readonly seconds: number;
  readonly rounds: number;
  readonly loads: readonly Load[];
  readonly only: readonly CandidateKind[];
  readonly queues: number;
  readonly transport: Transport;
  /** Where the images are made. */
  readonly directory: string;
  /** Nothing but the JSON line on stdout. */
  readonly json: boolean;
}

export interface FaultBenchOptions {
  /** Undefined: a new one. */
  readonly seed: number | undefined;
  /** Most time for faults, in minutes. */
  readonly minutes: number;
  /** So many faults at least, if the time is enough. */
  readonly faults: number;
  readonly kinds: readonly FaultKind[];
  /** Nothing but the JSON line on stdout. */
  readonly json: boolean;
}

export interface MigrationBenchOptions {
  /** Undefined: a new one. */
  readonly seed: number | undefined;
  readonly migrations: number;
  /** Nothing but the JSON line on stdout. */
  readonly json: boolean;
}

export interface SwapBenchOptions {
  /** Undefined: a new one. */
  readonly seed: number | undefined;
  /** In all, over the sizes and what is on the disks. */
  readonly swaps: number;
  readonly sizesGiB: readonly number[];
  /** Nothing but the JSON line on stdout. */
  readonly json: boolean;
}

/** A mistake on the command line: one line for people. */
export class UsageError extends Error {}

export const usage = `usage: npm run bench -- disk [options]

  --load NAME      a load, as in randread-4k-qd32; may be repeated (default: ${smokeLoads.join(', ')})
  --seconds S      measured time of each run (default 2)
  --rounds N       runs of each load and candidate, of which the median counts (default 3)
  --only LIST      of ${candidateKinds.join(', ')} (default netbus,local,peer)
  --queues N       virtqueues, each with the load's depth (default 1)
  --transport T    tls or plain (default tls)
  --dir PATH       where the images are made, 128 MiB for each candidate (default ${tmpdir()})
  --json           only the JSON line on stdout; the rest goes to stderr

usage: npm run bench -- faults [options]

  --seed S         the faults of a run before; without it a new seed, which is printed
  --minutes M      no new fault after this time (default 20)
  --faults N       faults in all (default 20 of each kind; with --minutes as many as the time allows)
  --kinds LIST     of ${faultKinds.join(', ')} (default all)
  --json           as above

usage: npm run bench -- migration [options]

  --migrations N   how often the guest moves (default 51)
  --seed S         the moves of a run before; without it a new seed, which is printed
  --json           as above

usage: npm run bench -- swap [options]

  --swaps N        how many disks are swapped in all (default 100)
  --sizes LIST     of the disks, in GiB (default 1,8); two images of each are there at a time
  --seed S         the swaps of a run before; without it a new seed, which is printed
  --json           as above`;

const QUEUES_MAX = 16;
const ROUNDS_MAX = 100;
const SECONDS_MAX = 3600;

export function parseDiskBenchOptions(argv: readonly string[]): DiskBenchOptions {
  const values = parse(argv);
  const transport = values.transport;
  if (transport !== 'tls' && transport !== 'plain')
    throw new UsageError(`--transport: "${transport}" is neither tls nor plain`);
  return {
    seconds: positive('--seconds', values.seconds, SECONDS_MAX),
    rounds: whole('--rounds', values.rounds, ROUNDS_MAX),
    loads: values.load.map(load),
    only: values.only.split(',').map(kind),
    queues: whole('--queues', values.queues, QUEUES_MAX),
    transport,
    directory: values.dir,
    json: values.json,
  };
}

const SEED_MAX = 2 ** 32 - 1;
const MINUTES_MAX = 24 * 60;
/** With its beginning and the comparison at its end it stays below 25. */
const MINUTES_DEFAULT = 22;
const FAULTS_MAX = 1_000_000;
const FAULTS_PER_KIND_DEFAULT = 20;

export function parseFaultBenchOptions(argv: readonly string[]): FaultBenchOptions {
  const values = parseFaults(argv);
  const kinds = values.kinds === undefined ? faultKinds : [...new Set(values.kinds.split(',').map(faultKind))];
  const { seed, minutes, faults } = values;
  const asManyAsFit = minutes === undefined ? FAULTS_PER_KIND_DEFAULT * kinds.length : FAULTS_MAX;
  return {
    seed: seed === undefined ? undefined : seedOf(seed),
    minutes: minutes === undefined ? MINUTES_DEFAULT : positive('--minutes', minutes, MINUTES_MAX),
    faults: faults === undefined ? asManyAsFit : whole('--faults', faults, FAULTS_MAX),
    kinds,
    json: values.json,
  };
}

const MIGRATIONS_MAX = 10_000;

export function parseMigrationBenchOptions(argv: readonly string[]): MigrationBenchOptions {
  const { seed, migrations, json } = parseMigration(argv);
  return {
    seed: seed === undefined ? undefined : seedOf(seed),
    migrations: whole('--migrations', migrations, MIGRATIONS_MAX),
    json,
  };
}

function parseMigration(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        migrations: { type: 'string', default: '51' },
        seed: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

const SWAPS_MAX = 10_000;
/** What the guest works on has to fit, and there has to be something beside it. */
const SIZE_GIB_MIN = 0.125;
const SIZE_GIB_MAX = 1024;

export function parseSwapBenchOptions(argv: readonly string[]): SwapBenchOptions {
  const { seed, swaps, sizes, json } = parseSwap(argv);
  return {
    seed: seed === undefined ? undefined : seedOf(seed),
    swaps: whole('--swaps', swaps, SWAPS_MAX),
    sizesGiB: [...new Set(sizes.split(',').map(sizeGiB))],
    json,
  };
}

function parseSwap(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        swaps: { type: 'string', default: '100' },
        sizes: { type: 'string', default: '1,8' },
        seed: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function sizeGiB(text: string): number {
  const value = positive('--sizes', text, SIZE_GIB_MAX);
  if (value < SIZE_GIB_MIN) throw new UsageError(`--sizes: ${text} is less than ${SIZE_GIB_MIN}`);
  return value;
}

function seedOf(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) > SEED_MAX)
    throw new UsageError(`--seed: "${text}" is no whole number from 0 to ${SEED_MAX}`);
  return Number(text);
}

function parseFaults(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        seed: { type: 'string' },
        minutes: { type: 'string' },
        faults: { type: 'string' },
        kinds: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function faultKind(name: string): FaultKind {
  const found = faultKinds.find((kind) => kind === name);
  if (found === undefined) throw new UsageError(`--kinds: "${name}" is none of ${faultKinds.join(', ')}`);
  return found;
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        load: { type: 'string', multiple: true, default: [...smokeLoads] },
        seconds: { type: 'string', default: '2' },
        rounds: { type: 'string', default: '3' },
        only: { type: 'string', default: 'netbus,local,peer' },
        queues: { type: 'string', default: '1' },
        transport: { type: 'string', default: 'tls' },
        dir: { type: 'string', default: tmpdir() },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function load(name: string): Load {
  try {
    return parseLoad(name);
  } catch (error) {
    throw new UsageError(`--load: ${(error as Error).message}`);
  }
}

function kind(name: string): CandidateKind {
  const found = candidateKinds.find((kind) => kind === name);
  if (found === undefined) throw new UsageError(`--only: "${name}" is none of ${candidateKinds.join(', ')}`);
  return found;
}

function positive(option: string, text: string, max: number): number {
  const value = Number(text);
  if (!(value > 0 && value <= max)) throw new UsageError(`${option}: "${text}" is no number above 0 and up to ${max}`);
  return value;
}

function whole(option: string, text: string, max: number): number {
  const value = positive(option, text, max);
  if (!Number.isInteger(value)) throw new UsageError(`${option}: "${text}" is no whole number`);
  return value;
}
