/** `netbus init`: makes a cluster, with this host as its first. */
import type { Command } from 'commander';
import type { InitAnswer } from '../daemon/init.ts';
import { systemClock } from '../lib/clock.ts';
import { Context, INTERRUPTED } from './context.ts';
import { CONFIG_DEFAULT } from './daemon.ts';
import { startCommand } from './start-command.ts';

interface InitOptions {
  cluster: string;
  host: string;
  address?: string;
  config: string;
  stateDir?: string;
  runDir?: string;
}

export function addInit(program: Command): void {
  program
    .command('init')
    .summary('make a cluster, with this host as its first')
    .description(
      'Makes a cluster: its CA, the certificate of this host, a config file with every key explained, and the member list with this host in it. Nothing that is there is overwritten.',
    )
    .requiredOption('--cluster <name>', "the cluster's name: a-z, 0-9 and -")
    .requiredOption('--host <name>', "this host's name in the cluster: a-z, 0-9 and -")
    .option('--address <address>', 'where other hosts reach this one, ADDRESS or ADDRESS:PORT (default: its only address)')
    .option('--config <file>', 'the config file to write; certificates and keys go to the folder pki beside it', CONFIG_DEFAULT)
    .option('--state-dir <dir>', 'where exports, attachments and the member list are kept (default: /var/lib/netbus)')
    .addHelpText('after', '\nExample:\n  netbus init --cluster lab --host m1\n')
    .action(async (_options: unknown, command: Command) => {
      const { cluster, host, address, config, stateDir, runDir } = command.optsWithGlobals<InitOptions>();
      const { initCluster } = await import('../daemon/init.ts');
      const answer = await untilInterrupted('nothing was made', (signal) =>
        initCluster({
          cluster,
          host,
          config,
          clock: systemClock,
          signal,
          ...(address !== undefined && { address }),
          ...(stateDir && { stateDir }),
          ...(runDir && { runDir }),
        }),
      );
      new Context(command).print(answer, () => describe(answer));
    });
}

function describe({ cluster, host, address, config, caFingerprint, rootKey, files }: InitAnswer): string {
  return `made cluster ${cluster}, with this host as ${host} at ${address}
${files.map((file) => `  ${file}\n`).join('')}
The CA's fingerprint (SHA-256) is ${caFingerprint}.
${rootKey} is the root key. Only renewing the issuing certificate in five years needs it:
copy it to a safe place that is not on this host, then delete it here.

Next:
  ${startCommand(config)}    # run the daemon of this host
  netbus invite HOST    # then: a token with which HOST joins
`;
}

/** Ends the work in order at Ctrl-C or SIGTERM, so that it leaves nothing behind; then the process says `outcome` and ends as interrupted. */
export async function untilInterrupted<Result>(
  outcome: string,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, abort);
  try {
    return await work(controller.signal);
  } catch (thrown) {
    if (!controller.signal.aborted) throw thrown;
    process.stderr.write(`netbus: interrupted: ${outcome}\n`);
    return process.exit(INTERRUPTED);
  } finally {
    for (const signal of signals) process.off(signal, abort);
  }
}
