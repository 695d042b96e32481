/** What the checker knows of each write. All times count what it was told. */

/** Later than anything. */
export const NEVER = Number.POSITIVE_INFINITY;

/** One write of a guest; its number is what its blocks hold. */
export interface Write {
  readonly id: number;
  readonly guest: number;
  readonly isZeroes: boolean;
  readonly begunAt: number;
  /** Since then it is done, or will never be. */
  endedAt: number;
  isAcknowledged: boolean;
  isFlushed: boolean;
  /** The session that it last took effect by, and when; and when it did so first. */
  user: string;
  appliedAt: number;
  firstAppliedAt: number;
}

/** A write of which nothing is known yet; 0 is what a disk has from the start. */
export function newWrite(id: number): Write {
  return {
    id,
    guest: 0,
    isZeroes: id === 0,
    begunAt: 0,
    endedAt: NEVER,
    isAcknowledged: false,
    isFlushed: false,
    user: '',
    appliedAt: -1,
    firstAppliedAt: NEVER,
  };
}
