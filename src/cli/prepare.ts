/** `netbus prepare`: the devices of a VM that comes from another host stand ready here. */
import type { Command } from 'commander';
import { Context } from './context.ts';

interface PrepareOptions {
  from?: string;
  cancel?: boolean;
}

export function addPrepare(program: Command): void {
  program
    .command('prepare')
    .summary('make the devices of a VM stand ready that comes to this host')
    .description(
      'Typed on the host that a running VM is going to be migrated to: all its devices stand ready here, at the same socket paths as where it comes from. The VMM that waits for the migration plugs into them; when the VM starts here they follow it. --cancel takes that back.',
    )
    .argument('<vm>', 'the VM')
    .option('--from <host>', 'the host that it comes from')
    .option('--cancel', 'it does not come: take away what stands ready')
    .addHelpText(
      'after',
      '\nExamples:\n  netbus prepare web --from m1     # on m2, before its QEMU is started with -incoming\n  netbus prepare web --cancel\n',
    )
    .action(async (vm: string, { from, cancel = false }: PrepareOptions, command: Command) => {
      const context = new Context(command);
      if (cancel === (from !== undefined)) command.error('error: it is either --from HOST or --cancel');
      if (from === undefined) {
        context.print(await context.client.unprepare(vm), () => `${vm} is not expected here any more\n`);
        return;
      }
      const { attachments } = await context.client.prepare(vm, { from });
      context.print({ attachments }, () =>
        attachments.map(({ name, device, socket }) => `${vm}/${name} stands ready for ${device} at ${socket}\n`).join(''),
      );
    });
}
