import type { Batch, Replies } from '../../device/batch.ts';
import type { Guest } from '../../device/device.ts';
import type { NetbusError } from '../../device/errors.ts';
import type { MessageTable } from '../../device/message-table.ts';

/** What a frontend does about its device's calls. */
export interface DeviceEvents {
  reply(replies: Replies): void;
  ready(): void;
  lost(cause: NetbusError): void;
}

/** The guest that one device sees. Silenced when that device is done with: nothing that comes late gets through. */
export class DeviceGuest implements Guest {
  readonly requests: MessageTable;
  #events: DeviceEvents | undefined;

  constructor(requests: MessageTable, events: DeviceEvents) {
    this.requests = requests;
    this.#events = events;
  }

  silence(): void {
    this.#events = undefined;
  }

  reply(replies: Replies): void {
    this.#events?.reply(replies);
  }

  /** A virtio disk has no events of its own: a new capacity comes with the profile. */
  push(events: Batch): number {
    return events.count;
  }

  ready(): void {
    this.#events?.ready();
  }

  lost(cause: NetbusError): void {
    this.#events?.lost(cause);
  }
}
