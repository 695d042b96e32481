/** QEMU arguments for a guest's disks. */

/** A disk straight on a file of this machine, with no Netbus in it: the yardstick. */
export function fileDisk(disk: { id: string; path: string; format?: 'raw' | 'qcow2'; readOnly?: boolean }): string[] {
  const { id, path, format = 'raw', readOnly = false } = disk;
  // Two machines may have one that is read-only.
  const rest = readOnly ? 'read-only=on,file.read-only=on' : 'discard=unmap';
  return [
    ...['-blockdev', `driver=${format},node-name=${id},file.driver=file,file.filename=${path},${rest}`],
    ...['-device', `virtio-blk-pci,drive=${id},serial=${id}`],
  ];
}

/** A disk behind a vhost-user socket. The backend must listen before QEMU starts; QEMU reconnects once a second. */
export function vhostUserDisk({ id, socket, queues = 1 }: { id: string; socket: string; queues?: number }): string[] {
  return [
    ...['-chardev', `socket,id=${id},path=${socket},reconnect=1`],
    ...['-device', `vhost-user-blk-pci,chardev=${id},num-queues=${queues}`],
  ];
}
