/** Where things are in the run folder: the same on every host, so that a VM finds its devices after it moved. */
import { join } from 'node:path';
import { NetbusError } from '../device/errors.ts';

/** `sun_path` has 108 bytes with its terminating zero (unix(7)). */
export const SOCKET_PATH_BYTES_MAX = 107;

export function controlSocketPath(runDir: string): string {
  return checkedSocketPath(join(runDir, 'netbus.sock'), { 'the run folder': runDir });
}

/** The folder of a VM's device sockets. */
export function vmFolder(runDir: string, vm: string): string {
  return join(runDir, vm);
}

export function deviceSocketPath(runDir: string, vm: string, name: string): string {
  return join(vmFolder(runDir, vm), `${name}.sock`);
}

/**
 * What a guest was told is written and no flush covers, beside its socket: it ends with this host. Each device that stands behind a virtual device has its own;
 * no name has a tilde.
 */
export function writeLogPath(runDir: string, vm: string, name: string, generation = 1): string {
  return join(vmFolder(runDir, vm), generation === 1 ? `${name}.log` : `${name}~${generation}.log`);
}

/** Which regions of a disk a hot-swap has still to copy: ends with this host, as the guest does that changes them. */
export function dirtyMapPath(runDir: string, vm: string, name: string): string {
  return join(vmFolder(runDir, vm), `${name}~map`);
}

/** Which requests of the guest are in flight: outlives the daemon, and dies with the host. */
export function inflightPath(runDir: string, vm: string, name: string): string {
  return join(vmFolder(runDir, vm), `${name}.inflight`);
}

/** Throws `usage` where the path is too long for a socket, and says what to shorten. */
export function checkDeviceSocketPath(runDir: string, vm: string, name: string): void {
  const parts = { 'the run folder': runDir, "the VM's name": vm, "the virtual device's name (--as NAME)": name };
  checkedSocketPath(deviceSocketPath(runDir, vm, name), parts);
}

function checkedSocketPath(path: string, parts: Record<string, string>): string {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return path;
  const [longest] = Object.entries(parts).sort(([, a], [, b]) => Buffer.byteLength(b) - Buffer.byteLength(a))[0];
  const excess = bytes - SOCKET_PATH_BYTES_MAX;
  throw new NetbusError(
    'usage',
    `the socket path ${path} has ${bytes} bytes and a socket's path has at most ${SOCKET_PATH_BYTES_MAX}: make ${longest} ${excess} bytes shorter`,
  );
}
