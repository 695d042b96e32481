/** `netbus join`: this host becomes a member of the cluster that invited it. */
import type { Command } from 'commander';
import type { JoinClusterAnswer } from '../daemon/join.ts';
import { systemClock } from '../lib/clock.ts';
import { Context } from './context.ts';
import { CONFIG_DEFAULT } from './daemon.ts';
import { untilInterrupted } from './init.ts';
import { startCommand } from './start-command.ts';

/** The inviting host may have let this one in before it could be told of the end. */
const INTERRUPTED_OUTCOME =
  'nothing was made here; if the token is refused from now on, evict this host where it was invited and invite it again';

interface JoinOptions {
  address?: string;
  config: string;
  stateDir?: string;
  runDir?: string;
}

export function addJoin(program: Command): void {
  program
    .command('join')
    .summary('make this host a member of a cluster')
    .description(
      'Makes this host a member of the cluster that a token is of: its key, its certificate, a config file with every key explained, and the member list. No daemon is needed. Nothing that is there is overwritten, and nothing is left where it fails.',
    )
    .argument('<token>', 'what "netbus invite" printed; - reads it from stdin')
    .option(
      '--address <address>',
      'where other hosts reach this one, ADDRESS or ADDRESS:PORT (default: as the inviting host sees it)',
    )
    .option('--config <file>', 'the config file to write; certificates and keys go to the folder pki beside it', CONFIG_DEFAULT)
    .option('--state-dir <dir>', 'where exports, attachments and the member list are kept (default: /var/lib/netbus)')
    .addHelpText('after', '\nExample:\n  netbus join netbus-AWsDaJL...\n')
    .action(async (given: string, _options: unknown, command: Command) => {
      const { address, config, stateDir, runDir } = command.optsWithGlobals<JoinOptions>();
      const { json } = command.optsWithGlobals<{ json?: true }>();
      const token = given === '-' ? await readStdin() : given;
      // Loaded here alone: the other verbs start in a fraction of the time without it.
      const { joinCluster } = await import('../daemon/join.ts');
      const answer = await untilInterrupted(INTERRUPTED_OUTCOME, (signal) =>
        joinCluster({
          ...{ token, config, clock: systemClock, signal },
          progress: (line) => void (json || process.stderr.write(`${line}\n`)),
          ...(address !== undefined && { address }),
          ...(stateDir && { stateDir }),
          ...(runDir && { runDir }),
        }),
      );
      // From here on Ctrl-C just ends it.
      const context = new Context(command);
      context.print(answer, () => describe(answer));
      context.warn(answer.warnings);
    });
}

function describe({ cluster, host, address, config, members, files }: JoinClusterAnswer): string {
  return `host ${host} is a member of cluster ${cluster}, at ${address}, with ${members.filter((member) => member !== host).join(', ')}
${files.map((file) => `  ${file}\n`).join('')}
Next:
  ${startCommand(config)}    # run the daemon of this host
`;
}

/** A token has about 200 characters; what is far longer is none. */
const STDIN_CHARACTERS_MAX = 8192;

async function readStdin(): Promise<string> {
  if (process.stdin.isTTY) process.stderr.write('the token, then Enter and Ctrl-D:\n');
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) {
    text += chunk;
    if (text.length > STDIN_CHARACTERS_MAX) break;
  }
  return text;
}
