/** `netbus set-address`: a host of the cluster is reached elsewhere from now on. */
import type { Command } from 'commander';
import type { AddressResult } from '../api/types.ts';
import { Context } from './context.ts';

export function addSetAddress(program: Command): void {
  program
    .command('set-address')
    .summary('write down another address of a host')
    .description(
      'Writes the address at which the other hosts reach HOST into the member list, which spreads by itself. Sessions that are up go on; links and lost sessions look for HOST there. It is typed on the host that has the issuing key. HOST itself has to have the address: what is to be done there is printed.',
    )
    .argument('<host>', 'the host that has moved')
    .argument('<address>', 'where it is now: ADDRESS or ADDRESS:PORT')
    .addHelpText('after', '\nExamples:\n  netbus set-address m3 192.0.2.7\n  netbus set-address m3 m3.example:7444\n')
    .action(async (host: string, address: string, _options: unknown, command: Command) => {
      const context = new Context(command);
      const result = await context.client.setAddress(host, address);
      context.print(result, () => describe(result));
      context.warn(result.untold.map((other) => `host ${other} did not answer: it learns of it when it is reached`));
    });
}

function describe({ host, address, previous, told }: AddressResult): string {
  if (address === previous) return `host ${host} is at ${address} already\n`;
  const where =
    told.length === 0 ? 'no other host knows of it yet' : `${told.join(', ')} ${told.length === 1 ? 'knows' : 'know'} of it`;
  const port = address.replace(/^.*:/, '');
  return `host ${host} is at ${address} now, no longer at ${previous}; ${where}
on ${host}: let it have that address; its daemon has to listen there, at port ${port} (\`listen\` in netbus.yaml, then a restart of the daemon)
`;
}
