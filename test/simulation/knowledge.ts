/**
 * What the hosts of one guest know of its writes that no flush covers: where nobody knows them any more, and the device's host loses its power, the
 * guest may be answered with errors, and nowhere else. All times are the checker's.
 */

/** The rules of the checker: where a guest may be answered with errors, and what may be seen twice. The one place to tighten. */
export const rules = {
  /**
   * The device's host lost its power while nobody knew what was written and not flushed: a guest before this one wrote something that no flush covers (its
   * log went with it); the log was lost while there was no daemon, or there is no memory for one and the daemon was started again; or the guest came
   * from another host, and what that one had cannot be fetched: it had the device, its log is lost, or there is no room for it where the guest went.
   * Until a flush of this guest or of its log is answered.
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

/** What a guest that moves has not flushed, where it was. */
export type Left = 'nothing' | 'kept' | 'unknown';

export class Knowledge {
  /** This guest has had its device for so long that its log has everything that no flush covers. */
  isWhole = false;
  /** Of the device's host. */
  powerLostAt = -1;
  /** When the last flush that was answered, the guest's own or its log's, was not yet done: what was known later than that is unknown. */
  flushBegunAt = -1;
  #guestBegunAt = 0;
  /** What was acknowledged before is known to no log. */
  #unknownBefore = -1;
  #movedAt = -1;
  /** Where the guest is there is memory for a log. */
  #hasLog = true;

  /** A new start; of the first one nothing was before. */
  guestStarted(now: number, { isFirst, hasLog }: { isFirst: boolean; hasLog: boolean }): void {
    this.isWhole = false;
    this.#guestBegunAt = now;
    this.#unknownBefore = isFirst ? -1 : now;
    this.#movedAt = -1;
    this.#hasLog = hasLog;
  }

  /** It goes on at another host. `left`: what it has not flushed can be fetched from the one where it was, or that one says that there is nothing. */
  guestMoved(now: number, { left, hasLog }: { left: Left; hasLog: boolean }): void {
    // What the host before that one had is not known to the next one.
    const wasWhole = this.flushBegunAt > this.#movedAt;
    if (left === 'nothing') this.#unknownBefore = -1;
    else if (left === 'unknown' || !wasWhole) this.#unknownBefore = now;
    this.isWhole = false;
    this.#movedAt = now;
    this.#hasLog = hasLog;
  }

  /** Its data is on another device, all of it flushed. */
  swapped(now: number, { hasLog }: { hasLog: boolean }): void {
    this.flushBegunAt = now;
    this.#hasLog = hasLog;
  }

  /** The daemon where the guest is was killed. */
  daemonLost(now: number): void {
    if (!this.#hasLog) this.#unknownBefore = now;
  }

  /** The log where the guest is was lost while there was no daemon. */
  logLost(now: number): void {
    this.#unknownBefore = now;
  }

  /** What was kept where it was before is gone. */
  keptLogLost(): void {
    this.#unknownBefore = Math.max(this.#unknownBefore, this.#movedAt);
  }

  /** Whether the guest may be told that what it wrote may be lost. */
  get mayBeLost(): boolean {
    if (!rules.unknownBefore || this.isWhole) return false;
    if (this.powerLostAt < Math.max(this.#guestBegunAt, this.flushBegunAt)) return false;
    return this.flushBegunAt < this.#unknownBefore;
  }
}
