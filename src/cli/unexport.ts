/** `netbus unexport`: takes an export back. */
import type { Command } from 'commander';
import { NetbusError } from '../device/errors.ts';
import { Context } from './context.ts';

export function addUnexport(program: Command): void {
  program
    .command('unexport')
    .summary('take an export of this host back')
    .description(
      'Takes an export of this host back. It is refused while a VM has it attached: detach it there first. The mark of a stale copy, which a swap has left on it, is forgotten.',
    )
    .argument('<name>', 'name of the export')
    .addHelpText('after', '\nExample:\n  netbus unexport data\n')
    .action(async (name: string, _options: unknown, command: Command) => {
      const context = new Context(command);
      const [host, own] = name.split('/');
      if (own !== undefined) {
        throw new NetbusError(
          'usage',
          `"${name}": type the name alone, on the host that has the export: "netbus unexport ${own}" on ${host}`,
        );
      }
      await context.client.unexport(name);
      context.print({}, () => `${name} is no longer exported\n`);
    });
}
