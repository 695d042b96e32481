/** A virtual device as `status` shows it. */
import type { AttachmentEntry, RingsStarted, RingsStopped } from '../api/types.ts';
import type { VirtualDeviceState } from '../device/virtual-device.ts';
import { deviceId } from '../vmm/disk.ts';
import { qemuArguments } from '../vmm/text/qemu.ts';
import type { VirtualDeviceRecord } from './records.ts';

export interface FrontendStatus {
  readonly connected: boolean;
  readonly inFlight: number;
  readonly vmm?: { readonly pid: number };
  /** `reason`: why the ring takes nothing. */
  readonly rings?: readonly { readonly index: number; readonly reason?: string }[];
  /** `atMs`: milliseconds since 1970. */
  readonly lastStop?: Omit<RingsStopped, 'at'> & { readonly atMs: number };
  readonly lastStart?: Omit<RingsStarted, 'at'> & { readonly atMs: number };
}

export interface AttachmentView {
  /** This host. */
  readonly host: string;
  readonly record: VirtualDeviceRecord;
  readonly socket: string;
  readonly state: VirtualDeviceState;
  /** Milliseconds since 1970: of the state. */
  readonly since: number;
  /** Left out where there is no socket. */
  readonly frontend: FrontendStatus | undefined;
  readonly writeLog: AttachmentEntry['writeLog'];
  /** Where a guest is that does not use the device, and what is not known of it: see GuestPlace. */
  readonly place: 'standby' | 'moved' | undefined;
  readonly trouble: string | undefined;
  /** Why nothing can come of it, whatever its state is. */
  readonly failure: string | undefined;
}

export function describeAttachment(view: AttachmentView): AttachmentEntry {
  const { record, socket, state, frontend, writeLog, place, trouble, failure } = view;
  const { vm, name, host, profile, holdMs } = record;
  const { connected, inFlight, rings = [], lastStop, lastStart } = frontend ?? { connected: false, inFlight: 0 };
  const isElsewhere = state.name === 'idle' && place !== undefined;
  const entry: AttachmentEntry = {
    vm,
    name,
    device: `${host}/${record.export}`,
    local: host === view.host,
    socket,
    capacityBytes: profile.capacityBytes,
    readOnly: profile.readOnly,
    queues: profile.queues,
    qemuArguments: qemuArguments({ id: deviceId(vm, name), socket, queues: profile.queues }),
    state: isElsewhere ? place : state.name,
    since: new Date(view.since).toISOString(),
    connected,
    inFlight,
  };
  if (lastStop !== undefined) entry.lastStop = { ...withoutTime(lastStop), at: new Date(lastStop.atMs).toISOString() };
  if (lastStart !== undefined) entry.lastStart = { ...withoutTime(lastStart), at: new Date(lastStart.atMs).toISOString() };
  if (writeLog !== undefined) entry.writeLog = writeLog;
  if (holdMs !== undefined) entry.holdMs = holdMs;
  if (state.name === 'active') entry.epoch = state.epoch;
  if (failure !== undefined) return { ...entry, state: 'failed', reason: failure };
  if (state.name === 'connecting' && state.errorsAt !== undefined) entry.errorsAt = new Date(state.errorsAt).toISOString();
  if (isElsewhere && trouble !== undefined) entry.reason = trouble;
  const broken = rings.find(({ reason }) => reason !== undefined);
  if (broken !== undefined) entry.reason = `ring ${broken.index} is out of use: ${broken.reason}`;
  if ('cause' in state) entry.reason = state.cause.message;
  return entry;
}

function withoutTime<T extends { readonly atMs: number }>({ atMs: _, ...rest }: T): Omit<T, 'atMs'> {
  return rest;
}
