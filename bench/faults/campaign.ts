/** The campaign: rounds of faults, and after each a look at everything that was promised. */
import { closeSync, openSync, readSync } from 'node:fs';
import { waitFor } from '../../test/support/wait.ts';
import { BLOCK_BYTES } from './block-ledger.ts';
import { type BlockWriter, notesOf } from './block-writer.ts';
import { Injector } from './injector.ts';
import type { FaultKind } from './kinds.ts';
import { LeakWatch } from './leaks.ts';
import type { FaultReport } from './report.ts';
import type { PlannedFault, Round } from './schedule.ts';
import { DEVICE_HOST, type Stage, VM_HOST } from './stage.ts';

export interface CampaignOptions {
  readonly seed: number;
  readonly kinds: readonly FaultKind[];
  readonly rounds: Iterator<Round, never>;
  /** Ends after the round with which so many faults have been done, or so much time is over. */
  readonly faults: number;
  readonly untilMs: number;
  /** How long guests may wait after all causes are gone, in milliseconds. Generous: it says that something hangs, not that it is slow. */
  readonly backMsMax: number;
  /** How long a VMM may wait for an answer, in milliseconds; VMM_MS_MAX by default. */
  readonly vmmMsMax?: number;
  /** Ends after the first round in which something was wrong. */
  readonly untilFound?: boolean;
}

/** Requests that are answered before a round begins: of the writer on m1, and of each other. */
const WORK_BEFORE = 400;
const WORK_BEFORE_OTHERS = 25;

/** The daemon answers within 10 s, and has to be given the processor for that. */
const VMM_MS_MAX = 30_000;
/** Of a hundred rounds: those in which the VM is stopped meanwhile, and goes on. */
const STOPPED_PERCENT = 25;
const STOP_AFTER_MS_MAX = 500;

/** Faults that an error of the disk's users belongs to. */
const DEMANDS_ERRORS: readonly FaultKind[] = ['disk-full', 'io-error'];

export class Campaign {
  readonly #stage: Stage;
  readonly #options: CampaignOptions;
  readonly #say: (text: string) => void;
  readonly #injector: Injector;
  readonly #leakWatch: LeakWatch;
  readonly #byKind = new Map<FaultKind, number>();
  readonly #recoveries = new Map<FaultKind, number[]>();
  readonly #notes: string[] = [];
  #guestErrors = 0;
  #expectedErrors = 0;
  #leaks = 0;

  constructor(stage: Stage, options: CampaignOptions, say: (text: string) => void) {
    this.#stage = stage;
    this.#options = options;
    this.#say = say;
    this.#injector = new Injector(stage);
    this.#leakWatch = new LeakWatch(stage.cluster, [DEVICE_HOST, VM_HOST]);
  }

  async run(): Promise<FaultReport> {
    const { seed, kinds, rounds, faults, untilMs, untilFound = false } = this.#options;
    for (const writer of this.#stage.writers) writer.resume();
    await this.#everybodyIsBack();
    await this.#leakWatch.begin();
    let done = 0;
    for (let number = 1; done < faults && performance.now() < untilMs; number++) {
      const round = rounds.next().value;
      const phases = await this.#play(round);
      done += round.length;
      this.#say(`${number}. ${describe(round)}: ${phases}`);
      if (untilFound && this.#hasFound()) break;
    }
    await this.#checkImage();
    const writers = this.#stage.writers;
    return {
      seed,
      kinds,
      byKind: this.#byKind,
      lost: sum(writers, ({ lost }) => lost),
      stale: sum(writers, ({ stale }) => stale),
      guestErrors: this.#guestErrors,
      expectedErrors: this.#expectedErrors,
      leaks: this.#leaks,
      recoveries: this.#recoveries,
      notes: [...this.#notes, ...writers.flatMap((writer) => (writer.findings.length > 0 ? notesOf(writer) : []))],
    };
  }

  /** Returns how long each part of it took, in words. */
  async #play(round: Round): Promise<string> {
    const watch = new Stopwatch();
    await this.#everybodyWorks();
    watch.lap('at work');
    const before = this.#stage.writers.map(({ errorCount }) => errorCount);
    // The cause that ends last is the one that everybody waits for.
    let last: (() => Promise<void>) | undefined;
    await Promise.all([
      ...round.map(async (fault) => {
        last = await this.#suffer(fault);
      }),
      this.#stopVm(round[0]),
    ]);
    watch.lap('causes gone');
    await last?.();
    await this.#everybodyIsBack();
    watch.lap('all back');
    await this.#countErrors(round, before);
    await this.#check();
    watch.lap('checked');
    return watch.text();
  }

  /** A fault that meets nobody at work says nothing. By number, so that a slow machine has as much to lose. */
  async #everybodyWorks(): Promise<void> {
    const { writer, writers } = this.#stage;
    const until = writers.map((one) => one.acknowledged + (one === writer ? WORK_BEFORE : WORK_BEFORE_OTHERS));
    const done = () => writers.every((one, i) => one.acknowledged >= until[i]);
    // One that stands still is told of after the round.
    await waitFor('work', done, this.#options.backMsMax).catch(() => undefined);
  }

  /** From the first moment of a fault to the last. Returns what waits for the recovery. */
  async #suffer(fault: PlannedFault): Promise<() => Promise<void>> {
    const { kind, atMs, durationMs } = fault;
    const { backMsMax } = this.#options;
    await sleep(atMs);
    const end = await this.#injector.begin(fault);
    await sleep(durationMs);
    await end();
    const goneAt = performance.now();
    const acknowledgement = this.#stage.writerOf(kind).nextAcknowledgement(backMsMax);
    this.#byKind.set(kind, (this.#byKind.get(kind) ?? 0) + 1);
    return async () => {
      const at = await acknowledgement;
      if (at === undefined) return;
      const times = this.#recoveries.get(kind) ?? [];
      this.#recoveries.set(kind, [...times, at - goneAt]);
    };
  }

  /** In some rounds, while the first cause lasts: a VMM that stops its VM has its answers in time, whatever has failed. */
  async #stopVm({ dice, durationMs }: PlannedFault): Promise<void> {
    if ((dice * 1_000) % 1 >= STOPPED_PERCENT / 100) return;
    const { vmmMsMax = VMM_MS_MAX, backMsMax } = this.#options;
    const { writer } = this.#stage;
    await sleep(Math.min(durationMs / 2, STOP_AFTER_MS_MAX));
    let answered = false;
    const failed = (error: Error) => this.#guestError(`${writer.name}: its VM could not be stopped: ${error.message}`);
    void writer
      .stopAndGo()
      .catch(failed)
      .finally(() => {
        answered = true;
      });
    try {
      await waitFor('the answer', () => answered, vmmMsMax);
    } catch {
      this.#guestError(`${writer.name}: its VMM waited for an answer for more than ${vmmMsMax / 1000} s`);
      await waitFor('the answer at last', () => answered, backMsMax).catch(() => undefined);
    }
  }

