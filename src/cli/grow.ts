/** `netbus grow`: shows a running VM that its disk has become larger. */
import type { Command } from 'commander';
import { formatBytes } from '../lib/format.ts';
import { Context, splitPair } from './context.ts';

export function addGrow(program: Command): void {
  program
    .command('grow')
    .summary('show a VM that its disk has become larger')
    .description(
      "Shows a VM of this host, also while it runs, the disk's new size, after the image or block device was made larger on the device's host.",
    )
    .argument('<vm/name>', 'the attachment, as `netbus status` shows it')
    .addHelpText(
      'after',
      `
Example:
  truncate -s +10G /srv/images/data.img    # on the host that exports it
  netbus grow web/data                     # on the VM's host
  resize2fs /dev/vda                       # in the guest
`,
    )
    .action(async (attachment: string, _options: unknown, command: Command) => {
      const context = new Context(command);
      const [vm, name] = splitPair(attachment, 'VM/NAME');
      const result = await context.client.grow(vm, name);
      const size = formatBytes(result.capacityBytes);
      context.print(result, () =>
        result.grown ? `${attachment} has ${size} now\n` : `${attachment} has ${size} already; make the image larger first\n`,
      );
    });
}
