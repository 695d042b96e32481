/** What becomes of an attachment's place and lease, as events of its export: each is read from the record before and after it was stored. */
import { isTarget } from '../device/copy-mark.ts';
import type { Succession } from '../device/succession.ts';
import type { EventRecorder, NewEvent } from './events.ts';
import { userName } from './export-entry.ts';
import type { StoredRecord } from './record.ts';
import type { AttachmentRecord } from './records.ts';

/** Changes where an attachment is, durably, and tells of it. */
export async function changePlace(
  record: StoredRecord<AttachmentRecord>,
  change: <State extends Succession>(state: State) => State,
  events: EventRecorder,
): Promise<void> {
  let before = record.value;
  await record.change((value) => {
    before = value;
    return change(value);
  });
  for (const event of [...placeEvents(before, record.value), ...copyEvents(before, record.value)]) events.record(event);
}

/** What became of a hot-swap. Pure. */
export function copyEvents(before: AttachmentRecord, after: AttachmentRecord): NewEvent[] {
  const { copy } = before;
  if (copy === undefined || copy.state === after.copy?.state) return [];
  const user = userName(after);
  const device = isTarget(copy) ? `${copy.from.host}/${copy.from.export}` : `${copy.to.host}/${copy.to.export}`;
  const details = { user, device, generation: copy.generation };
  const event = (type: NewEvent['type'], message: string): NewEvent => ({ type, subject: after.export, message, details });
  if (isTarget(copy)) {
    if (after.copy === undefined) return [event('export.swap-decided', `${user} has it in place of ${device} from now on`)];
    return after.copy.state === 'aborted'
      ? [event('export.swap-aborted', `${user}: the swap from ${device} was given up`)]
      : [];
  }
  if (after.copy === undefined) return [event('export.swap-aborted', `${user} keeps it: the swap to ${device} was given up`)];
  return after.copy.state === 'superseded' ? [event('export.superseded', `${user} has ${device} in its place`)] : [];
}

/** Pure. A fence is told by whoever knows on whose word it was. */
export function placeEvents(before: AttachmentRecord, after: AttachmentRecord): NewEvent[] {
  const { lease, host, standby, handOver } = after;
  const user = userName(after);
  const event = (type: NewEvent['type'], message: string, about: AttachmentRecord = after): NewEvent => ({
    type,
    subject: after.export,
    message,
    details: { user: userName(about), peer: about.host, epoch: lease.epoch },
  });
  if (lease.epoch > before.lease.epoch) {
    return host === before.host
      ? [event('export.granted', `${user} has the device (epoch ${lease.epoch})`)]
      : [event('export.moved', `${user} has the device (epoch ${lease.epoch}): the VM came from host ${before.host}`)];
  }
  const wasFenced = after.fenced?.includes(before.host) ?? false;
  if (before.lease.holder !== null && lease.holder === null && !wasFenced) {
    const gave = `${userName(before)} gave the device back`;
    if (host !== before.host) return [event('export.returned', `${gave} untouched: the VM is at host ${host} again`, before)];
    if (standby === undefined || handOver === undefined) return [event('export.returned', gave)];
    const unfinished = handOver.queues.reduce((sum, { heads }) => sum + heads.length, 0);
    const requests =
      unfinished === 0 ? 'no request unfinished' : `${unfinished} request${unfinished === 1 ? '' : 's'} unfinished`;
    return [event('export.handed-over', `${gave}, with ${requests}, for host ${standby.host}`)];
  }
  if (host !== before.host) {
    return [
      event(
        'export.taken-over',
        `host ${host} took ${after.vm}/${after.name} over from host ${before.host}: the VM starts anew there`,
      ),
    ];
  }
  if (standby !== undefined && standby.host !== before.standby?.host) {
    return [event('export.prepared', `${user} is expected at host ${standby.host}`)];
  }
  if (before.previous !== undefined && after.previous === undefined && lease.holder !== null) {
    return [event('export.settled', `${user} has left nothing behind at host ${before.previous.host}`)];
  }
  return [];
}
