/** `netbus attachments`: where each guest is and where its device is, as the hosts of the devices say. */
import type { AttachmentEntry, BusAttachment, BusAttachments, Devices } from '../api/types.ts';

/** `devices`: with details. `own`: the attachments of this host, of which those are added whose device's host does not answer. */
export function busAttachments(
  { devices, away, warnings }: Devices,
  own: readonly AttachmentEntry[],
  host: string,
): BusAttachments {
  const known = devices.flatMap((device) =>
    (device.details?.users ?? []).map((user): BusAttachment => {
      const { vm, name, epoch, active, standby, previous, since, mark } = user;
      return {
        vm,
        name,
        host: user.host,
        device: `${device.host}/${device.name}`,
        // A host of an older release knows no more.
        state: user.state ?? (active ? 'active' : 'idle'),
        epoch,
        ...(standby !== undefined && { standby }),
        ...(previous !== undefined && { previous }),
        ...(mark !== undefined && { mark }),
        ...(since !== undefined && { since }),
      };
    }),
  );
  const silent = new Set(away.map((one) => one.host));
  const unknown = own
    .filter(({ device }) => silent.has(device.split('/')[0]))
    .map(({ vm, name, device }): BusAttachment => ({ vm, name, host, device, state: 'unknown' }));
  const attachments = [...known, ...unknown].sort((a, b) => compare(key(a), key(b)));
  return { attachments, away: [...away], warnings: [...warnings] };
}

function key({ vm, name, host, device }: BusAttachment): string {
  return [vm, name, host, device].join('/');
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
