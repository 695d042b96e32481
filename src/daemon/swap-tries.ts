/** The tries of one hot-swap at the hosts of both devices: each marks the two, and is over at both before the next one begins. See src/device/copy-mark.ts. */
import type { CopyTarget } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { CopyHost } from '../migration/swap/copy-host.ts';
import { type Persistent, type SwapTry, settle } from '../migration/swap/try.ts';
import type { Attachment } from './attachment.ts';
import type { DeviceHost } from './device-host.ts';
import type { JobRecord } from './job-record.ts';
import type { StoredRecord } from './record.ts';

export interface SwapTriesOptions {
  readonly record: StoredRecord<JobRecord>;
  /** The virtual device; throws `not_found`. */
  readonly attachment: () => Attachment;
  readonly deviceHost: (host: string) => DeviceHost;
}

export class SwapTries {
  readonly #options: SwapTriesOptions;
  #isBlank = false;

  constructor(options: SwapTriesOptions) {
    this.#options = options;
  }

  /** The new device was all zeroes when a try of this daemon began. */
  get isBlank(): boolean {
    return this.#isBlank;
  }

  /** The present one. Only after `begin`, by this daemon or one before it. */
  get current(): SwapTry {
    const { record, deviceHost } = this.#options;
    const { from, to, attachment, generation } = record.value;
    return {
      generation: generation!,
      old: { host: deviceHost(from!.host).copies, attachment: from!.attachment },
      next: { host: deviceHost(to.host).copies, attachment: attachment! },
    };
  }

  /** Marks both devices. Rejects where that is refused; nothing is marked then, as far as the hosts answer. */
  async begin(overwrite: boolean): Promise<void> {
    const { record, attachment, deviceHost } = this.#options;
    const { to } = record.value;
    const { host, export: exported, attachment: id, vm, name, profile, writeCache, holdMs } = attachment().record;
    const old = deviceHost(host).copies;
    const from = { host, export: exported, attachment: id };
    const { generation, fenceAfterMs } = await markOld(old, id, to);
    try {
      const asked = { export: to.export, from, generation, vm, name, profile, writeCache, holdMs, fenceAfterMs, overwrite };
      const { attachment: filled, isBlank } = await deviceHost(to.host).copies.fill(asked);
      this.#isBlank ||= isBlank;
      await record.change((value) => ({ ...value, state: 'copying', from, generation, attachment: filled }));
    } catch (thrown) {
      await old.abort(id, generation).catch(() => undefined);
      throw thrown;
    }
  }

  /** Another one, when the present one is over at both hosts, onto what is its own already. */
  async beginAgain(asker: Persistent): Promise<void> {
    await this.settle(asker);
    await asker.persist(() => this.begin(true));
  }

  /** Both devices are still marked for the present one. */
  async isWhole(asker: Persistent): Promise<boolean> {
    const { old, next, generation } = this.current;
    const ends = [
      [old, 'copied'],
      [next, 'filling'],
    ] as const;
    for (const [{ host, attachment }, state] of ends) {
      const mark = await asker.persist(() => host.mark(attachment));
      if (mark?.state !== state || mark.generation !== generation) return false;
    }
    return true;
  }

  /** What became of the present one, which is over then. */
  settle(asker: Persistent): Promise<'decided' | 'given up'> {
    return settle(this.current, asker);
  }
}

/** See CopyHost.begin. Where its answer is lost, what it may have marked is taken back, if its host answers again. */
async function markOld(old: CopyHost, attachment: string, to: CopyTarget): ReturnType<CopyHost['begin']> {
  try {
    return await old.begin(attachment, to);
  } catch (thrown) {
    const { code } = NetbusError.from(thrown);
    if (code === 'unreachable' || code === 'timeout') await takeBack(old, attachment, to).catch(() => undefined);
    throw thrown;
  }
}

/** A virtual device has one job at a time, so a copy to this very device is this one's. */
async function takeBack(old: CopyHost, attachment: string, to: CopyTarget): Promise<void> {
  const mark = await old.mark(attachment);
  const isOwn = mark?.state === 'copied' && mark.to.host === to.host && mark.to.export === to.export;
  if (isOwn) await old.abort(attachment, mark.generation);
}
