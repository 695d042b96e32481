/** What a hot-swap makes of a virtual device's record: the new device in it, and the old one kept until it is known which is the guest's. Pure. */
import type { AttachedPlace } from './attached-device.ts';
import type { VirtualDeviceRecord } from './records.ts';

type Device = NonNullable<VirtualDeviceRecord['guest']>['device'];

/** `device`: what the guest's writes go to from then on. */
export function swapped(
  value: VirtualDeviceRecord,
  next: AttachedPlace & { readonly generation: number; readonly membership?: string | undefined },
  device: Device,
): VirtualDeviceRecord {
  const { host, export: exported, attachment, generation, membership, forgets } = value;
  const old = {
    ...{ host, export: exported, attachment, device: value.guest?.device ?? null },
    ...(generation !== undefined && { generation }),
    ...(membership !== undefined && { membership }),
    ...(forgets && { forgets }),
  };
  return { ...placed(value, next, device), swap: { generation: next.generation, old } };
}

/** As it was before. */
export function unswapped(value: VirtualDeviceRecord): VirtualDeviceRecord {
  const { swap, ...rest } = value;
  return swap === undefined ? value : placed(rest, swap.old, swap.old.device);
}

function placed(
  { generation: _, membership: __, forgets: ___, ...rest }: VirtualDeviceRecord,
  place: AttachedPlace & { readonly membership?: string | undefined },
  device: Device,
): VirtualDeviceRecord {
  const { host, export: exported, attachment, generation, membership, forgets } = place;
  return {
    ...rest,
    ...{ host, export: exported, attachment },
    ...(generation !== undefined && { generation }),
    ...(membership !== undefined && { membership }),
    ...(forgets && { forgets }),
    guest: rest.guest && { ...rest.guest, device },
  };
}
