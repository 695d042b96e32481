/** `netbus evict`: puts a host out of the cluster, with immediate effect. */
import type { Command } from 'commander';
import type { EvictResult } from '../api/types.ts';
import { confirm } from './confirm.ts';
import { Context } from './context.ts';

export function addEvict(program: Command): void {
  program
    .command('evict')
    .summary('put a host out of the cluster')
    .description(
      'Puts HOST out of the cluster: its links and sessions end at once, its certificate is refused, and the devices of other hosts that it had are free. Its guests lose those. It is typed on the host that has the issuing key.',
    )
    .argument('<host>', 'the host')
    .option('--yes', 'do not ask')
    .addHelpText('after', '\nExample:\n  netbus evict m3 --yes\n')
    .action(async (host: string, { yes }: { yes?: true }, command: Command) => {
      const context = new Context(command);
      const { client } = context;
      if (yes !== true) {
        // Nobody is asked about what is refused anyway.
        await client.checkEvict(host);
        await confirm(context, `Guests on ${host} lose the devices of other hosts. Evict ${host}?`, {
          unasked: `guests on ${host} lose the devices of other hosts: to evict it unasked, type "netbus evict ${host} --yes"`,
          refused: `host ${host} was not evicted`,
        });
      }
      const result = await client.evict(host);
      context.print(result, () => describe(result));
      context.warn(result.untold.map((other) => `host ${other} did not answer: it learns of it when it is reached`));
    });
}

function describe({ host, told }: EvictResult): string {
  const where =
    told.length === 0 ? 'no other host had to be told' : `${told.join(', ')} ${told.length === 1 ? 'knows' : 'know'} of it`;
  return `host ${host} is evicted; ${where}\n`;
}
