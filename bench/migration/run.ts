/** One guest that works and moves again and again, and what it, its disk and the daemons have to say of it. */
import { DebugPort } from '../../test/guest/debug-port.ts';
import { NetbusDisks, type Stalls } from '../../test/guest/netbus-disks.ts';
import { type Disks, Traveller } from '../../test/guest/traveller.ts';
import type { Cleanup } from '../../test/support/cleanup.ts';
import type { Cluster } from '../../test/support/cluster.ts';
import { longestGapMs } from '../../test/support/gaps.ts';
import { waitFor } from '../../test/support/wait.ts';
import { FioGuest, fioOptions } from '../faults/fio-guest.ts';
import { DEVICE_HOST, type Move, placementOf } from './plan.ts';
import { BlockRecorder, checkImage, WRITER_END, WRITER_PORT, writerCommand } from './recorder.ts';
import type { Sample } from './report.ts';

const MIB = 1024 * 1024;
/** fio has the disk's beginning, the writer what comes after it. */
export const DISK_MIB = 64;
const FIO_MIB = 32;
const FIO_DEPTH = 16;
const FIO_BLOCK_KIB_MAX = 64;
const WRITER_BLOCKS = 1024;
const WRITER_SEED = 7;

const MEMORY_MIB = 384;
/** Generous: they end what hangs, and say nothing about speed. In milliseconds. */
const WORK_MS_MAX = 60_000;
/** The guest's gap is looked for until so long after it has arrived, in milliseconds. */
const AFTERWARDS_MS = 1_000;
/** The daemons are asked so long after the guest has arrived, in milliseconds: at once they would do that while the guest waits for its disk. */
const ASKED_AFTER_MS = 200;
/** Writes and flushes that are answered at a new place before the guest counts as being back. */
const ANSWERS = 20;
/** Descriptions that are kept and told. */
const NOTES_MAX = 50;

/** How a guest's disks came through all of it. */
export interface Outcome {
  readonly samples: readonly Sample[];
  readonly migrations: number;
  readonly failed: number;
  readonly corruptions: number;
  readonly lostWrites: number;
  readonly notes: readonly string[];
}

export interface RunOptions {
  readonly cluster: Cluster;
  readonly cleanup: Cleanup;
  readonly vm: string;
  readonly disks: Disks;
  /** The image behind them; left out where the guest has no disk. */
  readonly imagePath?: string;
  readonly moves: readonly Move[];
  readonly seed: number;
  readonly say: (text: string) => void;
}

/** Boots the guest at the device's host, moves it, ends it. Whatever goes wrong with a move is told, and the rest goes on where it can. */
export async function runMoves(options: RunOptions): Promise<Outcome> {
  const run = new Run(options);
  await run.begin();
  for (const move of options.moves) if (!(await run.move(move))) break;
  return run.end();
}

class Run {
  readonly #options: RunOptions;
  readonly #samples: Sample[] = [];
  readonly #notes: string[] = [];
  readonly #recorder = new BlockRecorder(WRITER_BLOCKS, WRITER_SEED);
  #traveller: Traveller | undefined;
  #fio: FioGuest | undefined;
  #migrations = 0;
  #failed = 0;
  #corruptions = 0;
  #lostWrites = 0;

  constructor(options: RunOptions) {
    this.#options = options;
  }

