/** The elements of libvirt's domain XML. */
import type { VhostUserDisk } from '../disk.ts';

/** Shared guest memory: a child of <domain>, once for a VM. */
export const LIBVIRT_MEMORY_BACKING = `<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>
`;

/** A child of <devices>, and a file for "virsh attach-device". The target's name has to be one that the domain does not use yet. */
export function libvirtDisk({ socket, queues }: VhostUserDisk): string {
  return `<disk type='vhostuser' device='disk'>
  <driver name='qemu' type='raw' queues='${queues}'/>
  <source type='unix' path='${escapeAttribute(socket)}'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <target dev='vdb' bus='virtio'/>
</disk>
`;
}

function escapeAttribute(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;');
}
