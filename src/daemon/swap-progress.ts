/** How far a hot-swap is, for people: `netbus jobs` and the API. */
import type { JobProgress } from '../api/jobs.ts';
import type { MirrorProgress } from '../migration/mirror/mirror-options.ts';

export class SwapProgress {
  phase: 'copying' | 'switching' | 'releasing' = 'copying';
  isOver = false;
  /** Pause to resume of the guest's disk at the switch, in milliseconds. */
  stallMs: number | undefined;
  /** As the mirror said last: it ends before the job does. */
  #copied = { totalBytes: 0, doneBytes: 0, dirtyBytes: 0, bytesPerSecond: 0 };

  /** `waitsFor`: an answer of a host; `idle`: why there is nothing to copy, where that is so. */
  describe(mirror: MirrorProgress | undefined, waitsFor: string | undefined, idle: () => string | undefined): JobProgress {
    if (mirror !== undefined) {
      const { totalBytes, doneBytes, dirtyBytes, bytesPerSecond } = mirror;
      this.#copied = { totalBytes, doneBytes, dirtyBytes, bytesPerSecond };
    }
    const { totalBytes, doneBytes, bytesPerSecond } = this.#copied;
    const leftBytes = totalBytes - doneBytes;
    const isCopying = this.phase === 'copying';
    const isWaiting = isCopying && (mirror === undefined || mirror.phase === 'waiting');
    const reason = waitsFor ?? mirror?.targetReason ?? (isWaiting && !this.isOver ? idle() : undefined);
    const copying = mirror?.mode === 'blocking' ? 'converging' : 'copying';
    return {
      phase: isWaiting && reason !== undefined ? 'waiting' : isCopying ? copying : this.phase,
      ...this.#copied,
      ...(bytesPerSecond > 0 && leftBytes > 0 && { secondsLeft: Math.ceil(leftBytes / bytesPerSecond) }),
      ...(reason !== undefined && { reason }),
      ...(this.stallMs !== undefined && { stallMs: this.stallMs }),
    };
  }
}
