/** Plugs a vhost-user disk into a running QEMU, and takes it out again. */
import { NetbusError } from '../device/errors.ts';
import type { Clock } from '../lib/clock.ts';
import { isObject, type QmpVersion } from '../protocols/qmp/message.ts';
import { type Bounds, pause } from './bounded.ts';
import type { VhostUserDisk } from './disk.ts';
import { runState } from './machine.ts';
import { type QmpConnection, refusalOf } from './qmp-connection.ts';
import { getProperty, listProperties, type QomDevice, userDevices } from './qom.ts';
import { chardevAdd, deviceAdd } from './text/qmp.ts';

/** QEMU connects to the socket while it does other things. */
const CONNECT_MS_MAX = 5_000;
const CONNECT_POLL_MS = 20;
/** Time for the guest to let a disk go that was plugged in and is to be taken back at once. */
const TAKE_BACK_MS_MAX = 10_000;

/**
 * Plugs a disk in, at a bus that is free. Resolves when QEMU has the device; the guest finds it by itself. What failed, or was given up by the
 * signal, is taken back first. Each step is finished before the signal is looked at, so that nothing is left in an unknown state.
 */
export async function plug(
  qmp: QmpConnection,
  disk: VhostUserDisk,
  { bus, clock, signal }: { bus: string; clock: Clock; signal?: AbortSignal },
): Promise<void> {
  const add = chardevAdd(disk, usesReconnectMs(qmp.greeting.version));
  await qmp.execute(add.execute, add.arguments);
  try {
    signal?.throwIfAborted();
    // QEMU 7.2 tries for ever inside device_add where nobody listens, and does nothing else meanwhile: so it is asked for only after.
    await waitConnected(qmp, disk, clock, signal);
    signal?.throwIfAborted();
    const device = deviceAdd(disk, bus);
    await qmp.execute(device.execute, device.arguments);
  } catch (thrown) {
    throw await takeBack(qmp, reasonOf(thrown, signal), () => removeChardev(qmp, disk.id));
  }
  try {
    signal?.throwIfAborted();
    if ((await listProperties(qmp, `/machine/peripheral/${disk.id}`)) === undefined) {
      throw new NetbusError('device', `QEMU took ${disk.id} and does not have it`);
    }
  } catch (thrown) {
    throw await takeBack(qmp, reasonOf(thrown, signal), () =>
      unplug(qmp, { id: disk.id, chardev: disk.id }, { timeoutMs: TAKE_BACK_MS_MAX }),
    );
  }
}

/** A disk that QEMU has, by its ids there. */
export interface PluggedDisk {
  /** For device_del: an id, or the object's path where it has none. */
  readonly id: string;
  readonly chardev: string;
}

/** Finds the disk that QEMU connects to a socket, however it came there; undefined where it has none. */
export async function findPlugged(qmp: QmpConnection, socket: string): Promise<PluggedDisk | undefined> {
  for (const device of await userDevices(qmp)) {
    if (!/^vhost-user-blk-pci/.test(device.type)) continue;
    const chardev = await getProperty(qmp, device.path, 'chardev');
    if (typeof chardev !== 'string' || (await chardevSocket(qmp, chardev)) !== socket) continue;
    return { id: idOf(device), chardev };
  }
  return undefined;
}

/** Removes chardevs to a socket that no device uses, such as those of a plugging that was cut off. */
export async function removeStrayChardevs(qmp: QmpConnection, socket: string): Promise<void> {
  for (const { name, type } of (await listProperties(qmp, '/chardevs')) ?? []) {
    if (type === 'child<chardev-socket>' && (await chardevSocket(qmp, name)) === socket) await removeChardev(qmp, name);
  }
}

/**
 * Takes a disk out: asks the guest, waits until it has let go, and removes the chardev. Rejects with `timeout` where the guest does not let go in
 * time, with `ended` at the signal (it may let go later in both cases; asking again is allowed), with `device` where it or QEMU refuses.
 */
export async function unplug(qmp: QmpConnection, { id, chardev }: PluggedDisk, bounds: Bounds): Promise<void> {
  const events = qmp.events();
  try {
    const gone = await requestRemoval(qmp, id);
    if (!gone) await waitGone(qmp, events, id, bounds);
  } finally {
    events.close();
  }
  await removeChardev(qmp, chardev);
}

/** Asks the guest. True where the device is gone at once. */
async function requestRemoval(qmp: QmpConnection, id: string): Promise<boolean> {
  try {
    await qmp.execute('device_del', { id });
  } catch (thrown) {
    const refusal = refusalOf(thrown);
    if (refusal === undefined) throw thrown;
    if (refusal.errorClass === 'DeviceNotFound') return true;
    if (/does not support hotplugging/.test(refusal.description)) throw fixed(id, refusal.description);
    // QEMU has no classes of its own for these two. The guest was asked before, and may answer yet.
    if (!/already in the process of unplug/.test(refusal.description)) throw thrown;
  }
  return !(await isThere(qmp, id));
}

