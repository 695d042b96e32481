/** An export as `status` and `ls` show it. */
import type { ExportEntry } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import type { Export } from './export.ts';

/** Looks at the device anew, so that a size that changed, or a device that is gone, is shown. */
export async function describeExport(target: Export): Promise<ExportEntry> {
  const { record, state, shared } = target;
  const entry: ExportEntry = {
    name: record.name,
    class: 'disk',
    device: record.disk,
    readOnly: record.readOnly,
    shared,
    allow: [...record.allow],
    // Where the device cannot be asked: what its users see of it.
    capacityBytes: target.attachments[0]?.profile.capacityBytes ?? 0,
    state: 'ready',
    backend: {},
    attachments: target.attachments.map(({ id, host, vm, name, lease }) => {
      return { host, vm, name, epoch: lease.epoch, active: target.isActive(id) };
    }),
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

/** As the lists show it: `host:vm/name`. */
export function userName({ host, vm, name }: { host: string; vm: string; name: string }): string {
  return `${host}:${vm}/${name}`;
}
