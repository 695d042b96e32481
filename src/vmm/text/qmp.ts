/** The QMP commands that plug a disk into a running QEMU. */
import type { VhostUserDisk } from '../disk.ts';

export interface QmpCommand {
  readonly execute: string;
  readonly arguments: Record<string, unknown>;
}

/** `reconnectMs`: as QEMU 9.2 and later want it. QEMU tries again every second, so that a daemon that is restarted finds its VMs again. */
export function chardevAdd(disk: VhostUserDisk, reconnectMs: boolean): QmpCommand {
  const reconnect = reconnectMs ? { 'reconnect-ms': 1000 } : { reconnect: 1 };
  const data = { addr: { type: 'unix', data: { path: disk.socket } }, server: false, ...reconnect };
  return { execute: 'chardev-add', arguments: { id: disk.id, backend: { type: 'socket', data } } };
}

/** Without `bus` QEMU chooses, which works on the machine pc alone. */
export function deviceAdd(disk: VhostUserDisk, bus?: string): QmpCommand {
  const { id, queues } = disk;
  const place = bus === undefined ? {} : { bus };
  return {
    execute: 'device_add',
    arguments: { driver: 'vhost-user-blk-pci', id, chardev: id, 'num-queues': queues, ...place },
  };
}
