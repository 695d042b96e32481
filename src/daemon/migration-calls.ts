/** What the host that a VM leaves may ask of the one that it goes to: docs/protocol.md, 7. The peer is who its certificate says. */
import { z } from 'zod';
import { type AttachmentEntry, nameSchema } from '../api/types.ts';
import type { ControlHandlers } from '../bus/control-link.ts';
import { NetbusError } from '../device/errors.ts';
import { type StartJob, startJobSchema } from './follow.ts';

/** VMs that other hosts have prepared here; beyond it the oldest cannot be asked for any more. */
export const PREPARATIONS_MAX = 1024;

/** The virtual devices of this host's VMs, as far as migrations change them. */
export interface PreparedAttachments {
  entries(): AttachmentEntry[];
  /**
   * Makes all devices ready that VM has at host `from`, and resolves with them; with `check` it says alone whether that can be, and resolves with
   * none. Throws where one cannot be; nothing is left then. What is ready already stays as it is.
   */
  prepare(vm: string, from: string, options: { check: boolean; preparedBy: string }): Promise<AttachmentEntry[]>;
  /** The host that had VM's devices made ready here, over restarts of this daemon; undefined where people here did, or nobody. */
  preparedBy(vm: string): string | undefined;
  /** Takes back those of VM that stand by. Throws `in_use` where a VMM is connected to one. */
  unprepare(vm: string): Promise<void>;
}

const prepareSchema = z.object({ vm: nameSchema, check: z.boolean().default(false) });
const vmSchema = z.object({ vm: nameSchema });

/** Who had a VM prepared here. */
interface Preparation {
  readonly from: string;
  /** It made the devices ready: what a person did here is not another host's to take back. */
  readonly made: boolean;
}

/** `startJob` is startFollow of src/daemon/follow.ts. */
export function createMigrationHandlers(
  attachments: PreparedAttachments,
  startJob: (request: StartJob) => Promise<object>,
): ControlHandlers {
  const preparations = new Map<string, Preparation>();
  const devicesOf = (vm: string) => attachments.entries().filter((entry) => entry.vm === vm);
  const standbyOf = (vm: string) => devicesOf(vm).filter(({ state }) => state === 'standby');

  const find = (vm: string, peer: string): Preparation => {
    const preparation = preparations.get(vm);
    if (preparation?.from === peer) return preparation;
    // A daemon before this one may have died before it had answered.
    if (attachments.preparedBy(vm) === peer) return { from: peer, made: true };
    throw new NetbusError('denied', `host ${peer} has not had VM ${vm} prepared here`);
  };

  return {
    'vm.prepare': async (peer, params) => {
      const { vm, check } = read(prepareSchema, params);
      const before = standbyOf(vm).length;
      const devices = await attachments.prepare(vm, peer, { check, preparedBy: peer });
      const made = before === 0;
      if (!check) {
        const earlier = preparations.get(vm);
        preparations.delete(vm);
        preparations.set(vm, { from: peer, made: made || (earlier?.from === peer && earlier.made) });
        if (preparations.size > PREPARATIONS_MAX) preparations.delete(preparations.keys().next().value!);
      }
      return { devices: devices.map(({ name, device, socket }) => ({ name, device, socket })), prepared: made && !check };
    },
    'vm.unprepare': async (peer, params) => {
      const { vm } = read(vmSchema, params);
      if (find(vm, peer).made) await attachments.unprepare(vm);
      preparations.delete(vm);
      return {};
    },
    'job.start': async (peer, params) => {
      const request = read(startJobSchema, params);
      // Before the migration nothing was prepared, and nothing is changed. Afterwards it is for the host that the VM came from.
      if (request.check === undefined) find(request.vm, peer);
      return { ...(await startJob(request)) };
    },
    'vm.report': async (peer, params) => {
      const { vm } = read(vmSchema, params);
      find(vm, peer);
      return {
        devices: devicesOf(vm).map(({ name, state, reason, lastStart }) => ({
          ...{ name, state },
          ...(reason !== undefined && { reason }),
          ...(lastStart !== undefined && { lastStart }),
        })),
      };
    },
  };
}

/** What the peer answers to these calls. */
export const preparedSchema = z.object({
  devices: z.array(z.object({ name: nameSchema })).max(1024),
  prepared: z.boolean(),
});
export const reportedSchema = z.object({
  devices: z
    .array(
      z.object({
        name: nameSchema,
        state: z.string().max(64),
        reason: z.string().max(2000).optional(),
        lastStart: z.object({ at: z.string().max(64), stallMs: z.number().min(0).optional() }).optional(),
      }),
    )
    .max(1024),
});

/** Unknown members are ignored, as the protocol wants it. */
function read<Schema extends z.ZodType>(schema: Schema, params: unknown): z.output<Schema> {
  const result = schema.safeParse(params);
  if (result.success) return result.data as z.output<Schema>;
  const { path, message } = result.error.issues[0];
  throw new NetbusError('usage', `${path.map(String).join('.') || 'params'}: ${message}`);
}
