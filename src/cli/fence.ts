/** `netbus fence`: says that a host is dead, so that others may have what it had. */
import type { Command } from 'commander';
import type { FenceResult } from '../api/types.ts';
import { confirm } from './confirm.ts';
import { Context } from './context.ts';

export function addFence(program: Command): void {
  program
    .command('fence')
    .summary('say that a host is dead, so that its VMs may start elsewhere')
    .description(
      'For whoever has made sure that HOST is dead (switched off, or cut from storage and network): all hosts that have devices take from it what its VMs had, finish its I/O, and refuse it until it attaches anew. Nothing that it kept is ever written. Its VMs start elsewhere with "netbus attach --takeover".',
    )
    .argument('<host>', 'the host')
    .option('--yes', 'do not ask')
    .addHelpText('after', '\nExample:\n  netbus fence m2 --yes && netbus attach m1/data --vm web --takeover\n')
    .action(async (host: string, { yes }: { yes?: true }, command: Command) => {
      const context = new Context(command);
      const { client } = context;
      if (yes !== true) {
        const { answers } = await client.checkFence(host);
        const alive = answers ? `Host ${host} answers this host at the moment. ` : '';
        await confirm(context, `${alive}Guests that still run on ${host} lose their devices. Is ${host} dead, for certain?`, {
          unasked: `whoever fences a host has made sure that it is dead: to say so unasked, type "netbus fence ${host} --yes"`,
          refused: `host ${host} was not fenced`,
        });
      }
      const result = await client.fence(host);
      context.print(result, () => describe(result));
      context.warn(result.untold.map(({ host: other, reason }) => `host ${other} has fenced nothing: ${reason}`));
    });
}

function describe({ host, fenced }: FenceResult): string {
  if (fenced.length === 0) return `host ${host} has no attachment at the hosts that answered\n`;
  const lines = fenced.flatMap(({ by, attachments }) => attachments.map((attachment) => `  ${attachment}, by ${by}\n`));
  return `host ${host} is fenced:\n${lines.join('')}`;
}
