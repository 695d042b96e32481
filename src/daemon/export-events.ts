/** Events about the exports of this host, in words. */
import type { NetbusError } from '../device/errors.ts';
import { formatBytes } from '../lib/format.ts';
import type { NewEvent } from './events.ts';
import type { DeviceFailure } from './export.ts';
import { userName } from './export-entry.ts';
import type { AttachmentRecord, ExportRecord } from './records.ts';

export function addedEvent({ name, disk, readOnly, allow }: ExportRecord): NewEvent {
  const access = readOnly ? 'read-only' : 'read and write';
  const hosts = allow.length > 0 ? allow.join(', ') : 'nobody';
  return { type: 'export.added', subject: name, message: `${disk} is exported, ${access}, for ${hosts}`, details: { disk } };
}

export function removedEvent({ name, disk }: ExportRecord): NewEvent {
  return { type: 'export.removed', subject: name, message: `${disk} is not exported any more`, details: { disk } };
}

export function readyEvent({ name, disk }: ExportRecord): NewEvent {
  return { type: 'export.ready', subject: name, message: `${disk} is open`, details: { disk } };
}

export function unreadyEvent({ name, disk }: ExportRecord, state: { name: 'waiting' | 'failed'; reason: string }): NewEvent {
  const { reason } = state;
  const message = state.name === 'waiting' ? `it waits: ${reason}` : `it cannot be opened, and is tried again: ${reason}`;
  return { type: `export.${state.name}`, subject: name, message, details: { disk, reason } };
}

export function failureEvent({ name, disk }: ExportRecord, failure: DeviceFailure): NewEvent {
  const { operation, error, message, failures } = failure;
  const isFull = error === 'ENOSPC' || error === 'EDQUOT';
  const details = { disk, operation, error, failures };
  return { type: isFull ? 'export.disk-full' : 'export.device-error', subject: name, message: `${disk}: ${message}`, details };
}

export function flushFailedEvent({ name, disk }: ExportRecord): NewEvent {
  const message = `${disk}: a flush failed, so acknowledged writes may be lost; every flush fails until it is opened anew (netbus export ${name} --reopen)`;
  return { type: 'export.flush-failed', subject: name, message, details: { disk } };
}

export function reopenedEvent({ name, disk }: ExportRecord): NewEvent {
  const message = `${disk} was opened anew: guests with writes that were not flushed send them again`;
  return { type: 'export.reopened', subject: name, message, details: { disk } };
}

export function attachedEvent(record: AttachmentRecord, attached: boolean): NewEvent {
  const user = userName(record);
  return {
    type: attached ? 'export.attached' : 'export.detached',
    subject: record.export,
    message: attached ? `${user} has it attached` : `${user} has it no more`,
    details: { user, peer: record.host },
  };
}

export function grownEvent(record: AttachmentRecord): NewEvent {
  const user = userName(record);
  const { capacityBytes } = record.profile;
  const message = `${user} sees ${formatBytes(capacityBytes)} of it now`;
  return { type: 'export.grown', subject: record.export, message, details: { user, capacityBytes } };
}

export function fencedEvent(record: AttachmentRecord, host: string, { message }: NetbusError): NewEvent {
  const user = userName({ ...record, host });
  return { type: 'export.fenced', subject: record.export, message: `${user}: ${message}`, details: { user, peer: host } };
}

export function swapBegunEvent(record: AttachmentRecord, what: string): NewEvent {
  const user = userName(record);
  return {
    type: 'export.swap-begun',
    subject: record.export,
    message: `${user}: ${what}`,
    details: { user, peer: record.host },
  };
}

export function staleRemovedEvent(record: AttachmentRecord, what: string): NewEvent {
  const message = `the mark of a stale copy was removed: ${what}`;
  return { type: 'export.stale-removed', subject: record.export, message, details: { user: userName(record) } };
}

export function sessionLostEvent(record: AttachmentRecord, { code, message }: NetbusError): NewEvent {
  const user = userName(record);
  return {
    type: 'export.session-lost',
    subject: record.export,
    message: `the session of ${user} ended while it had the device: ${message}`,
    details: { user, peer: record.host, code, reason: message },
  };
}
