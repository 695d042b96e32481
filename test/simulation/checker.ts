/**
 * What one guest's disk may and may not do, whatever happens to hosts and network:
 *
 * - a read gives the value of the last acknowledged write of each block, or of one that was under way;
 * - a value that was overwritten never comes back, neither to the guest nor on the disk;
 * - after a flush nothing that was acknowledged before it is lost, whatever loses its power;
 * - the guest hears errors only where `rules` says that the product may answer so, and then nothing else until it is started anew.
 *
 * Each write has a number, which is what its blocks hold.
 */
import type { DiskWitness } from './disk.ts';
import type { World } from './world.ts';

/** What the product promises today. The one place to tighten. */
export const rules = {
  /**
   * After a power loss of the device's host acknowledged writes that were not flushed may be gone: `errors`, the guest is told so and never
   * reads anything else; `nothing`, they are there.
   */
  unflushedAfterPowerLoss: 'errors' as 'errors' | 'nothing',
  /**
   * The same, where the daemon on the VM's host was started again in the guest's life, and knows no more which writes were flushed before: `waits`, the guest
   * waits until it is started anew, or is told as above, although nothing may be lost.
   */
  unflushedAfterBoth: 'waits' as 'waits' | 'nothing',
};

const NEVER = Number.POSITIVE_INFINITY;

interface Write {
  readonly id: number;
  readonly guest: number;
  readonly isZeroes: boolean;
  readonly begunAt: number;
  /** Since then it is done, or will never be. */
  endedAt: number;
  isAcknowledged: boolean;
  isFlushed: boolean;
  /** The power was lost while it was not flushed. */
  mayBeLost: boolean;
}

interface Seen {
  readonly write: number;
  readonly begunAt: number;
  readonly endedAt: number;
}

export class Checker implements DiskWitness {
  readonly #world: World;
  readonly #name: string;
  readonly #writes: Write[] = [{ ...zeroes(0), endedAt: 0, isAcknowledged: true, isFlushed: true }];
  /** Per block: the writes that it had, oldest first. */
  readonly #blocks: Write[][];
  /** Per block: what this guest read last. */
  #seen: (Seen | undefined)[];
  #now = 0;
  /** Counts the guest's starts. */
  #guest = 0;
  #isFailed = false;
  #powerLostAt = -1;
  #daemonLostAt = -1;
  /** When the last flush that succeeded had begun. */
  #flushBegunAt = -1;
  #guestBegunAt = 0;

  constructor(world: World, name: string, blocks: number) {
    this.#world = world;
    this.#name = name;
    this.#blocks = Array.from({ length: blocks }, () => [this.#writes[0]]);
    this.#seen = new Array(blocks).fill(undefined);
  }

  /** The guest has got an error. */
  get isFailed(): boolean {
    return this.#isFailed;
  }

  /** True where a guest may wait until it is started anew. */
  get mayWait(): boolean {
    return (
      rules.unflushedAfterBoth === 'waits' && this.#powerLostAt > this.#guestBegunAt && this.#daemonLostAt > this.#guestBegunAt
    );
  }