  async begin(): Promise<void> {
    const { cluster, cleanup, vm, disks, imagePath, seed } = this.#options;
    const port = new DebugPort((data) => this.#recorder.feed(data));
    const ports = imagePath === undefined ? [] : [{ place: WRITER_PORT, port }];
    const guestOptions = { name: vm, cleanup, fio: true, memoryMiB: MEMORY_MIB };
    this.#traveller = await Traveller.boot(cluster.host(DEVICE_HOST), { ...guestOptions, disks, ports });
    const { guest } = this.#traveller;
    const work = { disk: 'vda', sizeMiB: FIO_MIB, depth: FIO_DEPTH, blockKiBMax: FIO_BLOCK_KIB_MAX };
    if (imagePath === undefined) {
      // The same work on memory: what the guest writes anew while it is copied is about as much.
      const fio = `fio --name=memory --directory=/tmp --ioengine=psync ${fioOptions(work, seed)}`;
      await guest.succeed(`(while ${fio}; do :; done) </dev/null >/dev/null 2>&1 &`);
      return;
    }
    this.#fio = await FioGuest.start(guest, [work], seed);
    await guest.succeed(writerCommand(FIO_MIB * MIB, WRITER_BLOCKS, WRITER_SEED));
    await this.#works();
  }

  /** Returns whether there is a guest to go on with. */
  async move({ to: name, restMs }: Move): Promise<boolean> {
    const { cluster, say } = this.#options;
    const traveller = this.#traveller!;
    const to = cluster.host(name);
    const from = traveller.host;
    // A failed one left it there.
    if (to === from) return true;
    await sleep(restMs);
    const number = ++this.#migrations;
    const placement = placementOf(from.name, to.name);
    const what = `${number}. ${from.name} to ${to.name}, ${placement}`;
    let stalls: Stalls | undefined;
    try {
      const migration = await traveller.move(to, {
        arrived: async () => {
          await sleep(ASKED_AFTER_MS);
          stalls = await this.#stalls(from, to);
        },
      });
      if (this.#fio !== undefined) this.#fio.guest = traveller.guest;
      await this.#works();
      await sleep(Math.max(0, migration.resumedAtMs + AFTERWARDS_MS - performance.now()));
      const span = { fromMs: migration.beganAtMs, toMs: migration.resumedAtMs + AFTERWARDS_MS };
      const gapMs = longestGapMs(traveller.ticks.timesMs, span);
      const { totalMs, downtimeMs } = migration;
      const ours = stalls === undefined ? {} : { addedMs: stalls.stopMs + stalls.startMs, drainMs: stalls.drainMs };
      this.#samples.push({ placement, totalMs, downtimeMs, gapMs, ...ours });
      say(`${what}: ${totalMs} ms, downtime ${downtimeMs} ms, gap ${gapMs.toFixed(1)} ms${describeStalls(stalls)}`);
    } catch (thrown) {
      this.#failed++;
      this.#note(`${what}: ${(thrown as Error).message}`);
    }
    return this.#isWell();
  }

  /** Ends the guest and looks at the disk. */
  async end(): Promise<Outcome> {
    const { imagePath } = this.#options;
    const traveller = this.#traveller!;
    if (imagePath === undefined) await traveller.guest.kill();
    else {
      try {
        await this.#fio!.stop();
        await traveller.guest.succeed(WRITER_END);
        await traveller.powerOff();
      } catch (thrown) {
        this.#note(`the guest could not be ended: ${(thrown as Error).message}`);
        await traveller.guest.kill();
      }
      this.#checkImage(imagePath);
    }
    return {
      samples: this.#samples,
      migrations: this.#migrations,
      failed: this.#failed,
      corruptions: this.#corruptions,
      lostWrites: this.#lostWrites,
      notes: this.#notes,
    };
  }

  async #stalls(from: Traveller['host'], to: Traveller['host']): Promise<Stalls | undefined> {
    const { disks } = this.#options;
    return disks instanceof NetbusDisks ? disks.stalls(from, to) : undefined;
  }

  /** The disk answers. */
  async #works(): Promise<void> {
    if (this.#fio === undefined) return;
    const until = this.#recorder.acknowledged + ANSWERS;
    await waitFor('the guest to write', () => this.#recorder.acknowledged >= until, WORK_MS_MAX);
  }

  /** Counts what the guest says of its disk. False where it says nothing any more. */
  async #isWell(): Promise<boolean> {
    const { guest } = this.#traveller!;
    try {
      if (this.#fio === undefined) {
        await guest.waitUntilReady();
        return true;
      }
      this.#fio.guest = guest;
      const problems = await this.#fio.problems(WORK_MS_MAX);
      this.#corruptions += problems.length;
      for (const problem of problems) this.#note(`guest: ${problem}`);
      // What its fio found it finds no second time.
      return problems.length === 0;
    } catch (thrown) {
      this.#note(`the guest is gone: ${(thrown as Error).message}`);
      return false;
    }
  }

  /** Each block that the writer was told is written, in the image and beside all daemons. */
  #checkImage(imagePath: string): void {
    const { corruptions, lostWrites, notes } = checkImage(this.#recorder, imagePath, FIO_MIB * MIB);
    this.#corruptions += corruptions;
    this.#lostWrites += lostWrites;
    for (const note of notes) this.#note(note);
    const { ledger } = this.#recorder;
    this.#options.say(`${ledger.writes} writes of the writer were recorded, and looked for in the image`);
  }

  #note(text: string): void {
    if (this.#notes.length >= NOTES_MAX) return;
    this.#notes.push(text);
    this.#options.say(`  ✗ ${text}`);
  }
}

function describeStalls(stalls: Stalls | undefined): string {
  if (stalls === undefined) return '';
  const { stopMs, startMs, drainMs, outcome } = stalls;
  return `, added ${stopMs.toFixed(1)} + ${startMs.toFixed(1)} ms, drain ${drainMs.toFixed(1)} ms, ${outcome}`;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
