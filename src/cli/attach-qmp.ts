/** `netbus attach --qmp`: the attachment and its place in a running QEMU, both or neither. */
import type { ControlClient } from '../api/client.ts';
import type { AttachmentEntry, AttachRequest } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
import { systemClock } from '../lib/clock.ts';
import { pause } from '../vmm/bounded.ts';
import { findFreeBus } from '../vmm/free-bus.ts';
import { plug } from '../vmm/hot-plug.ts';
import { checkIdFree, checkRunState, checkSharedMemory, machineName } from '../vmm/machine.ts';
import { QmpConnection } from '../vmm/qmp-connection.ts';
import type { Context } from './context.ts';

/** The daemon hears of a socket that QEMU closed a moment later than we do. */
const DISCONNECT_MS_MAX = 5_000;
const DISCONNECT_POLL_MS = 50;

export interface Plugged {
  /** QEMU's id of the device and of its chardev. */
  readonly id: string;
  readonly bus: string;
  /** QEMU's version. */
  readonly qemu: string;
}

/**
 * Attaches the device and plugs it into the QEMU whose QMP socket is at `path`. All that can be checked is checked before anything is changed; what
 * fails or is interrupted later is undone.
 */
export async function attachAndPlug(
  context: Context,
  request: AttachRequest,
  { id, path, bus: choice }: { id: string; path: string; bus?: string },
): Promise<{ entry: AttachmentEntry; plugged: Plugged; warnings: string[] }> {
  const signal = context.interruptible();
  const clock = systemClock;
  const { client } = context;
  let entry: AttachmentEntry | undefined;
  let qmp: QmpConnection | undefined;
  try {
    qmp = await QmpConnection.open({ path, clock, signal });
    const warnings = await checkMachine(qmp, id, request.vm);
    const bus = await findFreeBus(qmp, choice);
    signal.throwIfAborted();
    entry = await client.attach(request);
    const { socket, queues } = entry;
    await plug(qmp, { id, socket, queues }, { bus, clock, signal });
    const { major, minor, micro } = qmp.greeting.version;
    return { entry, plugged: { id, bus, qemu: `${major}.${minor}.${micro}` }, warnings };
  } catch (thrown) {
    let error = signal.aborted ? new NetbusError('ended', interruption(thrown)) : NetbusError.from(thrown);
    if (entry !== undefined) error = await takeBack(client, entry, error);
    if (signal.aborted) return context.endInterrupted(error);
    throw error;
  } finally {
    qmp?.close();
  }
}

/** Why nothing can be plugged in, as an error; what the user should know, as warnings. */
async function checkMachine(qmp: QmpConnection, id: string, vm: string): Promise<string[]> {
  const warnings: string[] = [];
  const state = await checkRunState(qmp);
  if (state !== undefined) warnings.push(state);
  await checkSharedMemory(qmp);
  await checkIdFree(qmp, id);
  const name = await machineName(qmp);
  if (name !== undefined && name !== vm) warnings.push(`the QEMU at ${qmp.path} calls its VM "${name}", not "${vm}"`);
  return warnings;
}

/** What could not be undone is in the message; "interrupted" alone means that nothing is left. */
function interruption(thrown: unknown): string {
  const error = NetbusError.from(thrown);
  return error.message.startsWith('interrupted') ? error.message : 'interrupted';
}

async function takeBack(client: ControlClient, { vm, name }: AttachmentEntry, reason: NetbusError): Promise<NetbusError> {
  try {
    await detachWhenLeft(client, vm, name);
    return reason;
  } catch (thrown) {
    const left = `${vm}/${name} is still attached (${NetbusError.from(thrown).message}); take it back with netbus detach ${vm}/${name}`;
    return new NetbusError(reason.code, `${reason.message}; ${left}`, { cause: thrown });
  }
}

/** Detaches what QEMU has just let go of. */
export async function detachWhenLeft(
  client: ControlClient,
  vm: string,
  name: string,
  force = false,
): Promise<{ warnings: string[] }> {
  const end = systemClock.now() + DISCONNECT_MS_MAX;
  for (;;) {
    try {
      return await client.detach(vm, name, { force });
    } catch (thrown) {
      if (NetbusError.from(thrown).code !== 'in_use' || systemClock.now() >= end) throw thrown;
    }
    await pause(systemClock, DISCONNECT_POLL_MS);
  }
}
