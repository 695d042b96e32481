/** `netbus evict`: puts a host out of the cluster, with immediate effect. */
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import type { EvictResult } from '../api/types.ts';
import { NetbusError } from '../device/errors.ts';
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
      if (yes !== true) await confirm(host);
      const result = await context.client.evict(host);
      context.print(result, () => describe(result));
      context.warn(result.untold.map((other) => `host ${other} did not answer: it learns of it when it is reached`));
    });
}

function describe({ host, told }: EvictResult): string {
  const where =
    told.length === 0 ? 'no other host had to be told' : `${told.join(', ')} ${told.length === 1 ? 'knows' : 'know'} of it`;
  return `host ${host} is evicted; ${where}\n`;
}

/** A person is asked; a script has to say that it means it. */
async function confirm(host: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new NetbusError('usage', `guests on ${host} lose the devices of other hosts: say --yes to evict it`);
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  // Ctrl-C is the terminal's while it asks.
  terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  const answer = await terminal.question(`Guests on ${host} lose the devices of other hosts. Evict ${host}? [y/N] `);
  terminal.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new NetbusError('usage', `host ${host} was not evicted`);
}
