/**
 * The world of one run: its time, its chance, and the order in which things happen. Everything that takes time is an event here, at a time that the
 * seed decides, and nothing of the real world (sockets, files, timers) is behind it: the same seed gives the same run.
 */
import type { Clock } from '../../src/lib/clock.ts';
import { type SeededRandom, seededRandom } from '../support/random.ts';

/** Turns of the event loop that the code under test gets after each event, for its microtasks and immediates. */
const TURNS_PER_EVENT = 2;
const TRACE_LINES_MAX = 100_000;

/** What must never happen did. */
export class Violation extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`);
    this.name = 'Violation';
    this.invariant = invariant;
  }
}

/** Ends what a process is doing, in the middle of it. */
export class Killed extends Error {}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
  /** Whether it calls the code under test, which then needs its turns. */
  readonly calls: boolean;
}

export class World {
  readonly random: SeededRandom;
  nowMs = 0;
  events = 0;
  /** The first one ends the run. */
  violation: Violation | undefined;
  /** How often something came about that the run is there for. */
  readonly counts = new Map<string, number>();
  /** Kept where somebody wants to read it. */
  readonly lines: string[] | undefined;
  readonly #heap: Event[] = [];
  #order = 0;
  #pid = 0;
  #lastId = 0;
  #hash = 0x811c9dc5;

  constructor(seed: number, options: { keepTrace?: boolean } = {}) {
    this.random = seededRandom(seed);
    if (options.keepTrace === true) this.lines = [];
  }

  /** Of all that was traced: two runs with the same hash went the same way. */
  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  /** A uuid. */
  nextId(): string {
    return `00000000-0000-4000-9000-${String(++this.#lastId).padStart(12, '0')}`;
  }

  /** No two processes have the same. */
  nextPid(): number {
    return ++this.#pid;
  }

  /** Resolves after `delayMs`. */
  pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.at(delayMs, resolve));
  }

  /** Calls `run` after `delayMs`. `calls: false`: it touches nothing of the code under test. */
  at(delayMs: number, run: () => void, options: { calls?: boolean } = {}): void {
    const event = { at: this.nowMs + delayMs, order: this.#order++, run, calls: options.calls ?? true };
    const heap = this.#heap;
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = event;
  }

  /** True once in `outOf` times. */
  chance(outOf: number): boolean {
    return this.random.below(outOf) === 0;
  }

  /** A number in [low, high). */
  between(low: number, high: number): number {
    return low + ((high - low) * this.random.below(1_000_000)) / 1_000_000;
  }

  /** Mostly about `typicalMs`, now and then ten times, and rarely a hundred times as much. */
  latency(typicalMs: number): number {
    const scale = this.random.below(40);
    return this.between(0.2, 1.8) * typicalMs * (scale === 0 ? 100 : scale < 4 ? 10 : 1);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.random.below(items.length)];
  }

  trace(text: string): void {
    const line = `${this.nowMs.toFixed(3)} ${text}`;
    let hash = this.#hash;
    for (let i = 0; i < line.length; i++) hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
    this.#hash = hash;
    if (this.lines !== undefined && this.lines.length < TRACE_LINES_MAX) this.lines.push(line);
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** Something that must not happen did. The first one counts. */
  violated(invariant: string, message: string): void {
    if (this.violation !== undefined) return;
    this.violation = new Violation(invariant, message);
    this.trace(`VIOLATION ${invariant}: ${message}`);
  }

  /** Runs events until `done`, or until `untilMs`. False where the time was over first, or a violation. */
  async run(untilMs: number, done: () => boolean = () => false): Promise<boolean> {
    await turns();
    while (this.violation === undefined) {
      if (done()) return true;
      const next = this.#heap[0];
      if (next === undefined || next.at > untilMs) {
        this.nowMs = untilMs;
        return done();
      }
      this.#take();
      this.nowMs = next.at;
      this.events++;
      next.run();
      if (next.calls) await turns();
    }
    return false;
  }

  #take(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

async function turns(): Promise<void> {
  for (let i = 0; i < TURNS_PER_EVENT; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/**
 * A process: whatever it is told comes through here, so that one that was killed hears nothing more, and one that is stopped (SIGSTOP) hears it
 * when it goes on. What its code still does in memory reaches nobody.
 */
export class SimProcess {
  readonly world: World;
  readonly name: string;
  alive = true;
  readonly #onKill: (() => void)[] = [];
  /** What waits for a process that is stopped, in order; undefined: it runs. */
  #stopped: (() => void)[] | undefined;
  #isOver = false;
  /** Of this process. */
  timers = 0;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
  }

  /** For what the kernel does when the process ends; what was asked for last goes first. */
  onKill(work: () => void): void {
    this.#onKill.push(work);
  }

  kill(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.alive = false;
    this.#stopped = undefined;
    for (const work of this.#onKill.reverse()) work();
  }

  /** From now on nothing comes out of it; `kill` follows. */
  die(): never {
    this.alive = false;
    throw new Killed();
  }

  /** By SIGSTOP. */
  get isStopped(): boolean {
    return this.#stopped !== undefined;
  }

  stop(): void {
    if (this.alive) this.#stopped ??= [];
  }

  goOn(): void {
    const waiting = this.#stopped;
    this.#stopped = undefined;
    for (const run of waiting ?? []) this.at(0, run);
  }

  /** As `World.at`, for this process's ears. */
  at(delayMs: number, run: () => void): void {
    this.world.at(delayMs, () => this.tell(run));
  }

  /** Now, or when it goes on, or never. From within an event only. */
  tell(run: () => void): void {
    if (!this.alive) return;
    if (this.#stopped !== undefined) {
      this.#stopped.push(run);
      return;
    }
    try {
      run();
    } catch (thrown) {
      if (!(thrown instanceof Killed)) throw thrown;
    }
  }

  readonly clock: Clock = {
    now: () => this.world.nowMs,
    wallTime: () => Date.UTC(2026, 0, 1) + Math.floor(this.world.nowMs),
    after: (delayMs, callback) => {
      let waiting = this.alive;
      if (waiting) this.timers++;
      const end = () => {
        if (waiting) this.timers--;
        waiting = false;
      };
      this.at(delayMs, () => {
        if (!waiting) return;
        end();
        callback();
      });
      return end;
    },
  };
}
