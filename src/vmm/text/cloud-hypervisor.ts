/** What Cloud Hypervisor needs on its command line. */
import type { VhostUserDisk } from '../disk.ts';

/** One element per argument. */
export function cloudHypervisorArguments({ id, socket, queues }: VhostUserDisk): string[] {
  return ['--disk', `id=${id},vhost_user=true,socket=${quoteValue(socket)},num_queues=${queues},queue_size=128`];
}

/** Shared guest memory, once for a VM. */
export const CLOUD_HYPERVISOR_MEMORY_ARGUMENTS: readonly string[] = ['--memory', 'size=1G,shared=on'];

/** Its lists take a value with a comma in double quotes. */
function quoteValue(value: string): string {
  return value.includes(',') ? `"${value}"` : value;
}
