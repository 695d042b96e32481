/** The driver's choice between write-back and write-through: in the record here at once, and in the one of the device's host as soon as that is there. */
import { NetbusError } from '../device/errors.ts';
import type { DeviceHost } from './device-host.ts';
import type { StoredRecord } from './record.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface WriteCacheChoiceOptions {
  readonly record: StoredRecord<VirtualDeviceRecord>;
  readonly deviceHost: DeviceHost;
  /** The device's host may not know what the driver chose last. */
  readonly isUntold: boolean;
  readonly onNotStored: (reason: string) => void;
  readonly onNotTold: (reason: string) => void;
}

export class WriteCacheChoice {
  readonly #options: WriteCacheChoiceOptions;
  /** The driver's choice is not yet in the record of the device's host. */
  #isUntold: boolean;

  constructor(options: WriteCacheChoiceOptions) {
    this.#options = options;
    this.#isUntold = options.isUntold;
  }

  async keep(enabled: boolean): Promise<void> {
    const { record, onNotStored } = this.#options;
    try {
      await record.change((value) => ({ ...value, writeCache: enabled }));
    } catch (thrown) {
      onNotStored(NetbusError.from(thrown).message);
    }
    this.#isUntold = true;
    await this.tell();
  }

  /** Called when the device's host is there. */
  async tell(): Promise<void> {
    const { record, deviceHost, onNotTold } = this.#options;
    const { attachment, writeCache } = record.value;
    if (!this.#isUntold || writeCache === null) return;
    try {
      await deviceHost.setWriteCache(attachment, writeCache);
      this.#isUntold = record.value.writeCache !== writeCache;
    } catch (thrown) {
      onNotTold(NetbusError.from(thrown).message);
    }
  }
}
