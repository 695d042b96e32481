/**
 * The disk benchmark: the same front-end loads Netbus and the programs that do the same job today, in turns. Data is
 * verified before and after; a request that fails, fails the run.
 */
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Cleanup } from '../test/support/cleanup.ts';
import { pattern } from '../test/support/pattern.ts';
import type { Candidate, CandidateKind, RunningCandidate } from './candidates/candidate.ts';
import { local, nothing } from './candidates/local.ts';
import { netbus } from './candidates/netbus.ts';
import { peer } from './candidates/peer.ts';
import { cpuTimeMs } from './cpu-time.ts';
import type { Load } from './disk-loads.ts';
import { jsonLine, type Measurement, type Row, summarize, table } from './disk-report.ts';
import { LoadProcess } from './load-process.ts';
import type { DiskBenchOptions } from './options.ts';

const WORKING_SET_BYTES = 128 * 1024 * 1024;
const WRITE_BYTES = 1024 * 1024;
/** Each run's first part is not measured: code gets compiled, caches get warm. */
const WARMUP_MS = 500;
const SEED = 0x5eed;

/** nbdkit is at its best with one thread on some loads and with many on others. */
const PEER_THREADS = [1, 16];

const candidatesOf: Record<CandidateKind, () => Candidate[]> = {
  netbus: () => [netbus],
  local: () => [local],
  peer: () => PEER_THREADS.map(peer),
  null: () => [nothing],
};

interface Contestant {
  readonly candidate: Candidate;
  readonly running: RunningCandidate;
  readonly load: LoadProcess;
  readonly imagePath: string;
}

/** Runs the benchmark. Returns whether it was without errors; throws where it could not be run, or where data was wrong. */
export async function benchDisk(options: DiskBenchOptions): Promise<boolean> {
  const say = (text: string) => (options.json ? process.stderr : process.stdout).write(`${text}\n`);
  const cleanup = new Cleanup();
  try {
    const rows = await compare(options, cleanup, say);
    say(`\n${table(rows)}\n`);
    process.stdout.write(`${jsonLine(rows)}\n`);
    const failed = rows.flatMap(({ load, summaries }) =>
      summaries
        .filter(({ errors }) => errors > 0)
        .map(({ name, errors }) => `${name}: ${errors} requests of ${load.name} failed`),
    );
    for (const line of failed) process.stderr.write(`bench: ${line}\n`);
    return failed.length === 0;
  } finally {
    await cleanup.run();
  }
}

async function compare(options: DiskBenchOptions, cleanup: Cleanup, say: (text: string) => void): Promise<Row[]> {
  const directory = mkdtempSync(join(options.directory, 'netbus-bench-'));
  cleanup.add(directory, () => rmSync(directory, { recursive: true, force: true }));
  const contestants: Contestant[] = [];
  for (const candidate of options.only.flatMap((kind) => candidatesOf[kind]())) {
    const contestant = await startContestant(candidate, join(directory, candidate.name.replaceAll(' ', '')), options, cleanup);
    contestants.push(contestant);
    for (const line of contestant.running.commandLines) say(`${candidate.name}: ${line}`);
  }
  await verifyAll(contestants, SEED, say);
  say(`${options.rounds} rounds of ${options.seconds} s a load`);
  const rows: Row[] = [];
  for (const load of options.loads) {
    say(`${load.name} ...`);
    rows.push(await compareLoad(load, contestants, options));
  }
  await verifyAll(contestants, SEED + 1, say);
  return rows;
}

async function startContestant(
  candidate: Candidate,
  directory: string,
  { queues, transport }: DiskBenchOptions,
  cleanup: Cleanup,
): Promise<Contestant> {
  mkdirSync(directory);
  const imagePath = join(directory, 'disk.img');
  makeImage(imagePath);
  const running = await candidate.start({ cleanup, directory, imagePath, imageBytes: WORKING_SET_BYTES, queues, transport });
  const load = new LoadProcess(candidate.name, cleanup);
  await load.connect(running.socketPath, queues);
  return { candidate, running, load, imagePath };
}

async function compareLoad(load: Load, contestants: readonly Contestant[], options: DiskBenchOptions): Promise<Row> {
  const measurements = contestants.map((): Measurement[] => []);
  for (let round = 0; round < options.rounds; round++) {
    // Each round begins with another one, so that nobody always comes after the same.
    for (let turn = 0; turn < contestants.length; turn++) {
      const i = (round + turn) % contestants.length;
      measurements[i].push(await measure(contestants[i], load, options.seconds * 1000, SEED + round));
    }
  }
  const { transport, queues } = options;
  return { load, transport, queues, storage: 'cache', summaries: measurements.map(summarize) };
}

async function measure(
  { candidate, running, load }: Contestant,
  what: Load,
  measureMs: number,
  seed: number,
): Promise<Measurement> {
  const cpuBefore = cpuTimeMs(running.pids);
  const result = await load.run({ load: what, workingSetBytes: WORKING_SET_BYTES, warmupMs: WARMUP_MS, measureMs, seed });
  const cpuUs = ((cpuTimeMs(running.pids) - cpuBefore) * 1000) / Math.max(result.total, 1);
  return { kind: candidate.kind, name: candidate.name, ...result, cpuUs };
}

async function verifyAll(contestants: readonly Contestant[], seed: number, say: (text: string) => void): Promise<void> {
  for (const { candidate, load, imagePath } of contestants) {
    if (candidate.kind === 'null') continue;
    await load.verify(imagePath, WORKING_SET_BYTES, seed);
    say(`${candidate.name}: ${WORKING_SET_BYTES / 2 ** 20} MiB written, flushed, read back and compared, also in the image`);
  }
}

/** Written in full: no holes, and in the page cache. */
function makeImage(path: string): void {
  const fd = openSync(path, 'wx');
  for (let position = 0; position < WORKING_SET_BYTES; position += WRITE_BYTES) {
    writeSync(fd, pattern(WRITE_BYTES, 0, position));
  }
  closeSync(fd);
}
