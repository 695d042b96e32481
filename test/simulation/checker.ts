/**
 * What one guest's disk may and may not do, whatever happens to hosts and network:
 *
 * - a read gives the value of the last acknowledged write of each block, flushed or not, or of one that was under way;
 * - a value that was overwritten never comes back, neither to the guest nor on the disk, and no request takes effect after its answer;
 * - after a flush nothing that was acknowledged before it is lost, whatever loses its power;
 * - what an earlier guest did not flush is lost with the power only, and what came back since is not;
 * - the guest hears errors only where `rules` says so; for a loss, nothing else until it is started anew; for a hold time, until the device is back.
 *
 * Each write has a number, which is what its blocks hold.
 */
import type { DiskWitness } from './disk.ts';
import type { World } from './world.ts';
import { NEVER, newWrite, type Write } from './writes.ts';

/** What the product does not promise: where a guest may be answered with errors, and what may be seen twice. The one place to tighten. */
export const rules = {
  /**
   * The device's host lost its power while nobody knows what was written and not flushed: a guest before this one wrote something that no flush covers (its log
   * went with it), or the log was lost while there was no daemon, or there is no memory for one and the daemon was started again. Until a flush of this guest or of its log is answered.
   */
  unknownBefore: true,
  /** The attachment has a hold time, and nothing was answered for as long. */
  holdIsOver: true,
  /**
   * A read may give again what was before a write that has no answer yet, although a read before the power loss of the device's host had given the new: the log
   * has what was acknowledged, and the write goes again beside the reads.
   */
  unansweredGoesBack: true,
};

export interface CheckerOptions {
  readonly name: string;
  readonly blocks: number;
  /** The device is on the VM's host: whatever forgets takes the guest along. */
  readonly isLocal: boolean;
  /** The VM's host has memory for a write log. */
  readonly hasLog: boolean;
  /** Undefined: for ever. */
  readonly holdMs: number | undefined;
}

interface Seen {
  readonly write: number;
  readonly begunAt: number;
  readonly endedAt: number;
}

export class Checker implements DiskWitness {
  /** For so long that nobody waits for it. */
  deviceIsBack = false;
  /** This guest has had its device for so long that its log has everything that no flush covers. */
  logIsWhole = false;
  readonly #world: World;
  readonly #options: CheckerOptions;
  readonly #writes: Write[] = [{ ...newWrite(0), endedAt: 0, isAcknowledged: true, isFlushed: true }];
  /** Per block: the writes that it had, oldest first. */
  readonly #blocks: Write[][];
  /** Per block: what the power took with it, and was not written again. */
  readonly #lost: Set<Write>[];
  /** Per block: what this guest read last. */
  #seen: (Seen | undefined)[];
  #now = 0;
  /** Counts the guest's starts. */
  #guest = 0;
  #isFailed = false;
  #mayBeFailed = false;
  #powerLostAt = -1;
  #daemonLostAt = -1;
  #logLostAt = -1;
  /** When the last flush that was answered, the guest's own or its log's, was not yet done: what was known later than that is unknown. */
  #flushBegunAt = -1;
  #guestBegunAt = 0;
  /** The last flush that the disk has done: for which session, and when. */
  #diskFlush = { user: '', at: -1 };
  /** Of the world: the last answer that was no error. */
  #succeededMs = 0;

  constructor(world: World, options: CheckerOptions) {
    this.#world = world;
    this.#options = options;
    const { blocks } = options;
    this.#blocks = Array.from({ length: blocks }, () => [this.#writes[0]]);
    this.#lost = Array.from({ length: blocks }, () => new Set());
    this.#seen = new Array(blocks).fill(undefined);
  }

  /** The guest was told that what it wrote may be lost, or an error of its hold time may have meant that. */
  get needsStart(): boolean {
    return this.#isFailed || this.#mayBeFailed;
  }

  /** Returns the moment, for `readDone` and `flushDone`. */
  begun(): number {
    return ++this.#now;
  }

