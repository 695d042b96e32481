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
import type { DiskWitness, SimDisk } from './disk.ts';
import { Knowledge, type Left, rules } from './knowledge.ts';
import type { World } from './world.ts';
import { NEVER, newWrite, type Write } from './writes.ts';

export interface CheckerOptions {
  readonly name: string;
  readonly blocks: number;
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
  readonly knowledge = new Knowledge();
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
  /** Guests up to this one are nobody's: their hosts were fenced. */
  #fenced = 0;
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

  /** The present one. */
  get guest(): number {
    return this.#guest;
  }

  /** Returns the moment, for `readDone` and `flushDone`. */
  begun(): number {
    return ++this.#now;
  }

  /** A write or writeZeroes begins; returns its number. */
  writeBegun(blocks: readonly number[], isZeroes: boolean, guest = this.#guest): number {
    const write: Write = { ...newWrite(this.#writes.length), guest, isZeroes, begunAt: this.begun() };
    this.#writes.push(write);
    for (const block of blocks) this.#blocks[block].push(write);
    return write.id;
  }

  writeDone(id: number, isDurable: boolean): void {
    this.#succeeded();
    const write = this.#writes[id];
    // One session answers in order: whatever flushed before it took effect has been answered as well.
    const { user, at } = this.#diskFlush;
    if (write.user === user && write.appliedAt > at) this.knowledge.flushBegunAt = Math.max(this.knowledge.flushBegunAt, at);
    write.endedAt = ++this.#now;
    write.isAcknowledged = true;
    write.isFlushed = isDurable;
  }

  /** All that was acknowledged before `begunAt` is safe, unless it was lost before this guest began. */
  flushDone(begunAt: number): void {
    this.#succeeded();
    this.knowledge.flushBegunAt = Math.max(this.knowledge.flushBegunAt, begunAt);
    this.#allFlushed(begunAt);
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
      this.#mayBeFailed ||= this.knowledge.mayBeLost;
      return;
    }
    if (!this.knowledge.mayBeLost) {
      this.#violated('no surprise', 'the guest was answered with an error, and nothing that happened demands it');
    }
    this.#world.count('guests that were told of a loss');
    this.#isFailed = true;
  }

  /** The guest is started anew: for it, what was before was one power cut. */
  guestStarted({ hasLog }: { hasLog: boolean }): void {
    this.#guest++;
    this.#isFailed = false;
    this.#mayBeFailed = false;
    this.knowledge.guestStarted(++this.#now, { isFirst: this.#guest === 1, hasLog });
    this.#succeededMs = this.#world.nowMs;
    this.#seen = new Array(this.#blocks.length).fill(undefined);
  }

  /** It goes on at another host: see Knowledge. */
  guestMoved(how: { left: Left; hasLog: boolean }): void {
    this.knowledge.guestMoved(++this.#now, how);
  }

  /** Its disk is another one from now on: that has everything, on stable storage. */
  swapped(disk: SimDisk, { hasLog }: { hasLog: boolean }): void {
    // For a guest that was told of a loss, whatever is there counts after its next start.
    if (this.needsStart) return;
    const now = ++this.#now;
    for (const [block, { cache, stable }] of disk.blocks.entries()) {
      for (const value of new Set([cache, stable])) this.#checkCopied(block, value, now);
    }
    this.knowledge.swapped(now, { hasLog });
    this.#allFlushed(now);
  }

  /** All guests so far are nobody's: the host that they were on was fenced, and has nothing under way at the device. */
  fenced(): void {
    this.#fenced = this.#guest;
  }

  /** The host of the device loses its power. */
  powerLost(): void {
    this.knowledge.powerLostAt = ++this.#now;
    for (const [block, writes] of this.#blocks.entries()) {
      for (const write of writes) if (!write.isFlushed) this.#lost[block].add(write);
    }
  }

  /** The daemon where the guest is was killed. */
  daemonLost(): void {
    this.knowledge.daemonLost(++this.#now);
  }

  /** The log was lost while there was no daemon; `isKept`: the one that the guest has left behind. */
  logLost({ isKept }: { isKept: boolean }): void {
    if (isKept) this.knowledge.keptLogLost();
    else this.knowledge.logLost(++this.#now);
  }

  // --- DiskWitness -----------------------------------------------------------------------------------------------------

  applied(block: number, write: number, user: string, isLeftBehind: boolean): void {
    const candidates = this.#candidates(block, write);
    for (const candidate of candidates) {
      candidate.user = user;
      candidate.appliedAt = ++this.#now;
      // Zeroes may be those of another write.
      if (candidate.isZeroes) continue;
      this.#lost[block].delete(candidate);
      candidate.firstAppliedAt = Math.min(candidate.firstAppliedAt, candidate.appliedAt);
      if (!candidate.isAcknowledged || this.knowledge.powerLostAt > candidate.firstAppliedAt) continue;
      this.#violated('replay', `write ${write} took effect again after it was acknowledged, and no power was lost`);
    }
    const isFenced = candidates.length > 0 && candidates.every(({ guest }) => guest > 0 && guest <= this.#fenced);
    if (isFenced && !isLeftBehind)
      this.#violated('one writer', `write ${write} of block ${block} took effect, and its host was fenced`);
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

  /** Acknowledged before `begunAt`. */
  #allFlushed(begunAt: number): void {
    for (const write of this.#writes) {
      const isGone = write.guest < this.#guest && this.#lost.some((lost) => lost.has(write));
      if (write.isAcknowledged && write.endedAt < begunAt && !isGone) write.isFlushed = true;
    }
  }

  #checkCopied(block: number, value: number, now: number): void {
    const read = { begunAt: now, guest: this.#guest };
    const problems = this.#candidates(block, value).map((write) => this.#whyNot(block, write, read));
    if (problems.some((text) => text === undefined)) return;
    const reason = problems[0] ?? 'it was never written there';
    this.#violated('one copy', `block ${block} of the new disk has ${value}, but ${reason}`);
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
    return rules.unansweredGoesBack && this.knowledge.powerLostAt > endedAt && !isAnswered;
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