  /** A guest that does not come back is an error, and gets a new start, so that the rest of the campaign says something. */
  async #everybodyIsBack(): Promise<void> {
    const { backMsMax } = this.#options;
    await Promise.all(
      this.#stage.writers.map(async (writer) => {
        if ((await writer.nextAcknowledgement(backMsMax)) !== undefined) return;
        // One whose every answer is an error is told of by these.
        if (!writer.answersWithErrors)
          this.#guestError(`${writer.name}: no answer for ${backMsMax / 1000} s after all causes are gone`);
        await writer.restart();
        writer.resume();
      }),
    );
  }

  async #countErrors(round: Round, before: readonly number[]): Promise<void> {
    for (const [i, writer] of this.#stage.writers.entries()) {
      const errors = writer.errorCount - before[i];
      if (errors === 0) continue;
      const demanded = round.some(({ kind }) => DEMANDS_ERRORS.includes(kind) && this.#stage.writerOf(kind) === writer);
      if (demanded) this.#expectedErrors += errors;
      else {
        this.#guestErrors += errors;
        this.#note(`${errors} requests failed during ${describe(round)}: ${writer.errors.at(-1)}`);
      }
    }
  }

  async #check(): Promise<void> {
    const { backMsMax } = this.#options;
    await Promise.all(this.#stage.writers.map((writer) => this.#verify(writer)));
    const { guest } = this.#stage;
    const problems = (await guest?.problems(backMsMax)) ?? [];
    for (const problem of problems) this.#guestError(`guest: ${problem}`);
    for (const leak of await this.#leakWatch.leaks()) {
      this.#leaks++;
      this.#note(`left over: ${leak}`);
    }
    for (const writer of this.#stage.writers) writer.resume();
    if (problems.length > 0) await guest?.restart();
  }

  async #verify(writer: BlockWriter): Promise<void> {
    const { backMsMax } = this.#options;
    const errors = writer.errorCount;
    if ((await writer.pause(backMsMax)) && (await writer.verify(backMsMax)) && writer.errorCount === errors) return;
    this.#guestError(`${writer.name}: could not be read in full`);
    await writer.restart();
  }

  /** What the writer on m1 was told is in the image there, beside all daemons. */
  async #checkImage(): Promise<void> {
    const { writer, imagePath } = this.#stage;
    if (!(await writer.pause(this.#options.backMsMax)) || !(await writer.flush())) {
      this.#guestError(`${writer.name}: could not be flushed at the end`);
      return;
    }
    const image = openSync(imagePath, 'r');
    const data = new Uint8Array(BLOCK_BYTES);
    for (let block = 0; block < writer.ledger.blocks; block++) {
      readSync(image, data, 0, BLOCK_BYTES, block * BLOCK_BYTES);
      writer.compare(block, data);
    }
    closeSync(image);
  }

  #hasFound(): boolean {
    return this.#guestErrors + this.#leaks > 0 || this.#stage.writers.some(({ lost, stale }) => lost + stale > 0);
  }

  #guestError(text: string): void {
    this.#guestErrors++;
    this.#note(text);
  }

  #note(text: string): void {
    this.#notes.push(text);
    this.#say(`  ✗ ${text}`);
  }
}

/** How long the parts of something took, one after the other. */
class Stopwatch {
  #at = performance.now();
  readonly #laps: string[] = [];

  lap(what: string): void {
    const now = performance.now();
    this.#laps.push(`${what} after ${Math.round(now - this.#at)} ms`);
    this.#at = now;
  }

  text(): string {
    return this.#laps.join(', ');
  }
}

function describe(round: Round): string {
  return round
    .map(({ kind, atMs, durationMs }) => `${kind} for ${durationMs} ms${atMs > 0 ? ` after ${atMs} ms` : ''}`)
    .join(', ');
}

function sum(writers: readonly BlockWriter[], pick: (writer: BlockWriter) => number): number {
  return writers.reduce((before, writer) => before + pick(writer), 0);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