  /** A write or writeZeroes begins; returns its number. */
  writeBegun(blocks: readonly number[], isZeroes: boolean): number {
    const write: Write = { ...newWrite(this.#writes.length), guest: this.#guest, isZeroes, begunAt: this.begun() };
    this.#writes.push(write);
    for (const block of blocks) this.#blocks[block].push(write);
    return write.id;
  }

  writeDone(id: number, isDurable: boolean): void {
    this.#succeeded();
    const write = this.#writes[id];
    // One session answers in order: whatever flushed before it took effect has been answered as well.
    const { user, at } = this.#diskFlush;
    if (write.user === user && write.appliedAt > at) this.#flushBegunAt = Math.max(this.#flushBegunAt, at);
    write.endedAt = ++this.#now;
    write.isAcknowledged = true;
    write.isFlushed = isDurable;
  }

  /** All that was acknowledged before `begunAt` is safe, unless it was lost before this guest began. */
  flushDone(begunAt: number): void {
    this.#succeeded();
    this.#flushBegunAt = Math.max(this.#flushBegunAt, begunAt);
    for (const write of this.#writes) {
      const isGone = write.guest < this.#guest && this.#lost.some((lost) => lost.has(write));
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
    if (this.#isHoldOver && !this.deviceIsBack) {
      this.#world.count('errors of hold times');
      this.#mayBeFailed ||= this.#isUnknown;
      return;
    }
    if (!this.#isUnknown) {
      this.#violated('no surprise', 'the guest was answered with an error, and nothing that happened demands it');
    }
    this.#world.count('guests that were told of a loss');
    this.#isFailed = true;
  }

  /** The guest is started anew: for it, what was before was one power cut. */
  guestStarted(): void {
    this.#guest++;
    this.logIsWhole = false;
    this.#isFailed = false;
    this.#mayBeFailed = false;
    this.#guestBegunAt = ++this.#now;
    this.#succeededMs = this.#world.nowMs;
    this.#seen = new Array(this.#blocks.length).fill(undefined);
  }

  /** The host of the device loses its power. */
  powerLost(): void {
    this.#powerLostAt = ++this.#now;
    for (const [block, writes] of this.#blocks.entries()) {
      for (const write of writes) if (!write.isFlushed) this.#lost[block].add(write);
    }
  }

  /** The daemon on the VM's host was killed. */
  daemonLost(): void {
    this.#daemonLostAt = ++this.#now;
  }

  /** The log was lost while there was no daemon. */
  logLost(): void {
    this.#logLostAt = ++this.#now;
  }

  // --- DiskWitness -----------------------------------------------------------------------------------------------------

  applied(block: number, write: number, user: string): void {
    const candidates = this.#candidates(block, write);
    for (const candidate of candidates) {
      candidate.user = user;
      candidate.appliedAt = ++this.#now;
      // Zeroes may be those of another write.
      if (candidate.isZeroes) continue;
      this.#lost[block].delete(candidate);
      candidate.firstAppliedAt = Math.min(candidate.firstAppliedAt, candidate.appliedAt);
      if (!candidate.isAcknowledged || this.#powerLostAt > candidate.firstAppliedAt) continue;
      this.#violated('replay', `write ${write} took effect again after it was acknowledged, and no power was lost`);
    }
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

  flushed(user: string): void {
    this.#diskFlush = { user, at: ++this.#now };
  }

  survived(block: number, write: number): void {
    for (const candidate of this.#candidates(block, write)) this.#lost[block].delete(candidate);
    const flushed = this.#blocks[block].filter(({ isFlushed }) => isFlushed);
    const lost = this.#candidates(block, write).map(({ endedAt }) => flushed.find(({ begunAt }) => begunAt > endedAt));
    if (lost.some((other) => other === undefined)) return;
    const text = `after the power loss block ${block} holds ${write}, and ${lost[0]?.id}, which was flushed, is lost`;
    this.#violated('flushed', text);
  }

  // --- inside ----------------------------------------------------------------------------------------------------------

  /** The device's host lost its power, and nobody knew what was written and not flushed: see `rules`. */
  get #isUnknown(): boolean {
    const { isLocal, hasLog } = this.#options;
    if (!rules.unknownBefore || isLocal || this.logIsWhole) return false;
    if (this.#powerLostAt < Math.max(this.#guestBegunAt, this.#flushBegunAt)) return false;
    const knownSince = Math.max(this.#guestBegunAt, hasLog ? this.#logLostAt : this.#daemonLostAt);
    return this.#flushBegunAt < knownSince && (this.#guest > 1 || knownSince > this.#guestBegunAt);
  }

  get #isHoldOver(): boolean {
    const { holdMs } = this.#options;
    return rules.holdIsOver && holdMs !== undefined && this.#world.nowMs - this.#succeededMs >= holdMs;
  }

  /** The writes that may be meant by a value: zeroes have no number. */
  #candidates(block: number, value: number): Write[] {
    return this.#blocks[block].filter(({ id, isZeroes }) => (value === 0 ? isZeroes : id === value));
  }

  /** Why the read cannot have got this write; undefined where it can. */
  #whyNot(block: number, write: Write, read: { begunAt: number; guest: number }): string | undefined {
    const isGone = (other: Write) => !other.isFlushed && other.guest < read.guest && this.#lost[block].has(other);
    const other = this.#blocks[block].find(
      (later) => later.isAcknowledged && later.endedAt < read.begunAt && later.begunAt > write.endedAt && !isGone(later),
    );
    if (other !== undefined) return `${other.id} had overwritten it (acknowledged, ${this.#describe(block, other)})`;
    const seen = this.#seen[block];
    if (seen !== undefined && this.#mayGoBack(seen, read)) return undefined;
    if (seen === undefined || seen.endedAt > read.begunAt || (write.isZeroes ? 0 : write.id) === seen.write) return undefined;
    return write.endedAt < seen.begunAt ? `a read before had given ${seen.write}, which came later` : undefined;
  }

  #mayGoBack({ write, endedAt }: Seen, { begunAt }: { begunAt: number }): boolean {
    const { isAcknowledged, endedAt: answeredAt } = this.#writes[write];
    const isAnswered = write !== 0 && isAcknowledged && answeredAt < begunAt;
    return rules.unansweredGoesBack && this.#powerLostAt > endedAt && !isAnswered;
  }

  #describe(block: number, write: Write): string {
    const isLost = this.#lost[block].has(write);
    return `${write.isFlushed ? 'flushed' : 'not flushed'}${isLost ? ', gone with the power and not written again' : ''}`;
  }

  #succeeded(): void {
    this.#succeededMs = this.#world.nowMs;
    if (!this.#isFailed) {
      // Whatever an earlier guest had under way has ended before this one is served.
      for (const write of this.#writes) if (write.guest < this.#guest && write.endedAt === NEVER) write.endedAt = this.#now;
      return;
    }
    this.#violated('never silent', 'a request succeeded after the guest was told that writes may be lost');
  }

  #violated(invariant: string, message: string): void {
    this.#world.violated(invariant, `${this.#options.name}: ${message}`);
  }
}
