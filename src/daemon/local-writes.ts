/**
 * The writes to a device of this very host: no log is kept of them, see filters/write-log/unlogged-writes.ts. A guest that comes from another host may have
 * left one there, which goes to the device first where this host forgot what is in it.
 */
import type { Grant, OpenSession } from '../device/source.ts';
import type { KeptLog } from '../filters/write-log/kept-blocks.ts';
import { UnloggedWrites } from '../filters/write-log/unlogged-writes.ts';
import type { Clock } from '../lib/clock.ts';
import type { WriteLogChoice } from './attachment-log.ts';
import { openKeptLog } from './kept-log.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface LocalWritesOptions {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  /** Undefined: nothing is asked of other hosts. */
  readonly logs: Pick<WriteLogChoice, 'askKeptPage' | 'allocate'> | undefined;
  readonly clock: Clock;
}

export class LocalWrites {
  readonly #options: LocalWritesOptions;
  readonly #writes: UnloggedWrites;

  constructor(options: LocalWritesOptions) {
    this.#options = options;
    this.#writes = new UnloggedWrites(options.clock);
  }

  /** The guest may leave: see Passage. */
  mayLeave(expected: boolean): void {
    this.#writes.mayLeave = expected;
  }

  /** For a guest that has stopped. */
  get areFlushed(): boolean {
    return this.#writes.areFlushed;
  }

  wrap(open: OpenSession): OpenSession {
    return async (onEnded) => {
      const session = await open(onEnded);
      return {
        activate: async () => {
          const grant = this.#withoutWhatIsGood(await session.activate());
          try {
            return this.#writes.admit(grant, await this.#kept(grant));
          } catch (thrown) {
            await grant.device.close();
            throw thrown;
          }
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  async #kept({ handOver, bootId, instance }: Grant): Promise<KeptLog | undefined> {
    const { record, logs } = this.#options;
    const unflushed = handOver?.unflushed;
    if (logs === undefined || unflushed?.log === undefined) return undefined;
    if (unflushed.bootId === bootId && unflushed.instance === instance) return undefined;
    const kept = await openKeptLog({ ...logs, record }, unflushed.log.host);
    const ids = { bootId: unflushed.bootId, instance: unflushed.instance };
    // On stable storage before the guest's first request: what it writes then must not be overwritten by what is older.
    return kept && { ...kept, madeGood: () => record.change((value) => ({ ...value, madeGood: ids })) };
  }

  #withoutWhatIsGood(grant: Grant): Grant {
    const { handOver } = grant;
    const { madeGood } = this.#options.record.value;
    const isGood = madeGood?.bootId === handOver?.unflushed?.bootId && madeGood?.instance === handOver?.unflushed?.instance;
    if (handOver?.unflushed === undefined || !isGood) return grant;
    const { unflushed: _, ...rest } = handOver;
    return { ...grant, handOver: rest };
  }
}
