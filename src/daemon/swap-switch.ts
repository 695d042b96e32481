/** The switch of a hot-swap: in a pause of the guest the new device takes the old one's place, or the guest gets the old one back. */
import { NetbusError } from '../device/errors.ts';
import { mayPass, type SwapTry, settle } from '../migration/swap/try.ts';
import type { AttachedDevice, AttachedPlace } from './attached-device.ts';
import type { Attachment } from './attachment.ts';
import type { Patience } from './patience.ts';
import type { SwapMirror } from './swap-mirror.ts';
import { swapped, unswapped } from './swap-record.ts';

export interface SwapSwitchOptions {
  readonly target: Attachment;
  readonly tried: SwapTry;
  readonly place: AttachedPlace & { readonly generation: number; readonly membership: string | undefined };
  readonly mirror: SwapMirror;
  readonly patience: Patience;
  /** Resolves when the mirror has converged, or the job is to end. */
  readonly converged: () => Promise<void>;
  /** The job is to end: nothing more is begun. */
  readonly isStopping: () => boolean;
}

export type Switched =
  /** Nothing was stored for it. */
  | { readonly outcome: 'stays' }
  /** The new device is the guest's, who waited for so long. */
  | { readonly outcome: 'decided'; readonly stallMs: number | undefined }
  /** The try is of no use any more; the guest is with the old device. */
  | { readonly outcome: 'lost' };

export class SwapSwitch {
  readonly #options: SwapSwitchOptions;
  #isTried = false;

  constructor(options: SwapSwitchOptions) {
    this.#options = options;
  }

  async run(): Promise<Switched> {
    const { target, place, mirror, patience, converged, isStopping } = this.#options;
    const next = target.candidate(place, { isStable: true });
    await patience.warm(next);
    if (!(await this.#hostsAnswer())) return this.#stays(next);
    mirror.flushAgain();
    await converged();
    mirror.finish = true;
    let failure: unknown;
    const stallMs = await target.renew(async () => {
      try {
        if (mirror.inStep && !isStopping()) await this.#decide(next);
      } catch (thrown) {
        // The daemon ends, or this host may not ask: the guest waits for whoever finds out.
        failure = thrown;
        target.holds(NetbusError.from(thrown).message);
      }
    });
    if (failure !== undefined) throw failure;
    mirror.finish = false;
    // Without a guest that goes on there was no grant that anybody knows of.
    if (target.record.swap !== undefined && stallMs === undefined) await this.withdraw();
    if (target.record.swap !== undefined) return { outcome: 'decided', stallMs };
    return this.#stays(next);
  }

  #stays(next: AttachedDevice): Switched {
    next.stop();
    // Its write log was made in advance.
    next.forget();
    return { outcome: this.#isTried ? 'lost' : 'stays' };
  }

  /** The guest would wait for a host that does not answer just now. What else is wrong comes out in the steps. */
  async #hostsAnswer(): Promise<boolean> {
    const { tried, patience } = this.#options;
    try {
      await Promise.all([tried.old, tried.next].map(({ host, attachment }) => host.mark(attachment)));
    } catch (thrown) {
      if (!mayPass(thrown)) return true;
      patience.reason = NetbusError.from(thrown).message;
      return false;
    }
    return true;
  }

  /** The guest gets the old device again, unless the new one is its already. Resolves when that is known; until then the guest waits. */
  async withdraw(): Promise<void> {
    const { target, tried, patience } = this.#options;
    if (target.record.swap === undefined) return;
    if ((await settle(tried, patience)) === 'given up') await putBack(target, patience);
  }

  /** Steps 2 and 3, so that the next grant is step 4. Rejects where the daemon ends. */
  async #decide(next: AttachedDevice): Promise<void> {
    const { target, tried, place, mirror, patience, isStopping } = this.#options;
    this.#isTried = true;
    const stored = await Promise.allSettled([
      tried.next.host.complete(tried.next.attachment, tried.generation),
      target.replace(next, (value) => swapped(value, place, mirror.ids)),
    ]);
    const failed = stored.find((result) => result.status === 'rejected');
    if (failed !== undefined || isStopping()) {
      // The old device's host was told nothing, and its guest goes on there, whatever the new one's has stored.
      if (failed !== undefined) patience.reason = NetbusError.from(failed.reason).message;
      return putBack(target, patience);
    }
    try {
      await tried.old.host.handOver(tried.old.attachment, tried.generation);
    } catch (thrown) {
      patience.reason = NetbusError.from(thrown).message;
      await this.withdraw();
    }
  }
}

/** The guest's device is the old one again, where it was to be another one. What was kept for that one is of no use. */
export async function putBack(target: Attachment, patience: Patience): Promise<void> {
  const { swap } = target.record;
  if (swap === undefined) return;
  // Before it is stored, for a daemon that is killed then; and behind that, because a session that was asked for may have made it again.
  target.behind.forget();
  const old = target.candidate(swap.old, { isStable: false });
  const failed = await patience.persist(() => target.replace(old, unswapped));
  failed.forget();
}