/** A device of the command line that stands beside the ports, as `netbus attach` prints it. */
function fixed(id: string, description: string): NetbusError {
  return new NetbusError(
    'device',
    `${id} cannot be taken out while the VM runs (${description}): stop the VM, then detach without --qmp; behind a port it could (-device pcie-root-port,id=PORT,chassis=1 and bus=PORT at the device)`,
  );
}

async function waitGone(
  qmp: QmpConnection,
  events: ReturnType<QmpConnection['events']>,
  id: string,
  bounds: Bounds,
): Promise<void> {
  const ofDevice = ({ device, path }: Record<string, unknown>) => device === id || path === id;
  try {
    const event = await events.find(
      ({ name, data }) => (name === 'DEVICE_DELETED' || name === 'DEVICE_UNPLUG_GUEST_ERROR') && ofDevice(data),
      bounds,
    );
    if (event.name === 'DEVICE_DELETED') return;
  } catch (thrown) {
    const { code } = NetbusError.from(thrown);
    if (code !== 'timeout') throw thrown;
    const { state, word } = await runState(qmp);
    const why =
      state === 'running'
        ? 'its operating system must run and know PCI hot-plug (ACPI or pciehp), and must not be booting'
        : `the VM does not run (${word}): let it go on first`;
    throw new NetbusError(
      'timeout',
      `the guest did not let go of ${id} within ${bounds.timeoutMs / 1000} s: ${why}; then try again, or wait longer with --timeout`,
    );
  }
  throw new NetbusError('device', `the guest refuses to let go of ${id}: unmount it there, then try again`);
}

async function isThere(qmp: QmpConnection, id: string): Promise<boolean> {
  return (await listProperties(qmp, id.startsWith('/') ? id : `/machine/peripheral/${id}`)) !== undefined;
}

/** Removes a chardev that no device uses any more. One that is gone already is as good. */
async function removeChardev(qmp: QmpConnection, id: string): Promise<void> {
  try {
    await qmp.execute('chardev-remove', { id });
  } catch (thrown) {
    if (refusalOf(thrown) === undefined || (await listProperties(qmp, `/chardevs/${id}`)) !== undefined) throw thrown;
  }
}

/** Waits until QEMU has connected a chardev to our socket. */
async function waitConnected(
  qmp: QmpConnection,
  disk: VhostUserDisk,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<void> {
  const end = clock.now() + CONNECT_MS_MAX;
  while ((await getProperty(qmp, `/chardevs/${disk.id}`, 'connected')) !== true) {
    if (clock.now() >= end) {
      throw new NetbusError(
        'unreachable',
        `QEMU could not connect to ${disk.socket} within ${CONNECT_MS_MAX / 1000} s: its user needs the rights on the socket and its folder (put it into the socket's group), and it must see this host's /run`,
      );
    }
    await pause(clock, CONNECT_POLL_MS, signal);
  }
}

/** The path of the unix socket that a chardev connects to. */
async function chardevSocket(qmp: QmpConnection, id: string): Promise<string | undefined> {
  const address = await getProperty(qmp, `/chardevs/${id}`, 'addr');
  return isObject(address) && address.type === 'unix' && typeof address.path === 'string' ? address.path : undefined;
}

/** Undoes a step, and returns why. What cannot be undone is told together with the reason; a QEMU that is gone has nothing left. */
async function takeBack(qmp: QmpConnection, reason: NetbusError, undo: () => Promise<void>): Promise<NetbusError> {
  try {
    await undo();
    return reason;
  } catch (thrown) {
    const { code, message } = NetbusError.from(thrown);
    if (code === 'ended') return reason;
    return new NetbusError(reason.code, `${reason.message}; and it could not be taken back at ${qmp.path}: ${message}`, {
      cause: thrown,
    });
  }
}

function reasonOf(thrown: unknown, signal: AbortSignal | undefined): NetbusError {
  return signal?.aborted ? new NetbusError('ended', 'interrupted', { cause: thrown }) : NetbusError.from(thrown);
}

/** device_del takes an object's path in place of the id. */
function idOf({ path, name }: QomDevice): string {
  return path.startsWith('/machine/peripheral/') ? name : path;
}

/** From 9.2 on; `reconnect` is deprecated since. */
function usesReconnectMs({ major, minor }: QmpVersion): boolean {
  return major > 9 || (major === 9 && minor >= 2);
}
