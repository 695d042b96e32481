/**
 * What is known of an image's stable storage, across all devices of one opening. The kernel reports that a page could not be written
 * once, to the next fsync of the open file, and forgets it. So a flush that failed keeps failing here: a later success would
 * say something about later writes only, and the guest would take it for all.
 */
export class FlushState {
  /** Writes that were acknowledged while they may be in memory only, and how many of them are known to be safe. */
  #acknowledged = 0;
  #safe = 0;
  #failed = false;

  get failed(): boolean {
    return this.#failed;
  }

  /** True while an acknowledged write may be in memory only. */
  get unflushed(): boolean {
    return this.#acknowledged > this.#safe;
  }

  /** A write was acknowledged that no flush covers yet. */
  wrote(): void {
    this.#acknowledged++;
  }

  /** A flush begins: what it covers, for `flushed`. */
  begin(): number {
    return this.#acknowledged;
  }

  flushed(covers: number): void {
    this.#safe = Math.max(this.#safe, covers);
  }

  flushFailed(): void {
    this.#failed = true;
  }

  /**
   * A durable write failed. Its sync may have taken the one report about an earlier write that was acknowledged without
   * being durable; where there is none, nothing but this write is lost, and its error has been told.
   */
  durableWriteFailed(): void {
    if (this.unflushed) this.#failed = true;
  }
}
