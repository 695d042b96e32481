/** An export as `status` and `ls` show it. */
import type { AttachmentPlace, DeviceDetails, DeviceEntry, ExportEntry, ExportUser } from '../api/types.ts';
import { markText } from '../device/copy-mark.ts';
import { NetbusError } from '../device/errors.ts';
import { isFenced } from '../device/succession.ts';
import type { Export } from './export.ts';
import { type AttachmentRecord, deviceOf } from './records.ts';

/** Of the hosts that may use it so many are named; a list of all exports must fit a message between hosts. */
const ALLOW_LISTED_MAX = 32;

/** One row of `exports.list`. */
export interface ExportListing {
  readonly name: string;
  readonly class: DeviceEntry['class'];
  readonly capacityBytes: number;
  readonly readOnly: boolean;
  readonly shared: boolean;
  readonly state: DeviceEntry['state'];
  readonly inUseBy: string[];
  /** Where they were asked for; a host of an older release does not give them. */
  readonly details?: DeviceDetails | undefined;
}

/** Looks at the device anew, so that a size that changed, or a device that is gone, is shown. */
export async function describeExport(target: Export): Promise<ExportEntry> {
  const { record, state, shared } = target;
  const entry: ExportEntry = {
    name: record.name,
    class: 'disk',
    device: deviceOf(record),
    readOnly: record.readOnly,
    shared,
    allow: [...record.allow],
    // Where the device cannot be asked: what its users see of it.
    capacityBytes: target.attachments[0]?.profile.capacityBytes ?? 0,
    state: 'ready',
    since: new Date(target.since).toISOString(),
    backend: {},
    attachments: target.attachments.map((record) => describeUser(target, record)),
  };
  if (state.name !== 'ready') {
    entry.state = state.name === 'failed' ? 'failed' : 'waiting';
    entry.reason = target.reason!;
    return entry;
  }
  entry.capacityBytes = state.source.profile.capacityBytes;
  try {
    entry.capacityBytes = (await target.refresh()).capacityBytes;
  } catch (thrown) {
    entry.state = 'failed';
    entry.reason = NetbusError.from(thrown).message;
  }
  entry.backend = { ...state.source.describe() };
  // It goes on, so it is ready; but whoever looks for the cause of a guest's I/O errors looks here.
  const { lastFailure } = entry.backend;
  if (entry.reason === undefined && typeof lastFailure === 'string') entry.reason = lastFailure;
  return entry;
}

function describeUser(target: Export, record: AttachmentRecord): ExportUser {
  const { id, host, vm, name, lease, holdMs, standby, previous, copy } = record;
  const since = target.activeSince(id);
  const active = target.isActive(id);
  return {
    host,
    vm,
    name,
    epoch: lease.epoch,
    active,
    ...(holdMs !== undefined && { holdMs }),
    ...(since !== undefined && { since: new Date(since).toISOString() }),
    state: markState(record, active) ?? (active ? 'active' : placeState(record)),
    ...(standby !== undefined && { standby: standby.host }),
    ...(previous !== undefined && { previous: previous.host }),
    ...(copy !== undefined && { mark: markText(copy) }),
  };
}

function markState({ copy }: AttachmentRecord, active: boolean): AttachmentPlace | undefined {
  switch (copy?.state) {
    case 'superseded':
    case 'aborted':
      return 'stale';
    case 'filling':
      return active ? 'filling' : 'stale';
    default:
      return copy?.state;
  }
}

function placeState(record: AttachmentRecord): AttachmentPlace {
  if (isFenced(record, record.host)) return 'fenced';
  if (record.lease.holder !== null) return 'away';
  return record.handOver !== undefined && record.standby !== undefined ? 'handed-over' : 'idle';
}

/** As the lists show it: `host:vm/name`. */
export function userName({ host, vm, name }: { host: string; vm: string; name: string }): string {
  return `${host}:${vm}/${name}`;
}

/** As other hosts see it. Where the image lies on this host is nobody else's business: they learn its kind. */
export async function listExport(target: Export, { details, own }: { details: boolean; own: boolean }): Promise<ExportListing> {
  const entry = await describeExport(target);
  const { name, class: kind, capacityBytes, readOnly, shared, state } = entry;
  // What is there for its mark alone does not use it.
  const users = entry.attachments.filter((user) => user.state !== 'stale');
  const listing = { name, class: kind, capacityBytes, readOnly, shared, state, inUseBy: users.map(userName) };
  if (!details) return listing;
  const profile = target.state.name === 'ready' ? target.state.source.profile : target.attachments[0]?.profile;
  return {
    ...listing,
    details: {
      ...(own && { path: entry.device }),
      ...(typeof entry.backend.kind === 'string' && { kind: entry.backend.kind }),
      ...(profile !== undefined && { blockBytes: profile.logicalBlockBytes }),
      allow: entry.allow.slice(0, ALLOW_LISTED_MAX),
      allowCount: entry.allow.length,
      since: entry.since,
      ...(entry.reason !== undefined && { reason: entry.reason }),
      users: entry.attachments,
    },
  };
}
