/**
 * A guest of which everything is known: it writes, reads and flushes a disk over a vhost-user socket, and its ledger has each
 * write that was acknowledged. It comes back to a backend that went away as QEMU with `reconnect=1` does, once a second.
 */

import { seededRandom } from '../../test/support/random.ts';
import { BlockError, VhostUserFrontend } from '../../test/support/vhost-user/frontend.ts';
import { waitFor } from '../../test/support/wait.ts';
import { BLOCK_BYTES, BlockLedger, describeFinding, type Finding } from './block-ledger.ts';

/** QEMU's timer. */
const RECONNECT_MS = 1_000;
/** After an error, so that a disk that answers everything with errors does not fill the report. */
const PAUSE_AFTER_ERROR_MS = 100;
const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;
const MEMORY_BYTES = 16 * 1024 * 1024;
/** Blocks of one read where all are compared. */
const VERIFY_BLOCKS = 16;
/** Of a hundred requests; the rest are writes. */
const READ_PERCENT = 35;
const FLUSH_PERCENT = 3;
/** Descriptions that are kept. */
const NOTES_MAX = 100;

export interface BlockWriterOptions {
  readonly name: string;
  readonly socketPath: string;
  readonly blocks: number;
  readonly seed: number;
  readonly queues: number;
  /** Requests on their way at a time, over all queues. */
  readonly depth: number;
  /** Between an answer and the next request of that place, in milliseconds: leaves the processors to the others. */
  readonly paceMs: number;
  /** Of a hundred requests; FLUSH_PERCENT by default. */
  readonly flushPercent?: number;
  /** Each acknowledgement, at the time of the machine's monotonic clock; for a timeline. */
  readonly onAcknowledged?: (at: number) => void;
}

export class BlockWriter {
  readonly name: string;
  readonly ledger: BlockLedger;
  /** What reads found that must not be; the first NOTES_MAX. */
  readonly findings: Finding[] = [];
  /** Requests that were answered with an error; the first NOTES_MAX. */
  readonly errors: string[] = [];
  lost = 0;
  stale = 0;
  errorCount = 0;
  /** The latest answer was an error. */
  answersWithErrors = false;
  acknowledged = 0;
  flushes = 0;
  readonly #options: BlockWriterOptions;
  readonly #random;
  #vm: VhostUserFrontend;
  /** Of the guest that runs now: those of one before a restart end at their next look. */
  #generation = 0;
  #state: 'running' | 'pausing' | 'closed' = 'pausing';
  #working = 0;
  #resume: (() => void)[] = [];
  #reconnecting: NodeJS.Timeout | undefined;
  #marks: { at: number; resolve: (at: number) => void }[] = [];

  /** Connects; the workload begins with `resume`. */
  static async connect(options: BlockWriterOptions): Promise<BlockWriter> {
    const writer = new BlockWriter(options, await connect(options));
    writer.#begin();
    return writer;
  }

  private constructor(options: BlockWriterOptions, vm: VhostUserFrontend) {
    this.name = options.name;
    this.ledger = new BlockLedger(options.blocks, options.seed);
    this.#options = options;
    this.#random = seededRandom(options.seed);
    this.#vm = vm;
  }

  get vm(): VhostUserFrontend {
    return this.#vm;
  }

