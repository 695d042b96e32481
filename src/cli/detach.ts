/** `netbus detach`: takes a device from a VM. */
import type { Command } from 'commander';
import { Context, splitPair } from './context.ts';

export function addDetach(program: Command): void {
  program
    .command('detach')
    .summary('take a device from a VM of this host')
    .description('Takes a device from a VM of this host. It is refused while the VM is connected, unless --force is given.')
    .argument('<vm/name>', 'the attachment, as `netbus status` shows it')
    .option('--force', "although the VM is connected (it loses the device), or the device's host does not answer")
    .addHelpText('after', '\nExample:\n  netbus detach web/data\n')
    .action(async (attachment: string, options: { force?: true }, command: Command) => {
      const context = new Context(command);
      const [vm, name] = splitPair(attachment, 'VM/NAME');
      const answer = await context.client.detach(vm, name, { force: options.force ?? false });
      context.print(answer, () => `${attachment} is detached\n`);
      context.warn(answer.warnings);
    });
}
