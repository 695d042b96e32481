/** What QEMU needs on its command line. */
import type { VhostUserDisk } from '../disk.ts';

/** One element per argument. QEMU tries again every second, so that a daemon that is restarted finds its VMs again. */
export function qemuArguments(disk: VhostUserDisk): string[] {
  const { id, socket, queues } = disk;
  return [
    ...['-chardev', `socket,id=${id},path=${escapeValue(socket)},reconnect=1`],
    ...['-device', `vhost-user-blk-pci,id=${id},chardev=${id},num-queues=${queues}`],
  ];
}

/** Shared guest memory, once for a VM however many devices it has. The size is that of -m. */
export const QEMU_MEMORY_ARGUMENTS: readonly string[] = [
  ...['-object', 'memory-backend-memfd,id=mem,size=1G,share=on'],
  ...['-machine', 'q35,memory-backend=mem'],
];

/** A comma in a value is doubled. */
function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}
