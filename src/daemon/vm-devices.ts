/** Which devices a VM of this host has, for the host that it goes to (docs/protocol.md, 7). */
import { z } from 'zod';
import { nameSchema } from '../api/types.ts';
import type { ControlHandlers } from '../bus/control-link.ts';
import type { Links } from '../bus/links.ts';
import { NetbusError } from '../device/errors.ts';
import type { Attachments } from './attachments.ts';
import type { VmDevice } from './preparation.ts';

const DEVICES_MAX = 1024;

const askedSchema = z.object({ vm: nameSchema });
const answerSchema = z.object({
  devices: z.array(z.object({ attachment: z.uuid(), name: nameSchema, host: nameSchema, export: nameSchema })).max(DEVICES_MAX),
});

/** Ids and names alone: whether the asking host may use a device is for the device's host to say. */
export function vmDeviceHandlers(attachments: () => Attachments): ControlHandlers {
  return {
    'vm.devices': async (_peer, params) => {
      const asked = askedSchema.safeParse(params);
      if (!asked.success) throw new NetbusError('usage', 'vm.devices asks for the devices of one VM');
      const own = [...attachments().all].filter(({ record }) => record.vm === asked.data.vm);
      const areHere = await Promise.all(own.map((attachment) => attachment.behind.place.isHere()));
      const here = own.filter((_, index) => areHere[index]);
      const devices = here.map(({ record: { attachment, name, host, export: exported } }): VmDevice => {
        return { attachment, name, host, export: exported };
      });
      return { devices };
    },
  };
}

export async function askVmDevices(links: Pick<Links, 'call'>, from: string, vm: string): Promise<VmDevice[]> {
  const answer = answerSchema.safeParse(await links.call(from, 'vm.devices', { vm }));
  if (!answer.success) throw new NetbusError('protocol', `host ${from} answered vm.devices with something else`);
  return answer.data.devices;
}
