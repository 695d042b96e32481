/**
 * What the last host of a guest signed and gave to this one, because it could not tell the device's host: kept until the device's host has been shown it
 * (docs/protocol.md, 7.2).
 */
import { NetbusError } from '../device/errors.ts';
import type { OpenSession } from '../device/source.ts';
import type { SignedHandOver } from '../directory/signed-hand-over.ts';
import type { Log } from '../lib/log.ts';
import type { DeviceHost } from './device-host.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface BroughtHandOverOptions {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly deviceHost: DeviceHost;
  readonly log: Log;
}

export class BroughtHandOver {
  readonly #options: BroughtHandOverOptions;

  constructor(options: BroughtHandOverOptions) {
    this.#options = options;
  }

  /** Resolves when it is stored, in place of one that came before; null: of that one there is none any more. Rejects with `denied` unless the guest is expected from `host`. */
  async keep(host: string, signed: SignedHandOver | null): Promise<void> {
    const { record, log } = this.#options;
    await record.change((value) => {
      if (!value.arriving || value.from !== host)
        throw new NetbusError('denied', `${value.vm}/${value.name} is not expected from host ${host}`);
      return signed === null ? withoutSigned(value) : { ...value, signed };
    });
    if (signed === null) log.info({ from: host }, "the guest's last host took back what it had signed");
    else log.info({ from: host }, "what the guest left came from its last host, signed: that could not tell the device's host");
  }

  /** Sessions that show it where the last host still has the lease. */
  wrap(open: OpenSession): OpenSession {
    return async (onEnded) => {
      const session = await open(onEnded);
      return {
        ...(session.ids !== undefined && { ids: session.ids }),
        activate: async (purpose) => {
          try {
            return await session.activate(purpose);
          } catch (thrown) {
            if (NetbusError.from(thrown).code !== 'in_use' || !(await this.#present())) throw thrown;
            return session.activate(purpose);
          }
        },
        quiesced: (left) => session.quiesced(left),
        close: () => session.close(),
      };
    };
  }

  /** False where there is nothing to show (any more). */
  async #present(): Promise<boolean> {
    const { record, deviceHost, log } = this.#options;
    const { attachment, signed } = record.value;
    if (signed === undefined) return false;
    try {
      await deviceHost.present({ attachment, signed });
      log.info({}, "the device's host took what the guest's last host had signed");
      return true;
    } catch (thrown) {
      const { code, message } = NetbusError.from(thrown);
      // The last host has told it itself, or its guest went on there; a device's host of an older release knows no such thing.
      if (code !== 'ended' && code !== 'not_found') throw thrown;
      log.info({ reason: message }, "what the guest's last host had signed is of no use");
      await record.change((value) => (value.signed === signed ? withoutSigned(value) : value));
      return false;
    }
  }
}

function withoutSigned({ signed: _, ...record }: VirtualDeviceRecord): VirtualDeviceRecord {
  return record;
}
