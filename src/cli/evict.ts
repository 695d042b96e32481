/** `netbus evict`: puts a host out of the cluster, with immediate effect. */
import { createInterface } from 'node:readline';
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
      const { client } = context;
      if (yes !== true) {
        // Nobody is asked about what is refused anyway.
        await client.checkEvict(host);
        await confirm(context, host);
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

/** A person is asked; a script has to say that it means it. */
async function confirm(context: Context, host: string): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    const command = `netbus evict ${host} --yes`;
    throw new NetbusError('usage', `guests on ${host} lose the devices of other hosts: to evict it unasked, type "${command}"`);
  }
  const answer = await ask(context, `Guests on ${host} lose the devices of other hosts. Evict ${host}? [y/N] `);
  if (!/^y(es)?$/i.test(answer.trim())) throw new NetbusError('usage', `host ${host} was not evicted`);
}

/** What is typed, without the end of the line; nothing at the end of the input (Ctrl-D). Ctrl-C is what it is everywhere. */
function ask(context: Context, question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  return new Promise((resolve) => {
    // The question stays on its line, whatever comes.
    const leave = (then: () => void) => () => {
      terminal.off('close', atEnd);
      terminal.close();
      process.stderr.write('\n');
      then();
    };
    const atEnd = leave(() => resolve(''));
    terminal.on('close', atEnd);
    terminal.on('SIGINT', leave(context.interrupt));
    terminal.question(question, (answer) => {
      terminal.off('close', atEnd);
      terminal.close();
      resolve(answer);
    });
  });
}
