/** What the bus has to know about a device class: docs/protocol.md, 6. One entry per class; everything else is the same for all. */
import { checkDiskRequest, DiskKind, DiskStatus } from '../device/disk.ts';
import type { MessageTable } from '../device/message-table.ts';
import type { DeviceClass, Profile } from '../device/profile.ts';

export interface MessageRules {
  /** False for messages to the device that have no reply: they go as EVENT. */
  hasReply(kind: number): boolean;
  /** The status to answer a peer's REQUEST with at once, or 0 to let it pass to the device. */
  check(table: MessageTable, row: number, profile: Profile): number;
  /** Whether a reply of `length` bytes can be the answer to the request: a peer's reply is not trusted either. */
  replyFits(table: MessageTable, row: number, status: number, length: number): boolean;
  /** Whether the device's side may send an EVENT of this kind with so much payload. */
  deviceEventFits(kind: number, length: number): boolean;
}

const disk: MessageRules = {
  hasReply: () => true,
  check: checkDiskRequest,
  // A read that succeeded has all its bytes; nothing else has any.
  replyFits: (table, row, status, length) =>
    length === (status === DiskStatus.ok && table.kind[row] === DiskKind.read ? table.inLength[row] : 0),
  deviceEventFits: (kind, length) => kind === DiskKind.capacityChanged && length === 0,
};

const rules: Record<DeviceClass, MessageRules> = { disk };

export function messageRules(profile: Profile): MessageRules {
  return rules[profile.class];
}
