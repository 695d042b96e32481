/** `netbus jobs`: what this host does by itself, and what it did last. */
import type { Command } from 'commander';
import { Context } from './context.ts';
import { jobTable } from './job-text.ts';

export function addJobs(program: Command): void {
  program
    .command('jobs')
    .summary('list the jobs of this host')
    .description('Lists the swaps that run on this host, and the last ones that are over, the oldest first.')
    .addHelpText(
      'after',
      '\nExamples:\n  netbus jobs\n  netbus jobs --json | jq -r \'.jobs[] | select(.state == "failed") | .reason\'\n',
    )
    .action(async (_options: object, command: Command) => {
      const context = new Context(command);
      const list = await context.client.jobs();
      context.print(list, (style) => jobTable(list.jobs, style, Date.now()));
    });
}