  /** Nobody flushed since the daemon was started again, which forgot what was, or since an earlier guest left something unflushed. */
  get #isUnknown(): boolean {
    const isForgotten = this.#daemonLostAt > this.#flushBegunAt;
    const isLeft = () => this.#writes.some((write) => write.guest < this.#guest && write.isAcknowledged && !write.isFlushed);
    return rules.unflushedAfterBoth === 'waits' && this.#powerLostAt > this.#guestBegunAt && (isForgotten || isLeft());
  }

  /** Returns the moment, for `readDone` and `flushDone`. */
  begun(): number {
    return ++this.#now;
  }

  /** A write or writeZeroes begins; returns its number. */
  writeBegun(blocks: readonly number[], isZeroes: boolean): number {
    const write: Write = { ...zeroes(this.#writes.length), guest: this.#guest, isZeroes, begunAt: this.begun() };
    this.#writes.push(write);
    for (const block of blocks) this.#blocks[block].push(write);
    return write.id;
  }

  writeDone(id: number, isDurable: boolean): void {
    this.#succeeded();
    const write = this.#writes[id];
    write.endedAt = ++this.#now;
    write.isAcknowledged = true;
    write.isFlushed = isDurable;
  }

  /** All that was acknowledged before `begunAt` is safe, unless it was lost before this guest began. */
  flushDone(begunAt: number): void {
    this.#succeeded();
    this.#flushBegunAt = Math.max(this.#flushBegunAt, begunAt);
    for (const write of this.#writes) {
      const isGone = write.mayBeLost && write.guest < this.#guest;
      if (write.isAcknowledged && write.endedAt < begunAt && !isGone) write.isFlushed = true;
    }
  }

  readDone(block: number, value: number, begunAt: number): void {
    this.#succeeded();
    const read = { begunAt, guest: this.#guest };
    const found = this.#candidates(block, value);
    const problems = found.map((write) => this.#whyNot(block, write, read));
    if (problems.every((text) => text !== undefined)) {
      const reason = problems[0] ?? 'it was never written there';
      this.#violated('acknowledged', `a read of block ${block} gave ${value}, but ${reason}`);
    }
    this.#seen[block] = { write: value, begunAt, endedAt: ++this.#now };
  }

  /** A request was answered with an error. `write`: its number, where it is one. */
  failed(write: number | undefined): void {
    if (write !== undefined) this.#writes[write].endedAt = ++this.#now;
    if (this.#isFailed) return;
    const isAtRisk = this.#writes.some(
      (other) => other.guest === this.#guest && other.isAcknowledged && !other.isFlushed && other.begunAt < this.#powerLostAt,
    );
    if (rules.unflushedAfterPowerLoss !== 'errors' || !(isAtRisk || this.#isUnknown)) {
      this.#violated('no surprise', 'the guest was answered with an error, and nothing that happened demands it');
    }
    this.#isFailed = true;
  }

  /** The guest is started anew: for it, what was before was one power cut. */
  guestStarted(): void {
    this.#guest++;
    this.#isFailed = false;
    this.#guestBegunAt = ++this.#now;
    this.#seen = new Array(this.#blocks.length).fill(undefined);
  }

  /** The host of the device loses its power. */
  powerLost(): void {
    this.#powerLostAt = ++this.#now;
    for (const write of this.#writes) if (!write.isFlushed) write.mayBeLost = true;
  }

  /** The daemon on the VM's host was killed. */
  daemonLost(): void {
    this.#daemonLostAt = ++this.#now;
  }

  // --- DiskWitness -----------------------------------------------------------------------------------------------------

  applied(block: number, write: number): void {
    const candidates = this.#candidates(block, write);
    if (candidates.length === 0) {
      this.#violated('data', `block ${block} was written with ${write}, which is not for it`);
      return;
    }
    const { begunAt, endedAt, isZeroes } = candidates.at(-1)!;
    if (isZeroes) return;
    const other = this.#blocks[block].find((candidate) => candidate.isAcknowledged && candidate.begunAt > endedAt);
    if (other === undefined) return;
    this.#violated(
      'replay',
      `write ${write} of block ${block} (begun at ${begunAt}) took effect after ${other.id}, which came later and was acknowledged`,
    );
  }

  survived(block: number, write: number): void {
    const flushed = this.#blocks[block].filter(({ isFlushed }) => isFlushed);
    const lost = this.#candidates(block, write).map(({ endedAt }) => flushed.find(({ begunAt }) => begunAt > endedAt));
    if (lost.some((other) => other === undefined)) return;
    const text = `after the power loss block ${block} holds ${write}, and ${lost[0]?.id}, which was flushed, is lost`;
    this.#violated('flushed', text);
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  /** The writes that may be meant by a value: zeroes have no number. */
  #candidates(block: number, value: number): Write[] {
    return this.#blocks[block].filter(({ id, isZeroes }) => (value === 0 ? isZeroes : id === value));
  }

  /** Why the read cannot have got this write; undefined where it can. */
  #whyNot(block: number, write: Write, read: { begunAt: number; guest: number }): string | undefined {
    const isGone = (other: Write) => other.mayBeLost && !other.isFlushed && other.guest < read.guest;
    const other = this.#blocks[block].find(
      (later) => later.isAcknowledged && later.endedAt < read.begunAt && later.begunAt > write.endedAt && !isGone(later),
    );
    if (other !== undefined) return `${other.id} had overwritten it (acknowledged, ${this.#describe(other)})`;
    const seen = this.#seen[block];
    if (seen === undefined || seen.endedAt > read.begunAt || (write.isZeroes ? 0 : write.id) === seen.write) return undefined;
    return write.endedAt < seen.begunAt ? `a read before had given ${seen.write}, which came later` : undefined;
  }

  #describe(write: Write): string {
    return `${write.isFlushed ? 'flushed' : 'not flushed'}${write.mayBeLost ? ', before a power loss' : ''}`;
  }

  #succeeded(): void {
    if (!this.#isFailed) {
      // Whatever an earlier guest had under way has ended before this one is served.
      for (const write of this.#writes) if (write.guest < this.#guest && write.endedAt === NEVER) write.endedAt = this.#now;
      return;
    }
    this.#violated('never silent', 'a request succeeded after the guest was told that writes may be lost');
  }

  #violated(invariant: string, message: string): void {
    this.#world.violated(invariant, `${this.#name}: ${message}`);
  }
}

function zeroes(id: number): Write {
  return {
    id,
    guest: 0,
    isZeroes: id === 0,
    begunAt: 0,
    endedAt: NEVER,
    isAcknowledged: false,
    isFlushed: false,
    mayBeLost: false,
  };
}
