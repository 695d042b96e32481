/** `netbus invite`: a token with which a new host joins the cluster. */
import type { Command } from 'commander';
import type { Invitation } from '../api/types.ts';
import { Context } from './context.ts';

export function addInvite(program: Command): void {
  program
    .command('invite')
    .summary('let a new host join the cluster')
    .description(
      'Makes a token with which HOST joins the cluster: once, and within 15 minutes. It is typed on the host that has the issuing key, which is the one where the cluster was made.',
    )
    .argument('<host>', 'what the new host is called in the cluster')
    .option(
      '--address <address>',
      'where the new host reaches this one, ADDRESS or ADDRESS:PORT (default: as in the member list)',
    )
    .addHelpText('after', '\nExamples:\n  netbus invite m2\n  netbus invite m2 --json | jq -r .token\n')
    .action(async (host: string, { address }: { address?: string }, command: Command) => {
      const context = new Context(command);
      const invitation = await context.client.invite({ host, ...(address !== undefined && { address }) });
      context.print(invitation, () => `${invitation.token}\n`);
      context.note(describe(invitation));
    });
}

/** Beside the token, so that stdout has the token alone. */
function describe({ host, command, expiresAt }: Invitation): string {
  return `Type this on ${host}, before ${new Date(expiresAt).toLocaleTimeString('en-GB')}; whoever has the token can join as ${host}:\n  ${command}\n`;
}
