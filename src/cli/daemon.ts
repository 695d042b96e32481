/** `netbus daemon`: runs the daemon of this host in the foreground. */
import { resolve } from 'node:path';
import type { Command } from 'commander';

export const CONFIG_DEFAULT = '/etc/netbus/netbus.yaml';

export function addDaemon(program: Command): void {
  program
    .command('daemon')
    .summary('run the daemon of this host')
    .description(
      'Runs the daemon of this host in the foreground, until SIGTERM or SIGINT. Its log goes to stderr, one JSON object a line.',
    )
    .option('--config <file>', 'YAML file with this host, the members and their certificates', CONFIG_DEFAULT)
    .option('--state-dir <dir>', 'where exports and attachments are kept across restarts (default: /var/lib/netbus)')
    .addHelpText('after', '\nExample:\n  netbus daemon --config /etc/netbus/netbus.yaml\n')
    .action(async (_options: unknown, command: Command) => {
      const { config, runDir, stateDir } = command.optsWithGlobals<{ config: string; runDir?: string; stateDir?: string }>();
      // Loaded here alone: the other verbs start in a fraction of the time without it.
      const { runDaemon } = await import('../daemon/main.ts');
      await runDaemon({
        config: resolve(config),
        ...(runDir && { runDir: resolve(runDir) }),
        ...(stateDir && { stateDir: resolve(stateDir) }),
      });
    });
}