  resume(): void {
    if (this.#state === 'closed') return;
    this.#state = 'running';
    for (const wake of this.#resume.splice(0)) wake();
  }

  /** Sends nothing more and waits until everything is answered; false where that does not happen in time. */
  async pause(timeoutMs: number): Promise<boolean> {
    this.#state = 'pausing';
    try {
      await waitFor('all answers', () => this.#working === 0, timeoutMs);
      return true;
    } catch {
      return false;
    }
  }

  /** The time of the first acknowledgement from now on; undefined where none comes in time. */
  async nextAcknowledgement(timeoutMs: number): Promise<number | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(undefined), timeoutMs);
      this.#marks.push({
        at: performance.now(),
        resolve: (at) => {
          clearTimeout(timer);
          resolve(at);
        },
      });
    });
  }

  /** Reads all blocks and compares; paused. Resolves with false where an answer is not there in time. */
  async verify(timeoutMs: number): Promise<boolean> {
    const { blocks } = this.ledger;
    let next = 0;
    let done = 0;
    const reader = async () => {
      while (next < blocks) {
        const first = next;
        const count = Math.min(VERIFY_BLOCKS, blocks - first);
        next += count;
        await this.#read(first, count, done % this.#options.queues);
        done += count;
      }
    };
    const all = Promise.all(Array.from({ length: this.#options.depth }, reader)).catch(() => undefined);
    let over = false;
    void all.then(() => {
      over = true;
    });
    try {
      await waitFor('all blocks', () => over, timeoutMs);
      return done === blocks;
    } catch {
      return false;
    }
  }

  /**
   * The VM is stopped, as before a migration, and goes on. Resolves when its VMM has every answer, or its connection has ended: then
   * it is started anew by the next one anyway.
   */
  async stopAndGo(): Promise<void> {
    const vm = this.#vm;
    const { control } = vm;
    const isSame = () => vm.control === control && control.open;
    const rings = [...vm.queues.keys()];
    try {
      for (const ring of rings) if (isSame()) await vm.enableRing(ring, false);
      for (const ring of rings) if (isSame()) await vm.stopRing(ring);
      for (const ring of rings) if (isSame()) await vm.startRing(ring);
    } catch (thrown) {
      if (isSame()) throw thrown;
    }
  }

  /** The power button: a new start of the guest on the same disk, paused. What had no answer is answered by nobody. */
  async restart(): Promise<void> {
    this.#state = 'pausing';
    this.#generation++;
    clearTimeout(this.#reconnecting);
    this.#reconnecting = undefined;
    this.#vm.close();
    await waitFor('the end of the guest before', () => this.#working === 0);
    this.#vm = await connect(this.#options);
    this.#begin();
  }

  close(): void {
    this.#state = 'closed';
    this.#generation++;
    clearTimeout(this.#reconnecting);
    for (const wake of this.#resume.splice(0)) wake();
    this.#vm.close();
  }

  /** One write, flush or read, for faults that need certain ones; true where it was answered with OK. */
  async write(block: number, queue = 0): Promise<boolean> {
    const { data } = this.ledger.beginWrite(block);
    try {
      await this.#vm.write(block * SECTORS_PER_BLOCK, data, { queue });
      this.ledger.acknowledge(block);
      this.#answered();
      return true;
    } catch (error) {
      this.ledger.fail(block);
      return this.#failed(error);
    }
  }

  async flush(queue = 0): Promise<boolean> {
    const covers = this.ledger.beginFlush();
    try {
      await this.#vm.flush({ queue });
      covers();
      this.flushes++;
      this.#answered();
      return true;
    } catch (error) {
      return this.#failed(error);
    }
  }

  /** Gives back all blocks from `first` on, paused. */
  async discardFrom(first: number): Promise<void> {
    const sectors = (this.ledger.blocks - first) * SECTORS_PER_BLOCK;
    for (let block = first; block < this.ledger.blocks; block++) this.ledger.forget(block);
    await this.#vm.discard({ sector: first * SECTORS_PER_BLOCK, sectors });
  }

  #begin(): void {
    const generation = this.#generation;
    const vm = this.#vm;
    vm.events.on('closed', () => this.#reconnect(generation));
    for (let place = 0; place < this.#options.depth; place++) void this.#work(generation, place);
  }

  /** One of `depth` places: blocks are shared out, so that two requests never meet in one. */
  async #work(generation: number, place: number): Promise<void> {
    const { depth, queues, paceMs, blocks, flushPercent = FLUSH_PERCENT } = this.#options;
    const queue = place % queues;
    while (this.#generation === generation) {
      if (this.#state !== 'running') {
        await new Promise<void>((resolve) => this.#resume.push(resolve));
        continue;
      }
      const block = place + depth * this.#random.below(Math.floor((blocks - place - 1) / depth) + 1);
      const dice = this.#random.below(100);
      this.#working++;
      let good: boolean;
      if (dice < flushPercent) good = await this.flush(queue);
      else if (dice < flushPercent + READ_PERCENT) good = await this.#read(block, 1, queue);
      else good = await this.write(block, queue);
      this.#working--;
      await new Promise((resolve) => setTimeout(resolve, good ? paceMs : PAUSE_AFTER_ERROR_MS));
    }
  }

  async #read(first: number, count: number, queue: number): Promise<boolean> {
    try {
      const data = await this.#vm.read(first * SECTORS_PER_BLOCK, count * BLOCK_BYTES, { queue });
      this.#answered();
      for (let i = 0; i < count; i++) this.compare(first + i, data.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES));
      return true;
    } catch (error) {
      return this.#failed(error);
    }
  }

  #answered(): void {
    this.answersWithErrors = false;
    const now = performance.now();
    this.acknowledged++;
    for (const { resolve } of this.#marks.splice(0)) resolve(now);
    this.#options.onAcknowledged?.(now);
  }

  /** Requests of a guest that was switched off have failed for nobody. */
  #failed(error: unknown): false {
    if (!(error instanceof BlockError)) return false;
    this.errorCount++;
    this.answersWithErrors = true;
    if (this.errors.length < NOTES_MAX) this.errors.push(`${this.name}: ${error.message}`);
    return false;
  }

  /** Compares what is there of a block, from wherever it was read, with what has to be. */
  compare(block: number, data: Uint8Array): void {
    const finding = this.ledger.check(block, data);
    if (finding === undefined) return;
    if (finding.what === 'stale') this.stale++;
    else this.lost++;
    if (this.findings.length < NOTES_MAX) this.findings.push(finding);
    // One mistake is counted once: from now on what is there is what is expected.
    this.ledger.forget(finding.block);
  }

  #reconnect(generation: number): void {
    if (this.#reconnecting !== undefined || this.#generation !== generation) return;
    this.#reconnecting = setTimeout(() => {
      this.#reconnecting = undefined;
      if (this.#generation !== generation) return;
      this.#vm.reconnect().catch(() => this.#reconnect(generation));
    }, RECONNECT_MS);
  }
}

function connect({ socketPath, queues }: BlockWriterOptions): Promise<VhostUserFrontend> {
  return VhostUserFrontend.connect(socketPath, { queues, reconnects: true, memoryBytes: MEMORY_BYTES });
}

/** What a writer found, in words. */
export function notesOf(writer: BlockWriter): string[] {
  return [...writer.findings.map((finding) => `${writer.name}: ${describeFinding(finding)}`), ...writer.errors];
}
