/** Devices on which a hot-swap has left a copy that counts no more, or never did: who gets to use them has to know what is on them. */
import { markText } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import type { Export } from './export.ts';
import { userName } from './export-entry.ts';
import type { AttachmentRecord } from './records.ts';

/** The attachment is there for its mark alone: nobody may use it, and nobody is about to decide about it. */
export function isStale(target: Export, { id, copy }: AttachmentRecord): boolean {
  switch (copy?.state) {
    case 'superseded':
    case 'aborted':
      return true;
    case 'filling':
      return !target.isActive(id);
    default:
      return false;
  }
}

/** It says something of the device that stays true without its VM's host. */
export function isKeptAsMark({ copy }: AttachmentRecord): boolean {
  return copy !== undefined && copy.state !== 'copied';
}

export function staleMarks(target: Export): AttachmentRecord[] {
  return target.attachments.filter((record) => isStale(target, record));
}

/** Those that are not stale. */
export function usersOf(target: Export): AttachmentRecord[] {
  return target.attachments.filter((record) => !isStale(target, record));
}

/** `it was … (m2:web/disk, since 2026-01-01T00:00:00.000Z)`. */
export function staleText(record: AttachmentRecord): string {
  const { copy } = record;
  if (copy === undefined) return '';
  const since = copy.since === undefined ? '' : `, since ${copy.since}`;
  return `${markText(copy)} (${userName(record)}${since})`;
}

/** Throws `in_use`. */
export function checkNotStale(target: Export): void {
  const [mark] = staleMarks(target);
  if (mark === undefined) return;
  throw new NetbusError(
    'in_use',
    `export ${target.name}: ${staleText(mark)}; for someone who knows that it is wanted all the same: --force-stale`,
  );
}
