/** Events about the exports of this host, in words. */
import type { NetbusError } from '../device/errors.ts';
import { formatBytes } from '../lib/format.ts';
import type { NewEvent } from './events.ts';
import type { DeviceFailure } from './export.ts';
import { userName } from './export-entry.ts';
import { type AttachmentRecord, deviceOf, type ExportRecord } from './records.ts';

export function addedEvent(record: ExportRecord): NewEvent {
  const { name, readOnly, allow } = record;
  const access = readOnly ? 'read-only' : 'read and write';
  const hosts = allow.length > 0 ? allow.join(', ') : 'nobody';
  return {
    type: 'export.added',
    subject: name,
    message: `${deviceOf(record)} is exported, ${access}, for ${hosts}`,
    details: backing(record),
  };
}

export function removedEvent(record: ExportRecord): NewEvent {
  const { name } = record;
  return {
    type: 'export.removed',
    subject: name,
    message: `${deviceOf(record)} is not exported any more`,
    details: backing(record),
  };
}

export function readyEvent(record: ExportRecord): NewEvent {
  const { name } = record;
  return { type: 'export.ready', subject: name, message: `${deviceOf(record)} is open`, details: backing(record) };
}

export function unreadyEvent(
  record: ExportRecord,
  { name, reason, isHeld }: { name: 'waiting' | 'failed'; reason: string; isHeld?: true },
): NewEvent {
  const failed = isHeld ? 'it is not opened by itself' : 'it cannot be opened, and is tried again';
  const message = name === 'waiting' ? `it waits: ${reason}` : `${failed}: ${reason}`;
  return { type: `export.${name}`, subject: record.name, message, details: { ...backing(record), reason } };
}

export function failureEvent(record: ExportRecord, failure: DeviceFailure): NewEvent {
  const { name } = record;
  const { operation, error, message, failures } = failure;
  const isFull = error === 'ENOSPC' || error === 'EDQUOT';
  const details = { ...backing(record), operation, error, failures };
  return {
    type: isFull ? 'export.disk-full' : 'export.device-error',
    subject: name,
    message: `${deviceOf(record)}: ${message}`,
    details,
  };
}

export function flushFailedEvent(record: ExportRecord): NewEvent {
  const { name } = record;
  const message = `${deviceOf(record)}: a flush failed, so acknowledged writes may be lost; every flush fails until it is opened anew (netbus export ${name} --reopen)`;
  return { type: 'export.flush-failed', subject: name, message, details: backing(record) };
}

export function reopenedEvent(record: ExportRecord): NewEvent {
  const { name } = record;
  const message = `${deviceOf(record)} was opened anew: guests with writes that were not flushed send them again`;
  return { type: 'export.reopened', subject: name, message, details: backing(record) };
}

export function lostEvent(record: ExportRecord, { message }: NetbusError): NewEvent {
  const details = { ...backing(record), reason: message };
  const said = `${message}: it is opened anew, and guests with writes that were not flushed send them again`;
  return { type: 'export.reopened', subject: record.name, message: said, details };
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

function backing({ disk, nbd }: ExportRecord): Record<string, string> {
  return { ...(disk !== undefined && { disk }), ...(nbd !== undefined && { nbd }) };
}
