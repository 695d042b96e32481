/** What a daemon does first: its records, turned into a list of actions. Pure, so that every odd case can be looked at without a disk. */
import type { AttachmentRecord, ExportRecord, VirtualDeviceRecord } from './records.ts';

export interface Records {
  readonly exports: ReadonlyMap<string, ExportRecord>;
  readonly attachments: ReadonlyMap<string, AttachmentRecord>;
  readonly virtualDevices: ReadonlyMap<string, VirtualDeviceRecord>;
}

export type Action =
  | { readonly type: 'restore-export'; readonly record: ExportRecord; readonly attachments: readonly AttachmentRecord[] }
  | { readonly type: 'restore-virtual-device'; readonly record: VirtualDeviceRecord }
  /** The record stays where it is, and nothing comes of it. */
  | { readonly type: 'report'; readonly subject: string; readonly reason: string };

/** Each device's attachments are decided here; who comes first is the caller's. */
export function planStart(records: Records): Action[] {
  const actions: Action[] = [];
  for (const record of records.virtualDevices.values()) actions.push({ type: 'restore-virtual-device', record });
  const byExport = new Map<string, AttachmentRecord[]>();
  for (const record of [...records.attachments.values()].sort(byAge)) {
    const exported = records.exports.get(record.export);
    const others = byExport.get(record.export) ?? [];
    // A daemon may have ended between a new attachment and the removal of the marks that it is in place of: a mark is nobody's use of the device.
    const user = isMark(record) ? undefined : others.find((other) => !isMark(other));
    if (exported === undefined) {
      actions.push(report(record, `export ${record.export} is not there any more`));
    } else if (user !== undefined && !exported.readOnly) {
      // Never two writers, whatever the files say (invariant 1).
      actions.push(report(record, `export ${record.export} is exclusive, and attachment ${user.id} is older`));
    } else {
      byExport.set(record.export, [...others, record]);
    }
  }
  for (const record of records.exports.values()) {
    actions.push({ type: 'restore-export', record, attachments: byExport.get(record.name) ?? [] });
  }
  return actions;
}

/** Of a stale copy, or of one that nobody fills while no daemon is here. */
function isMark({ copy }: AttachmentRecord): boolean {
  return copy?.state === 'superseded' || copy?.state === 'aborted' || copy?.state === 'filling';
}

function report(record: AttachmentRecord, reason: string): Action {
  const { id, host, vm, name } = record;
  return { type: 'report', subject: `attachment ${id} of ${host}:${vm}/${name}`, reason };
}

function byAge(a: AttachmentRecord, b: AttachmentRecord): number {
  return a.createdAt < b.createdAt ? -1 : a.createdAt > b.createdAt ? 1 : a.id < b.id ? -1 : 1;
}
