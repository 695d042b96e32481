/** What QEMU needs on its command line to have a virtual device. */
import type { Profile } from '../device/profile.ts';

/**
 * One element per argument. The guest's memory must be shared as well, which is the VM's own affair
 * (`-object memory-backend-memfd,id=mem,size=…,share=on -machine …,memory-backend=mem`).
 *
 * `reconnect=1`: QEMU tries again every second, so that a daemon that is restarted finds its VMs again.
 */
export function qemuArguments(device: { vm: string; name: string; socket: string; profile: Profile }): string[] {
  const id = qemuId(device.vm, device.name);
  return [
    '-chardev',
    `socket,id=${id},path=${escapeValue(device.socket)},reconnect=1`,
    '-device',
    `vhost-user-blk-pci,chardev=${id},num-queues=${device.profile.queues}`,
  ];
}

/** An id begins with a letter and has letters, digits, "-", "." and "_" only: our names have no others. */
function qemuId(vm: string, name: string): string {
  return `nb-${vm}-${name}`;
}

/** A comma in a value is doubled. */
function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}
