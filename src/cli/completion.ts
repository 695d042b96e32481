/** `netbus completion`: the script that lets a shell complete verbs, options and the names that the daemon knows. */
import { Argument, type Command } from 'commander';
import { bashScript } from './completion/bash.ts';
import { fishScript } from './completion/fish.ts';
import { type CommandNode, commandTree } from './completion/tree.ts';
import { zshScript } from './completion/zsh.ts';

const shells = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof shells)[number];

const scripts: Readonly<Record<Shell, (tree: readonly CommandNode[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .summary('print the completion script of a shell')
    .description(
      'Prints a script that completes verbs, options and, from the daemon that runs, the names of hosts, devices, attachments and VMs.',
    )
    .addArgument(new Argument('<shell>', 'which shell').choices(shells))
    .addHelpText(
      'after',
      `
Examples:
  netbus completion bash > /etc/bash_completion.d/netbus
  netbus completion zsh > /usr/local/share/zsh/site-functions/_netbus
  netbus completion fish > ~/.config/fish/completions/netbus.fish
  source <(netbus completion bash)    # this shell alone
`,
    )
    .action((shell: Shell) => {
      process.stdout.write(scripts[shell](commandTree(program)));
    });
}
