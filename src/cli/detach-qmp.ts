/** `netbus detach --qmp`: the guest lets the device go, QEMU forgets it, then it is detached. */
import { NetbusError } from '../device/errors.ts';
import { systemClock } from '../lib/clock.ts';
import { findPlugged, removeStrayChardevs, unplug } from '../vmm/hot-plug.ts';
import { runState } from '../vmm/machine.ts';
import { QmpConnection } from '../vmm/qmp-connection.ts';
import { detachWhenLeft } from './attach-qmp.ts';
import type { Context } from './context.ts';

export interface UnplugRequest {
  readonly vm: string;
  readonly name: string;
  readonly force: boolean;
  /** QEMU's QMP socket. */
  readonly path: string;
  readonly timeoutMs: number;
}

/** Until the guest has let go the attachment stays as it is, whatever goes wrong. */
export async function unplugAndDetach(
  context: Context,
  request: UnplugRequest,
): Promise<{ unplugged: boolean; warnings: string[] }> {
  const { vm, name, force, path, timeoutMs } = request;
  const { client } = context;
  const { attachments } = await client.status();
  const entry = attachments.find((candidate) => candidate.vm === vm && candidate.name === name);
  if (entry === undefined)
    throw new NetbusError('not_found', `VM ${vm} has no device ${name}: "netbus status" shows those that there are`);
  const signal = context.interruptible();
  let unplugged: boolean;
  try {
    unplugged = await takeOut(path, entry.socket, { signal, timeoutMs });
  } catch (thrown) {
    const error = NetbusError.from(thrown);
    if (!signal.aborted) throw error;
    return context.endInterrupted(
      new NetbusError('ended', `interrupted: ${vm}/${name} stays attached; a guest that was asked already may let it go yet`),
    );
  }
  const { warnings } = await detachWhenLeft(client, vm, name, force);
  if (!unplugged) warnings.push(`the QEMU at ${path} did not have it`);
  return { unplugged, warnings };
}

/** False where QEMU does not have it. */
async function takeOut(path: string, socket: string, bounds: { signal: AbortSignal; timeoutMs: number }): Promise<boolean> {
  const qmp = await QmpConnection.open({ path, clock: systemClock, signal: bounds.signal });
  try {
    const plugged = await findPlugged(qmp, socket);
    if (plugged === undefined) {
      await removeStrayChardevs(qmp, socket);
      return false;
    }
    const { state, word } = await runState(qmp);
    if (state !== 'running') {
      const advice = state === 'paused' ? 'let it go on (QMP cont)' : 'end QEMU';
      throw new NetbusError(
        'device',
        `the VM does not run (${word}), so that its guest cannot let go of ${plugged.id}: ${advice}, then try again`,
      );
    }
    await unplug(qmp, plugged, bounds);
    return true;
  } finally {
    qmp.close();
  }
}
